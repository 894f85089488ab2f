"""The index finds what the product with all rows finds, or says how much of it."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from tokensurgeon.errors import MissingExtraError, SettingError, UnknownNameError
from tokensurgeon.runtime.nearest_tokens import NearestTokens, of_one_norm

HAS_FAISS = importlib.util.find_spec("faiss") is not None
N, WIDTH, K = 600, 12, 5


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    """Rows of very different norms: where a cosine would rank otherwise."""
    generator = np.random.default_rng(0)
    values = generator.normal(size=(N, WIDTH)) * generator.uniform(0.2, 3.0, size=(N, 1))
    return values.astype(np.float32)


@pytest.fixture(scope="module")
def states() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(40, WIDTH)).astype(np.float32)


def truth(rows: np.ndarray, states: np.ndarray, k: int, bias: np.ndarray | float = 0.0):
    logits = states @ rows.T + bias
    order = np.argsort(-logits, axis=1)[:, :k]
    return order, np.take_along_axis(logits, order, axis=1)


def test_one_norm_keeps_inner_products_and_turns_them_into_distances(rows, states) -> None:
    points = of_one_norm(rows)
    norms = np.linalg.norm(points, axis=1)
    np.testing.assert_allclose(norms, norms[0], rtol=1e-5)
    queries = np.concatenate([states, np.zeros((len(states), 1))], axis=1)
    np.testing.assert_allclose(queries @ points.T, states @ rows.T, rtol=1e-4, atol=1e-5)
    distances = np.linalg.norm(queries[:, None] - points[None], axis=2)
    assert (distances.argmin(axis=1) == (states @ rows.T).argmax(axis=1)).all()
    cosine = (states @ (rows / np.linalg.norm(rows, axis=1, keepdims=True)).T).argmax(axis=1)
    assert (cosine != (states @ rows.T).argmax(axis=1)).mean() > 0.2


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize(
    ("method", "options"), [("exact", {}), ("tree", {}), ("clusters", {"probes": 10_000})]
)
def test_exact_searches_find_the_best(rows, states, method: str, options, with_bias: bool) -> None:
    """Groups that are all searched are exact too."""
    bias = np.random.default_rng(2).normal(size=N).astype(np.float32) if with_bias else None
    index = NearestTokens(rows, method, bias=bias, **options)
    ids, logits = index.search(states, K)
    order, best = truth(rows, states, K, 0.0 if bias is None else bias)
    assert (ids == order).all()
    np.testing.assert_allclose(logits, best, rtol=1e-4, atol=1e-5)
    assert index.recall(states, K) == 1.0


def test_more_groups_find_more(rows, states) -> None:
    recalls = [NearestTokens(rows, probes=n).recall(states, K) for n in (1, 4, 24)]
    assert recalls == sorted(recalls)
    assert 0 < recalls[0] < 1 == recalls[-1]


def test_too_few_candidates_are_said(rows, states) -> None:
    ids, logits = NearestTokens(rows, probes=1).search(states, N)
    assert (ids[:, -1] == -1).all()
    assert np.isneginf(logits[:, -1]).all()
    assert (ids[:, 0] >= 0).all()


@pytest.mark.skipif(not HAS_FAISS, reason="FAISS is not installed")
def test_the_graph_finds_nearly_all(rows, states) -> None:
    index = NearestTokens(rows, "hnsw")
    ids, logits = index.search(states, K)
    assert index.recall(states, K) > 0.95
    np.testing.assert_allclose(logits, np.take_along_axis(states @ rows.T, ids, 1), rtol=1e-4)


@pytest.mark.skipif(HAS_FAISS, reason="FAISS is installed")
def test_without_faiss_the_message_says_what_to_install(rows) -> None:
    with pytest.raises(MissingExtraError, match=r"pip install 'tokensurgeon\[faiss\]'"):
        NearestTokens(rows, "hnsw")


def test_bad_input_is_refused(rows, states) -> None:
    with pytest.raises(UnknownNameError, match="no index 'forest'"):
        NearestTokens(rows, "forest")
    with pytest.raises(SettingError, match="probes and effort"):
        NearestTokens(rows, probes=0)
    broken = rows.copy()
    broken[3, 1] = np.nan
    with pytest.raises(SettingError, match="1 of 600 rows are not finite"):
        NearestTokens(broken)
    for k in (0, N + 1):
        with pytest.raises(SettingError, match="k must be 1 to 600"):
            NearestTokens(rows, "exact").search(states, k)
