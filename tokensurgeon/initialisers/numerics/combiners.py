"""From vectors in a space to weights over anchors: the arithmetic of the anchor methods.

Queries are the vectors to be explained, anchors those that explain them. Each combiner says every
query as a sum of anchors, in blocks whose memory stays inside a budget, with the same code on CPU
and CUDA.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp
import torch

from tokensurgeon.arrays import Float32, Mask, blocks
from tokensurgeon.initialisers.numerics.pursuit import pursue
from tokensurgeon.initialisers.numerics.regression import fit_ridge
from tokensurgeon.spaces.work import ON_CPU, Work

_LARGEST = 512
"""Scores per query that sparsemax looks at before it looks at all: mostly enough, and few."""

_ENTRY = 12
"""Bytes of one stored weight: a float64 and its column."""

_MOST_QUERIES = 2048
"""Queries of a block, however much memory there is: progress is told after each block."""

_OMP_RIDGE = 0.3
"""λ of matching pursuit here: in spaces other than a donor's its bare coefficients explode."""


@dataclass(frozen=True)
class Combined:
    """What the queries are made of.

    Attributes
    ----------
    answered : bool (n,)
        False where a query has no direction, or no anchor counts for it.
    weights : CSR float64 (n, n_anchors), or None
    dense : tuple of float32 (n, width)
        Where the weights would not fit: their products with each of the tables, unanswered rows
        0. Empty where there are weights.
    """

    answered: Mask
    weights: sp.csr_array | None = None
    dense: tuple[Float32, ...] = ()


def nearest(
    queries: Float32, anchors: Float32, k: int, temperature: float, work: Work = ON_CPU
) -> Combined:
    """Weigh the `k` anchors of the largest cosine by softmax(cosine / temperature)."""
    return _nearest(queries, anchors, k, work, lambda best: (best / temperature).softmax(dim=1))


