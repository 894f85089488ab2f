"""Matrices carry a change of the body along, and go a share of the way to another."""

from __future__ import annotations

import numpy as np
import pytest

from tokensurgeon.calibration import Matrices
from tokensurgeon.checkpoint import BodyUpdate

ZERO = np.zeros((3, 4), np.float32)


def update(seed: int) -> BodyUpdate:
    rng = np.random.default_rng(seed)
    shapes = (3, 2), (2, 4)
    a, b = (rng.normal(size=shape).astype(np.float32) for shape in shapes)
    return BodyUpdate({"w": (a, b)})


@pytest.mark.parametrize("tied", [False, True])
def test_other_rows_keep_the_body(tied: bool) -> None:
    rows, bias = np.ones((5, 3), np.float32), np.ones(5, np.float32)
    matrices = Matrices(rows, rows if tied else rows.copy(), bias, update(0))
    moved = matrices.with_output(2 * rows, 3 * bias)
    assert moved.body is matrices.body
    assert moved.tied == tied
    assert (moved.output == 2).all()
    assert (moved.input == (2 if tied else 1)).all()
    assert (moved.bias == 3).all()
    other = matrices.with_input(2 * rows)
    assert other.body is matrices.body
    assert other.tied == tied
    assert (other.input == 2).all()
    assert (other.output == (2 if tied else 1)).all()
    assert matrices.with_body(None).body is None


@pytest.mark.parametrize(("first", "second"), [(None, 1), (1, None), (1, 2)])
def test_a_share_of_the_way_is_that_share_of_what_is_added(
    first: int | None, second: int | None
) -> None:
    rows = np.ones((5, 3), np.float32)
    bodies = [None if seed is None else update(seed) for seed in (first, second)]
    one, two = (Matrices(rows, rows, body=body) for body in bodies)
    added = [ZERO if body is None else body.merged("w", ZERO) for body in bodies]
    between = one.towards(two, 0.25).body.merged("w", ZERO)
    np.testing.assert_allclose(between, 0.75 * added[0] + 0.25 * added[1], atol=1e-6)


def test_between_equal_bodies_nothing_changes() -> None:
    rows, body = np.ones((5, 3), np.float32), update(0)
    one, two = Matrices(rows, rows, body=body), Matrices(2 * rows, 2 * rows, body=body)
    assert one.towards(two, 0.5).body is body
    assert one.with_body(None).towards(two.with_body(None), 0.5).body is None
