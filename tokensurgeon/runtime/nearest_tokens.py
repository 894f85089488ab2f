r"""The tokens with the largest logits among very many rows, without a product with all of them.

A search for the largest inner product becomes one for the nearest neighbour: every row x gets one
more value, √(M² − ‖x‖²) with M the longest norm, and the state one more zero. All rows then have
the norm M, so that ‖q − x‖² = ‖q‖² + M² − 2 q·x falls as the inner product rises (Bachrach et al.,
2014, "Speeding up the Xbox recommender system using a Euclidean transformation for inner-product
spaces"). A cosine of the bare rows would rank by direction alone and lose long rows.

==========  =====================================================================================
`exact`     a product with all rows, in blocks
`tree`      a ball tree of scikit-learn: exact; seldom faster than the product at common widths
`clusters`  rows in √n groups by k-means, of which those nearest to the state are searched
`hnsw`      a graph of neighbours (Malkov and Yashunin, 2016), of FAISS: extra `faiss`
==========  =====================================================================================

Whatever finds candidates, their logits are exact, and the answer is in their order.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from tokensurgeon.arrays import Float32, Ids, blocks
from tokensurgeon.errors import MissingExtraError, SettingError, UnknownNameError
from tokensurgeon.models.head import LOGITS_AT_ONCE

METHODS = ("exact", "tree", "clusters", "hnsw")
DEFAULT_PROBES = 16
"""Groups that are searched by default: of 222 groups of 49,152 rows about a fourteenth."""
DEFAULT_EFFORT = 128
"""Candidates that the graph keeps while it searches, by default; more find more and take longer."""
NEIGHBOURS = 32
"""Links of a row in the graph: what FAISS's own examples take."""
ROUNDS = 20
"""Of k-means, at most: groups need not be the best ones, for several are searched."""