def sparsemax(
    queries: Float32,
    anchors: Float32,
    temperature: float,
    tables: Sequence[Float32] = (),
    work: Work = ON_CPU,
) -> Combined:
    """Weigh all anchors by sparsemax(cosine / temperature): most weights are exactly 0.

    The projection of the scores onto the simplex (Martins & Astudillo, 2016), computed exactly.
    If the weights take more than a quarter of the budget, their products with `tables`, rows of
    the anchors (n_anchors, width), are returned instead. Without tables the weights always are.
    """
    half = replace(work, memory_budget=work.memory_budget // 2)
    result = _Growing(len(queries), len(anchors), tables, work.device, work.memory_budget // 4)
    for part, cosines, good in _cosines(queries, anchors, half, copies=5):
        result.add(part, _simplex(cosines / temperature), good)
    return result.finished()


def proportional(
    queries: Float32,
    anchors: Float32,
    tables: Sequence[Float32],
    k: int | None = None,
    work: Work = ON_CPU,
) -> Combined:
    """Weigh anchors in proportion to their cosine; negative ones do not count.

    Nearly every anchor counts, so the products with `tables`, rows of the anchors
    (n_anchors, width), are returned, not the weights. If `k` is given, only the `k` anchors of
    the largest cosine count, and the result is weights.
    """
    if k is not None:
        return _nearest(queries, anchors, k, work, _shares)
    result = _Growing(len(queries), len(anchors), tables, work.device, -1)
    for part, cosines, good in _cosines(queries, anchors, work, copies=2):
        shares = _shares(cosines)
        result.add(part, shares, good & (shares > 0).any(dim=1).cpu().numpy())
    return result.finished()


def pursued(queries: Float32, anchors: Float32, k: int, work: Work = ON_CPU) -> Combined:
    """Weigh at most `k` anchors by matching pursuit with a ridge."""
    answered = (queries != 0).any(axis=1)
    index = np.flatnonzero(answered)
    k = min(k, len(anchors))
    pursuit = pursue(anchors, queries[index], k, ridge=_OMP_RIDGE, work=work)
    used = pursuit.support >= 0
    rows = np.broadcast_to(index[:, None], used.shape)[used]
    weights = sp.csr_array(
        (pursuit.coefficients[used], (rows, pursuit.support[used])),
        shape=(len(queries), len(anchors)),
    )
    answered[index] = used.any(axis=1)
    return Combined(answered, weights)


def mapped(
    queries: Float32,
    anchors: Float32,
    tables: Sequence[Float32],
    generator: np.random.Generator,
    work: Work = ON_CPU,
) -> Combined:
    """Return what a linear map from the space to each of the tables makes of the queries.

    The maps are ridge regressions fitted on the anchors; `generator` chooses those held out.
    """
    n = len(anchors)
    maps = fit_ridge(lambda index: anchors[index], tables, n, generator=generator, work=work)
    answered = (queries != 0).any(axis=1)
    products = [linear(queries) * answered[:, None] for linear in maps]
    return Combined(answered, None, tuple(rows.astype(np.float32) for rows in products))


def _nearest(
    queries: Float32,
    anchors: Float32,
    k: int,
    work: Work,
    weigh: Callable[[torch.Tensor], torch.Tensor],
) -> Combined:
    """Weigh the `k` anchors of the largest cosine; a query all of whose weights are 0 has none."""
    n, n_anchors = len(queries), len(anchors)
    k = min(k, n_anchors)
    columns = np.zeros((n, k), dtype=np.int64)
    data = np.zeros((n, k))
    for part, cosines, good in _cosines(queries, anchors, work, copies=2):
        best = cosines.topk(k, dim=1)
        data[part] = weigh(best.values.double()).cpu().numpy() * good[:, None]
        columns[part] = best.indices.cpu().numpy()
    weights = sp.csr_array(
        (data.ravel(), columns.ravel(), np.arange(n + 1) * k), shape=(n, n_anchors)
    )
    answered: Mask = np.asarray((data > 0).any(axis=1))
    weights.sort_indices()  # may reorder `data` itself
    weights.eliminate_zeros()
    return Combined(answered, weights)


def _shares(cosines: torch.Tensor) -> torch.Tensor:
    """Return each row over its sum, negative values taken for 0; `cosines` is used up."""
    cosines.clamp_min_(0.0)
    return cosines / cosines.sum(dim=1, keepdim=True).clamp_min(1e-30)


def _cosines(
    queries: Float32, anchors: Float32, work: Work, copies: int
) -> Iterator[tuple[slice, torch.Tensor, Mask]]:
    """Yield blocks: which queries, their cosines to all anchors, and which have a direction.

    `copies` of a block's cosines stand in memory at once. Nothing comes where there is no anchor.
    """
    n, width = queries.shape
    if not len(anchors):
        return
    with torch.no_grad():
        units = _unit(torch.from_numpy(np.ascontiguousarray(anchors)).to(work.device))
        room = work.memory_budget - 4 * units.numel()
        block = int(np.clip(room // (4 * (copies * len(anchors) + 2 * width)), 1, _MOST_QUERIES))
        for part in blocks(n, block):
            vectors = torch.from_numpy(np.ascontiguousarray(queries[part])).to(work.device)
            good = (vectors != 0).any(dim=1).cpu().numpy()
            yield part, _unit(vectors) @ units.T, good
            work.progress(part.stop, n)


def _unit(rows: torch.Tensor) -> torch.Tensor:
    lengths = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return rows / torch.where(lengths > 0, lengths, torch.ones_like(lengths))


def _simplex(scores: torch.Tensor) -> torch.Tensor:
    """Project each row onto the probability simplex, exactly; `scores` is used up.

    The threshold of a row is that of its largest scores alone, if the least of them lies below
    it: mostly a few hundred are enough, and finding them costs less than passes over all.
    """
    scores -= scores.amax(dim=1, keepdim=True)
    best = scores.topk(min(_LARGEST, scores.shape[1]), dim=1, sorted=True).values
    threshold = _threshold(best)
    open_ = (best[:, -1:] > threshold)[:, 0]
    if best.shape[1] < scores.shape[1] and bool(open_.any()):
        threshold[open_] = _threshold(scores[open_])
    scores -= threshold
    return scores.clamp_min_(0.0)


def _threshold(scores: torch.Tensor) -> torch.Tensor:
    """Return τ with Σ max(0, score - τ) = 1 for each row, (block, 1); the largest score is 0.

    Michelot's method: the threshold of a set is (sum - 1) / count; what lies below it leaves, and
    the threshold only rises, until none leaves.
    """
    inside = scores > -1.0  # the threshold lies at most 1 below the largest
    count = inside.sum(dim=1, keepdim=True)
    while True:
        threshold: torch.Tensor = ((scores * inside).sum(dim=1, keepdim=True) - 1.0) / count
        inside &= scores > threshold
        left = inside.sum(dim=1, keepdim=True)
        if bool((left == count).all()):
            return threshold
        count = left


class _Growing:
    """Collects blocks of weights, until they no longer fit; from then on their products."""

    def __init__(
        self, n: int, n_anchors: int, tables: Sequence[Float32], device: str, most_bytes: int
    ) -> None:
        self._answered = np.zeros(n, dtype=bool)
        self._n_anchors = n_anchors
        self._tables = [np.ascontiguousarray(table) for table in tables]
        self._on_device: list[torch.Tensor] | None = None
        self._device = torch.device(device)
        self._room = most_bytes
        self._blocks: list[sp.csr_array] = []
        self._dense: list[Float32] = []
        if most_bytes < 0:
            self._multiply()

    def add(self, part: slice, weights: torch.Tensor, good: Mask) -> None:
        """Add the weights of the queries `part`, (block, n_anchors), in order."""
        self._answered[part] = good
        weights[torch.from_numpy(~good).to(weights.device)] = 0.0
        if not self._dense:
            counts = (weights != 0).sum(dim=1)
            self._room -= _ENTRY * int(counts.sum()) if self._tables else 0
            if self._room >= 0:
                rows, columns = (axis.cpu().numpy() for axis in weights.nonzero(as_tuple=True))
                data = weights.cpu().numpy()[rows, columns].astype(np.float64)
                indptr = np.concatenate([[0], np.cumsum(counts.cpu().numpy())])
                self._blocks.append(
                    sp.csr_array((data, columns, indptr), shape=(len(good), self._n_anchors))
                )
                return
            self._multiply()
        assert self._on_device is not None
        for dense, table in zip(self._dense, self._on_device, strict=True):
            dense[part] = (weights @ table).cpu().numpy()

    def finished(self) -> Combined:
        """Return what was collected."""
        if self._dense:
            return Combined(self._answered, None, tuple(self._dense))
        nothing = sp.csr_array((len(self._answered), self._n_anchors), dtype=np.float64)
        weights = sp.vstack(self._blocks, format="csr") if self._blocks else nothing
        return Combined(self._answered, sp.csr_array(weights))

    def _multiply(self) -> None:
        """Multiply out what was collected, and go on with products."""
        n = len(self._answered)
        self._dense = [np.zeros((n, table.shape[1]), dtype=np.float32) for table in self._tables]
        start = 0
        for block in self._blocks:
            for dense, table in zip(self._dense, self._tables, strict=True):
                dense[start : start + block.shape[0]] = block.astype(np.float32) @ table
            start += block.shape[0]
        self._blocks.clear()
        self._on_device = [torch.from_numpy(table).to(self._device) for table in self._tables]
