"""Combiners: projections, limits, agreement of routes, and memory that stays in its budget."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from tokensurgeon.initialisers.numerics import combiners
from tokensurgeon.initialisers.numerics.combiners import (
    Combined,
    nearest,
    proportional,
    sparsemax,
)
from tokensurgeon.initialisers.numerics.regression import fit_ridge
from tokensurgeon.spaces.work import Work


def spaces(n: int = 30, n_anchors: int = 50, width: int = 8, seed: int = 0):
    rng = np.random.default_rng(seed)
    return (
        rng.standard_normal((n, width)).astype(np.float32),
        rng.standard_normal((n_anchors, width)).astype(np.float32),
    )


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a = a / np.linalg.norm(a, axis=1, keepdims=True)
    return (a @ (b / np.linalg.norm(b, axis=1, keepdims=True)).T).astype(np.float64)


def weights(combined: Combined) -> np.ndarray:
    assert combined.weights is not None
    return combined.weights.toarray()


def by_sorting(scores: np.ndarray) -> np.ndarray:
    """Return the projection onto the simplex of each row, the textbook way."""
    z = -np.sort(-scores, axis=1)
    ranks = np.arange(1, z.shape[1] + 1)
    sums = z.cumsum(axis=1)
    count = (1 + ranks * z > sums).sum(axis=1)
    threshold = (sums[np.arange(len(z)), count - 1] - 1) / count
    return np.maximum(scores - threshold[:, None], 0)


@pytest.mark.parametrize("temperature", [0.03, 0.3, 1.0, 10.0])
def test_sparsemax_is_the_projection_onto_the_simplex(temperature: float):
    queries, anchors = spaces()
    found = weights(sparsemax(queries, anchors, temperature))
    assert found == pytest.approx(by_sorting(cosine(queries, anchors) / temperature), abs=1e-5)
    assert found.sum(axis=1) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("largest", [1, 2, 7, 50])
def test_sparsemax_is_exact_however_few_scores_it_looks_at_first(largest: int, monkeypatch):
    queries, anchors = spaces()
    monkeypatch.setattr(combiners, "_LARGEST", largest)
    for temperature in (0.1, 1.0, 10.0):
        wanted = by_sorting(cosine(queries, anchors) / temperature)
        found = weights(sparsemax(queries, anchors, temperature))
        assert found == pytest.approx(wanted, abs=1e-5)


def test_sparsemax_agrees_with_a_quadratic_programme():
    queries, anchors = spaces(3, 6)
    found = weights(sparsemax(queries, anchors, 0.5))
    quadratic: Any = {
        "fun": lambda p, z: ((p - z) ** 2).sum(),
        "jac": lambda p, z: 2 * (p - z),
        "bounds": [(0, 1)] * 6,
        "constraints": {"type": "eq", "fun": lambda p: p.sum() - 1},
        "method": "SLSQP",
        "options": {"ftol": 1e-12},
    }
    for row, scores in zip(found, cosine(queries, anchors) / 0.5, strict=True):
        solved = minimize(x0=np.full(6, 1 / 6), args=(scores,), **quadratic)
        assert row == pytest.approx(solved.x, abs=1e-4)


@given(
    st.lists(
        st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.25, 1.0]), min_size=4, max_size=4).filter(any),
        min_size=2,
        max_size=6,
    )
)
def test_weights_are_shares_whatever_the_space(rows: list[list[float]]):
    table = np.array(rows, dtype=np.float32)
    for found in (
        nearest(table, table, 3, 0.1),
        sparsemax(table, table, 1.0),
        proportional(table, table, [], k=2),
    ):
        made = weights(found)
        assert (made >= 0).all()
        assert made[found.answered].sum(axis=1) == pytest.approx(1, abs=1e-5)
        assert found.answered.all()


def test_an_exact_twin_takes_all_as_the_temperature_falls():
    queries, anchors = spaces()
    anchors[7] = 3 * queries[4]
    for temperature in (1e-1, 1e-2, 1e-3):
        near = weights(nearest(queries, anchors, 10, temperature))[4]
        sparse = weights(sparsemax(queries, anchors, temperature))[4]
        assert near.argmax() == sparse.argmax() == 7
    assert near[7] == pytest.approx(1, abs=1e-6)
    assert sparse[7] == pytest.approx(1, abs=1e-6)


def test_nearest_is_a_softmax_over_the_k_largest():
    queries, anchors = spaces()
    scores = cosine(queries, anchors)
    found = weights(nearest(queries, anchors, 5, 0.2))
    for row, score in zip(found, scores, strict=True):
        best = np.argsort(-score)[:5]
        assert set(np.flatnonzero(row)) == set(best)
        wanted = np.exp(score[best] / 0.2)
        assert row[best] == pytest.approx(wanted / wanted.sum(), abs=1e-5)


def test_more_neighbours_than_anchors_are_all_of_them():
    queries, anchors = spaces(4, 3)
    assert (weights(nearest(queries, anchors, 99, 1.0)) > 0).all()


def test_proportional_weights_all_anchors_by_their_cosine():
    queries, anchors = spaces()
    table = np.random.default_rng(1).standard_normal((50, 5)).astype(np.float32)
    scores = np.maximum(cosine(queries, anchors), 0)
    wanted = scores / scores.sum(axis=1, keepdims=True)
    assert proportional(queries, anchors, [table]).dense[0] == pytest.approx(
        wanted @ table, abs=1e-5
    )
    all_of_them = proportional(queries, anchors, [], k=50)
    assert weights(all_of_them) == pytest.approx(wanted, abs=1e-5)


def test_the_order_of_queries_and_anchors_does_not_matter():
    queries, anchors = spaces()
    rng = np.random.default_rng(5)
    rows, columns = rng.permutation(30), rng.permutation(50)
    for combine in (
        lambda q, a: nearest(q, a, 7, 0.1),
        lambda q, a: sparsemax(q, a, 0.5),
        lambda q, a: proportional(q, a, [], k=7),
    ):
        straight = weights(combine(queries, anchors))
        mixed = weights(combine(queries[rows], anchors[columns]))
        assert mixed == pytest.approx(straight[np.ix_(rows, columns)], abs=1e-6)


def test_a_query_without_direction_is_not_answered():
    queries, anchors = spaces()
    queries[3] = 0
    table = np.ones((50, 2), np.float32)
    for found in (
        nearest(queries, anchors, 3, 0.1),
        sparsemax(queries, anchors, 1.0),
        proportional(queries, anchors, [], k=3),
    ):
        assert np.flatnonzero(~found.answered).tolist() == [3]
        assert weights(found)[3].sum() == 0
    dense = proportional(queries, anchors, [table])
    assert dense.dense[0][3].tolist() == [0, 0]


def test_where_every_cosine_is_negative_nothing_counts():
    anchors = np.ones((5, 3), np.float32)
    found = proportional(-anchors[:2], anchors, [], k=2)
    assert not found.answered.any()
    assert not proportional(-anchors[:2], anchors, [anchors]).answered.any()


@pytest.mark.parametrize("budget", [1, 20_000, 1 << 30])
def test_the_budget_changes_the_form_and_not_the_rows(budget: int):
    queries, anchors = spaces(200, 300)
    tables = [np.random.default_rng(i).standard_normal((300, 6)).astype(np.float32) for i in (1, 2)]
    wanted = by_sorting(cosine(queries, anchors) / 2.0)
    found = sparsemax(queries, anchors, 2.0, tables, work=Work(memory_budget=budget))
    assert (found.weights is None) == (budget < 1 << 30)
    made = found.dense or tuple(found.weights @ table for table in tables)
    for rows, table in zip(made, tables, strict=True):
        assert rows == pytest.approx(wanted @ table, abs=1e-4)
    few = nearest(queries, anchors, 3, 0.1, work=Work(memory_budget=budget))
    assert weights(few) == pytest.approx(weights(nearest(queries, anchors, 3, 0.1)), abs=1e-6)


def test_no_queries_and_no_anchors_are_no_trouble():
    queries, anchors = spaces()
    none = np.zeros((0, 8), np.float32)
    for found in (
        nearest(none, anchors, 3, 0.1),
        sparsemax(none, anchors, 1.0),
        proportional(none, anchors, [], k=3),
    ):
        assert weights(found).shape == (0, 50)
    assert not nearest(queries, none, 3, 0.1).answered.any()
    assert not sparsemax(queries, none, 1.0).answered.any()


@pytest.mark.gpu
def test_cuda_gives_the_same_weights():
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    queries, anchors = spaces(100, 400)
    for combine in (
        lambda device: nearest(queries, anchors, 5, 0.1, Work(device)),
        lambda device: sparsemax(queries, anchors, 0.5, work=Work(device)),
    ):
        assert weights(combine("cuda")) == pytest.approx(weights(combine("cpu")), abs=1e-3)


def test_ridge_recovers_a_planted_map():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((400, 12))
    maps = [rng.standard_normal((12, 5)), rng.standard_normal((12, 3))]
    targets = [x @ each + 2.0 for each in maps]
    found = fit_ridge(lambda i: x[i], targets, 400, generator=rng)
    for ridge, wanted, target in zip(found, maps, targets, strict=True):
        assert ridge.coefficients == pytest.approx(wanted, abs=1e-4)
        assert ridge.explained > 0.999
        assert ridge(x) == pytest.approx(target, abs=1e-3)


def test_ridge_solves_the_normal_equations_at_the_penalty_that_it_names():
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((60, 7)), rng.standard_normal((60, 4))
    (found,) = fit_ridge(lambda i: x[i], [y], 60, generator=rng)
    centred = x - x.mean(axis=0)
    gram = centred.T @ centred
    scale = np.trace(gram) / 7
    left = (gram + found.penalty * scale * np.eye(7)) @ found.coefficients
    assert left == pytest.approx(centred.T @ (y - y.mean(axis=0)), abs=1e-8)


def test_noise_is_answered_with_nearly_the_mean():
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((80, 40)), rng.standard_normal((80, 3)) + 5.0
    (found,) = fit_ridge(lambda i: x[i], [y], 80, generator=rng)
    assert found.penalty >= 1.0
    assert found(x) == pytest.approx(np.broadcast_to(y.mean(axis=0), y.shape), abs=1.0)


def test_examples_of_a_group_are_held_out_together():
    rng = np.random.default_rng(3)
    x = np.repeat(rng.standard_normal((40, 60)), 4, axis=0)
    y = np.repeat(rng.standard_normal((40, 2)), 4, axis=0)
    groups = np.repeat(np.arange(40), 4)
    (leaking,) = fit_ridge(lambda i: x[i], [y], 160, generator=np.random.default_rng(0))
    (honest,) = fit_ridge(
        lambda i: x[i], [y], 160, groups=groups, generator=np.random.default_rng(0)
    )
    assert leaking.explained > 0.9
    assert honest.explained < 0.3


@pytest.mark.parametrize("n", [1, 2, 5])
def test_few_examples_are_enough(n: int):
    x, y = np.ones((n, 3)), np.arange(n * 2.0).reshape(n, 2)
    (found,) = fit_ridge(lambda i: x[i], [y], n, generator=np.random.default_rng(0))
    assert np.isnan(found.explained)
    assert found(x) == pytest.approx(np.broadcast_to(y.mean(axis=0), y.shape), abs=1e-5)
