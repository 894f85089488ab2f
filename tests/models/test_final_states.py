"""Final states are computed once for an input matrix and a text, and are the patched model's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.world import CASES, N_ROWS, WIDTH
from tokensurgeon.models import load_model
from tokensurgeon.models.final_states import FinalStates

IDS = [[3, 40, 5, 9], [7, 80], [5]]
N_IDS = 7


def rows(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(N_ROWS, WIDTH)).astype(np.float32)


@pytest.mark.parametrize(("family", "tied"), CASES)
def test_other_output_rows_are_scored_without_a_forward_pass(
    model_of: Callable[..., Path], family: str, tied: bool
) -> None:
    model = load_model(model_of(family, tied))
    cache, inputs = FinalStates(model), rows(0)
    states = cache.of(inputs, IDS, "text")
    for seed in (1, 2):
        bias = None if model.head.bias is None else rows(seed)[:, 0].copy()
        patched = model.patched(inputs, rows(seed), bias)
        head = model.head.with_rows(rows(seed), bias)
        start = 0
        for sequence, losses in zip(IDS, patched.nll(IDS), strict=True):
            own = cache.of(inputs, IDS, "text")[start : start + len(sequence)]
            nll = head.nll(own[:-1], np.array(sequence[1:], dtype=np.int64))
            np.testing.assert_allclose(nll, losses, atol=1e-5)
            start += len(sequence)
    assert states.shape == (N_IDS, WIDTH)
    assert cache.n_tokens == N_IDS


def test_states_are_computed_anew_for_other_rows_and_other_texts(
    model_of: Callable[..., Path],
) -> None:
    cache, first, second = FinalStates(load_model(model_of())), rows(0), rows(0)
    states = cache.of(first, IDS, "text")
    assert cache.of(first, IDS, "text") is states
    # Equal values are not enough: rows are known by the object, so that nothing is compared.
    np.testing.assert_array_equal(cache.of(second, IDS, "text"), states)
    assert cache.n_tokens == 2 * N_IDS
    assert not np.allclose(cache.of(rows(1), IDS, "text"), states)
    assert cache.of(first, IDS[:1], "other").shape == (4, WIDTH)


def test_no_more_sets_are_kept_than_allowed_and_the_last_used_stay(
    model_of: Callable[..., Path],
) -> None:
    cache, matrix = FinalStates(load_model(model_of()), n_kept=2), rows(0)
    for key in ("a", "b", "a", "c", "a"):  # b goes when c comes
        cache.of(matrix, IDS, key)
    assert cache.n_tokens == 3 * N_IDS
    cache.of(matrix, IDS, "b")
    assert cache.n_tokens == 4 * N_IDS


def test_a_text_of_nothing_has_no_states(model_of: Callable[..., Path]) -> None:
    cache = FinalStates(load_model(model_of()))
    assert cache.of(rows(0), [], "none").shape == (0, WIDTH)
    assert cache.of(rows(0), [[], [4]], "one").shape == (1, WIDTH)