class NearestTokens:
    """Finds the tokens whose output rows have the largest inner products with a state.

    Parameters
    ----------
    rows : float32 (n_rows, width)
        Finite; own tokens' rows, merged tokens' rows, or both.
    method : {"exact", "tree", "clusters", "hnsw"}
    bias : float32 (n_rows,) or None
        The output bias: one more value of each row.
    probes : int
        Of `clusters`: groups that are searched.
    effort : int
        Of `hnsw`: candidates that are kept while searching.
    seed : int
        Of the groups.

    Raises
    ------
    SettingError, UnknownNameError
        If there is no such method, or a number is below 1, or a row is not finite.
    MissingExtraError
        If FAISS is not installed.

    Examples
    --------
    >>> rows = np.array([[1, 0], [0, 9], [2, 2]], dtype=np.float32)
    >>> ids, logits = NearestTokens(rows, "tree").search(np.array([[1, 0]], dtype=np.float32), 2)
    >>> ids.tolist(), logits.tolist()
    ([[2, 0]], [[2.0, 1.0]])
    """

    def __init__(
        self,
        rows: Float32,
        method: str = "clusters",
        *,
        bias: Float32 | None = None,
        probes: int = DEFAULT_PROBES,
        effort: int = DEFAULT_EFFORT,
        seed: int = 0,
    ) -> None:
        if method not in METHODS:
            raise UnknownNameError(f"no index '{method}'; there are {', '.join(METHODS)}")
        if min(probes, effort) < 1:
            raise SettingError(f"probes and effort must be 1 or more; got {probes} and {effort}")
        rows = rows if bias is None else np.concatenate([rows, bias[:, None]], axis=1)
        finite = np.isfinite(rows).all(axis=1)
        if not len(rows) or not finite.all():
            raise SettingError(
                f"{int((~finite).sum()):,} of {len(rows):,} rows are not finite, or there is none; "
                "leave these rows out"
            )
        self.method, self._has_bias = method, bias is not None
        self._rows = np.ascontiguousarray(rows, dtype=np.float32)
        self._probes, self._effort = probes, effort
        self._index: Any = None
        self._lists: list[Ids] = []
        if method == "tree":
            from sklearn.neighbors import NearestNeighbors

            self._index = NearestNeighbors(algorithm="ball_tree").fit(of_one_norm(self._rows))
        elif method == "clusters":
            self._group(seed)
        elif method == "hnsw":
            self._index = _graph(of_one_norm(self._rows), effort)

    def _group(self, seed: int) -> None:
        from sklearn.cluster import MiniBatchKMeans

        points = of_one_norm(self._rows)
        count = max(1, int(np.sqrt(len(points))))
        means = MiniBatchKMeans(count, random_state=seed, n_init=1, max_iter=ROUNDS).fit(points)
        centres = means.cluster_centers_
        # All points have one norm: which group is nearest is a matter of direction.
        norms = np.linalg.norm(centres, axis=1, keepdims=True)
        self._index = np.asarray(centres / np.maximum(norms, 1e-30), dtype=np.float32)
        order = np.argsort(means.labels_, kind="stable").astype(np.int64)
        ends = np.cumsum(np.bincount(means.labels_, minlength=count))
        self._lists = np.split(order, ends[:-1])

    def search(self, states: Float32, k: int = 1) -> tuple[Ids, Float32]:
        """Return the ids and logits of the `k` best tokens at each state, the best first.

        Parameters
        ----------
        states : float32 (n_states, width)
        k : int
            At least 1, at most the number of rows.

        Returns
        -------
        ids : int64 (n_states, k)
            -1 where fewer candidates were found.
        logits : float32 (n_states, k)
            Inner products, plus the bias; −inf where there is no id.
        """
        if not 1 <= k <= len(self._rows):
            raise SettingError(f"k must be 1 to {len(self._rows):,}, the number of rows; got {k}")
        if self._has_bias:
            states = np.concatenate([states, np.ones((len(states), 1), np.float32)], axis=1)
        states = np.ascontiguousarray(states, dtype=np.float32)
        if self.method == "exact":
            return self._exact(states, k)
        if self.method == "clusters":
            near = np.argsort(-(states @ self._index[:, :-1].T), axis=1)[:, : self._probes]
            found = [np.concatenate([self._lists[group] for group in row]) for row in near.tolist()]
            return self._ranked(states, found, k)
        queries = np.concatenate([states, np.zeros((len(states), 1), np.float32)], axis=1)
        if self.method == "tree":
            candidates = self._index.kneighbors(queries, k, return_distance=False)
        else:
            self._index.hnsw.efSearch = max(self._effort, k)
            candidates = self._index.search(queries, k)[1]
        return self._ranked(states, [row[row >= 0] for row in candidates.astype(np.int64)], k)

    def _exact(self, states: Float32, k: int) -> tuple[Ids, Float32]:
        ids = np.empty((len(states), k), dtype=np.int64)
        logits = np.empty((len(states), k), dtype=np.float32)
        for block in blocks(len(states), LOGITS_AT_ONCE // len(self._rows)):
            scores = states[block] @ self._rows.T
            best = np.argpartition(-scores, k - 1, axis=1)[:, :k]
            of_best = np.take_along_axis(scores, best, axis=1)
            order = np.argsort(-of_best, axis=1, kind="stable")
            ids[block] = np.take_along_axis(best, order, axis=1)
            logits[block] = np.take_along_axis(of_best, order, axis=1)
        return ids, logits

    def _ranked(self, states: Float32, found: list[Ids], k: int) -> tuple[Ids, Float32]:
        """Return the best of the candidates of each state by their exact logits."""
        ids = np.full((len(states), k), -1, dtype=np.int64)
        logits = np.full((len(states), k), -np.inf, dtype=np.float32)
        for i, (state, own) in enumerate(zip(states, found, strict=True)):
            scores = self._rows[own] @ state
            order = np.argsort(-scores, kind="stable")[:k]
            ids[i, : len(order)], logits[i, : len(order)] = own[order], scores[order]
        return ids, logits

    def recall(self, states: Float32, k: int = 1) -> float:
        """Return the share of the `k` truly best tokens that are found, mean over states."""
        found = self.search(states, k)[0]
        if self._has_bias:
            states = np.concatenate([states, np.ones((len(states), 1), np.float32)], axis=1)
        true = self._exact(states, k)[0]
        shared = [np.isin(a, b).sum() for a, b in zip(true, found, strict=True)]
        return float(np.sum(shared) / true.size)


def of_one_norm(rows: Float32) -> Float32:
    """Return rows with one more value, so that all have the norm of the longest.

    Examples
    --------
    >>> of_one_norm(np.array([[3.0, 0.0], [0.0, 5.0]], dtype=np.float32)).tolist()
    [[3.0, 0.0, 4.0], [0.0, 5.0, 0.0]]
    """
    squares = (rows.astype(np.float64) ** 2).sum(axis=1)
    rest = np.sqrt(np.maximum(squares.max() - squares, 0.0))
    return np.concatenate([rows, rest[:, None]], axis=1, dtype=np.float32, casting="same_kind")


def _graph(points: Float32, effort: int) -> Any:
    try:
        faiss = importlib.import_module("faiss")
    except ImportError as error:
        raise MissingExtraError(
            "the index 'hnsw' needs FAISS: run pip install 'tokensurgeon[faiss]', or take clusters"
        ) from error
    index = faiss.IndexHNSWFlat(points.shape[1], NEIGHBOURS)
    index.hnsw.efConstruction = max(effort, NEIGHBOURS)
    index.add(points)
    return index
