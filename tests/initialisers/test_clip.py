"""Clipping: long rows get the norm that was asked, all others stay as they are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokensurgeon.errors import InitialiserError
from tokensurgeon.initialisers.numerics.clip import clip_rows


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(1.0, 100.0))
def test_long_rows_keep_their_direction_and_short_ones_every_bit(seed: int, percentile: float):
    rng = np.random.default_rng(seed)
    trained = rng.standard_normal((50, 12)).astype(np.float32)
    new = (rng.lognormal(0.0, 1.0, (40, 1)) * rng.standard_normal((40, 12))).astype(np.float32)
    before = new.copy()
    rows, n_clipped = clip_rows(new, trained, percentile)
    assert np.array_equal(new, before)
    limit = np.percentile(np.linalg.norm(trained.astype(np.float64), axis=1), percentile)
    norms = np.linalg.norm(new.astype(np.float64), axis=1)
    long = norms > limit
    assert n_clipped == long.sum()
    assert np.array_equal(rows[~long], new[~long])
    clipped = np.linalg.norm(rows[long].astype(np.float64), axis=1)
    assert (clipped <= limit).all()
    assert clipped == pytest.approx(np.full(long.sum(), limit), rel=1e-5)
    assert rows[long] / clipped[:, None] == pytest.approx(new[long] / norms[long, None], abs=1e-5)
    again, n_again = clip_rows(rows, trained, percentile)
    assert n_again == 0
    assert np.array_equal(again, rows)


def test_rows_that_are_not_finite_are_left_alone():
    trained = np.eye(3, dtype=np.float32)
    trained[1] = np.nan
    new = np.array([[np.nan, 1, 1], [np.inf, 0, 0], [3, 0, 0]], dtype=np.float32)
    rows, n_clipped = clip_rows(new, trained, 100.0)
    assert n_clipped == 1
    assert np.array_equal(rows[:2], new[:2], equal_nan=True)
    assert rows[2] == pytest.approx([1, 0, 0], rel=1e-5)


@pytest.mark.parametrize("percentile", [0.0, -1.0, 100.1, float("nan")])
def test_a_percentile_out_of_range_is_named(percentile: float):
    with pytest.raises(InitialiserError, match="clip must be above 0 and at most 100; got"):
        clip_rows(np.ones((1, 2), np.float32), np.ones((1, 2), np.float32), percentile)


def test_no_finite_trained_row_is_named():
    with pytest.raises(InitialiserError, match="no trained row is finite"):
        clip_rows(np.ones((1, 2), np.float32), np.full((3, 2), np.nan, np.float32), 99.0)
