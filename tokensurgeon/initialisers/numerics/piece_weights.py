"""Weights over source rows from the pieces of each missing token: shared by several methods.

Only algebra: given how much each piece counts, it returns a CSR matrix. It reads rows for one
thing, to leave out pieces whose row is not finite.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from tokensurgeon.initialisers.contract import InitContext, NewRows, Rows, SideRows
from tokensurgeon.initialisers.fallback_rows import mean_row

Weigh = Callable[[int], npt.NDArray[np.float64]]


def mean_weights(count: int) -> npt.NDArray[np.float64]:
    """Return `count` equal weights that sum to one."""
    return np.full(count, 1.0 / count)


def first_weights(count: int) -> npt.NDArray[np.float64]:
    """Return weight one on the first of `count` pieces."""
    weights = np.zeros(count)
    weights[0] = 1.0
    return weights


def last_weights(count: int) -> npt.NDArray[np.float64]:
    """Return weight one on the last of `count` pieces."""
    return first_weights(count)[::-1]


def exponential_weights(rate: float) -> Weigh:
    """Return a function to weights ∝ exp(rate·j), j = 1…count, that sum to one."""

    def weigh(count: int) -> npt.NDArray[np.float64]:
        exponents = rate * np.arange(count)
        weights = np.exp(exponents - exponents.max())
        return np.asarray(weights / weights.sum())

    return weigh


def piece_weights(
    pieces: Sequence[Sequence[int]],
    n_source: int,
    weigh: Weigh = mean_weights,
    usable: npt.NDArray[np.bool_] | None = None,
) -> sp.csr_array:
    """Return (len(pieces), n_source) float64 weights; a piece that repeats counts each time.

    Parameters
    ----------
    pieces : sequence of sequences of source ids
    n_source : int
    weigh : callable
        From the number of pieces to their weights.
    usable : bool (n_source,), optional
        Pieces to leave out are False; a token left with none gets an empty row.
    """
    if usable is not None:
        pieces = [[piece for piece in row if usable[piece]] for row in pieces]
    counts = np.fromiter((len(row) for row in pieces), dtype=np.int64, count=len(pieces))
    indptr = np.concatenate([[0], np.cumsum(counts)])
    total = int(indptr[-1])
    indices = np.fromiter((p for row in pieces for p in row), dtype=np.int64, count=total)
    table = {int(count): weigh(int(count)) for count in np.unique(counts) if count}
    data = np.concatenate([np.zeros(0), *(table[int(count)] for count in counts if count)])
    weights = sp.csr_array((data, indices, indptr), shape=(len(pieces), n_source))
    weights.sum_duplicates()
    weights.eliminate_zeros()
    return weights


def with_mean(weights: sp.csr_array, mean_weight: npt.NDArray[np.float64], mean: Rows) -> SideRows:
    """Return `weights` over source rows plus `mean_weight` (one per row) of one virtual row."""
    column = sp.csr_array(np.asarray(mean_weight, dtype=np.float64).reshape(-1, 1))
    stacked = sp.csr_array(sp.hstack([weights, column], format="csr"))
    stacked.eliminate_zeros()
    return SideRows(weights=stacked, virtual=np.asarray(mean, dtype=np.float32)[None, :])


def side_from_pieces(
    context: InitContext, rows: Rows, weigh: Weigh = mean_weights, shrink: float = 0.0
) -> SideRows:
    """Return (1 − shrink)·Σ weight·piece row + shrink·mean row, for every missing token.

    A piece whose row is not finite is left out; a token left without pieces gets the mean row.
    """
    finite = np.asarray(np.isfinite(rows).all(axis=1))
    usable = None if bool(finite.all()) else finite
    weights = piece_weights(context.pieces, context.n_source, weigh, usable)
    lost = np.diff(weights.indptr) == 0
    if not shrink and not lost.any():
        return SideRows(weights=weights)
    mean_weight = np.where(lost, 1.0, shrink)
    return with_mean(
        sp.csr_array(weights * (1.0 - shrink)), mean_weight, mean_row(rows, context.anchors)
    )


def both_sides(context: InitContext, make: Callable[[Rows], SideRows]) -> NewRows:
    """Return `make` of either side's rows; once where one matrix serves both."""
    if context.tied or context.input_rows is context.output_rows:
        side = make(context.output_rows)
        return NewRows(input=side, output=side)
    return NewRows(input=make(context.input_rows), output=make(context.output_rows))
