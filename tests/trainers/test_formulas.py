"""Formulas of the figures: their values at the ends, and what leaves them alone."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokensurgeon.trainers.measures.formulas import (
    gini,
    is_multi_word,
    renyi_efficiency,
    renyi_entropy,
)

COUNTS = st.lists(st.integers(1, 10_000), min_size=2, max_size=40)
ALPHAS = st.sampled_from([0.5, 1.0, 2.0, 2.5, 3.0])


@given(st.integers(2, 500), st.integers(1, 1_000), ALPHAS)
def test_a_uniform_distribution_is_fully_efficient(n: int, count: int, alpha: float) -> None:
    assert renyi_efficiency([count] * n, alpha, n) == pytest.approx(1)


@given(COUNTS, ALPHAS)
def test_efficiency_lies_between_none_and_all(counts: list[int], alpha: float) -> None:
    assert -1e-9 <= renyi_efficiency(counts, alpha, len(counts)) <= 1 + 1e-9


@given(COUNTS)
def test_entropy_falls_with_alpha(counts: list[int]) -> None:
    found = [renyi_entropy(counts, alpha) for alpha in (0.5, 1, 2.5, 3)]
    assert all(a >= b - 1e-9 for a, b in pairwise(found))


@given(COUNTS, ALPHAS, st.randoms(use_true_random=False))
def test_neither_order_nor_unused_tokens_nor_the_unit_change_entropy(counts, alpha, random) -> None:
    shuffled = [7 * count for count in counts] + [0, 0]
    random.shuffle(shuffled)
    assert renyi_entropy(shuffled, alpha) == pytest.approx(renyi_entropy(counts, alpha))


def test_efficiency_is_the_papers_formula() -> None:
    counts = np.array([6, 3, 1])
    p = counts / counts.sum()
    by_hand = math.log((p**2.5).sum()) / (1 - 2.5) / math.log(8)
    assert renyi_efficiency(counts, 2.5, 8) == pytest.approx(by_hand)


def test_tokens_that_are_never_used_cost_efficiency() -> None:
    assert renyi_efficiency([5, 5], 2.5, 4) < renyi_efficiency([5, 5], 2.5, 2)


def test_nothing_counted_has_no_entropy() -> None:
    assert math.isnan(renyi_entropy([], 2.5))
    assert math.isnan(renyi_efficiency([3], 2.5, 1))


@given(st.integers(1, 50), st.floats(0.01, 1e6))
def test_gini_of_equal_values_is_zero(n: int, value: float) -> None:
    assert gini([value] * n) == pytest.approx(0, abs=1e-9)


@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=30).filter(lambda v: sum(v) > 0.1))
def test_gini_is_the_mean_difference_over_twice_the_mean(values: list[float]) -> None:
    found = np.array(values)
    by_hand = np.abs(found[:, None] - found[None, :]).mean() / (2 * found.mean())
    assert gini(values) == pytest.approx(by_hand, abs=1e-9)
    assert gini([3 * value for value in values[::-1]]) == pytest.approx(gini(values), abs=1e-9)


def test_gini_of_nothing_is_no_number() -> None:
    assert math.isnan(gini([]))
    assert math.isnan(gini([0, 0]))


@pytest.mark.parametrize(
    ("data", "several"),
    [
        (b" of the", True),
        (b"a\nb", True),
        (b" the", False),
        (b"the ", False),
        (b", and", False),
        (b");\n\t}", False),
        (b"\xe3\x81", False),
        (None, False),
    ],
)
def test_several_words_are_two_with_white_space_between(data: bytes | None, several: bool) -> None:
    assert is_multi_word(data) is several
