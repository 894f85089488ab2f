"""Rows solved on a CUDA device are the rows solved on CPU."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tokensurgeon.initialisers import build
from tokensurgeon.initialisers.check import example_context

METHODS = ("omp", "ridge-composer", "clp", "focus", "wechsel", "hidden-state", "hypernetwork")
SETTINGS = {"hypernetwork": {"minutes": 0}}


@pytest.mark.gpu
@pytest.mark.parametrize("method", METHODS)
def test_cuda_gives_the_same_rows(method: str):
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    context = example_context()
    sides = []
    for device in ("cpu", "cuda"):
        made = build(method, SETTINGS.get(method))(dataclasses.replace(context, device=device))
        sides.append(
            [
                None if side is None else side.values(rows)
                for side, rows in (
                    (made.input, context.input_rows),
                    (made.output, context.output_rows),
                )
            ]
        )
    for one, other in zip(*sides, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            assert np.abs(one - other).max() < 1e-3 * np.abs(one).max()
