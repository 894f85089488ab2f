"""Weights over rows from the pieces of each token: given how much each piece counts, a matrix."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import scipy.sparse as sp

from tokensurgeon.arrays import Float64, Ids, Mask

Weigh = Callable[[int], Float64]
"""From the number of pieces to their weights."""


def mean_weights(count: int) -> Float64:
    """Return `count` equal weights that sum to one."""
    return np.full(count, 1.0 / count)


def first_weights(count: int) -> Float64:
    """Return weight one on the first of `count` pieces."""
    weights = np.zeros(count)
    weights[0] = 1.0
    return weights


def last_weights(count: int) -> Float64:
    """Return weight one on the last of `count` pieces."""
    return first_weights(count)[::-1]


def exponential_weights(rate: float) -> Weigh:
    """Return a function to weights ∝ exp(rate·j), j = 1…count, that sum to one."""

    def weigh(count: int) -> Float64:
        exponents = rate * np.arange(count)
        weights = np.exp(exponents - exponents.max())
        return np.asarray(weights / weights.sum())

    return weigh


def piece_weights(
    pieces: Sequence[Sequence[int]],
    n_source: int,
    weigh: Weigh = mean_weights,
    usable: Mask | None = None,
    sizes: Ids | None = None,
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
    sizes : int64 (n_source,), optional
        Above 0. A piece's weight is in proportion to its size too, such as its bytes.
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
    if sizes is not None:
        weights = sp.csr_array(weights @ sp.diags_array(sizes.astype(np.float64)))
        totals = weights.sum(axis=1)
        weights = sp.csr_array(sp.diags_array(1.0 / np.where(totals, totals, 1.0)) @ weights)
    return weights
