"""Tokens by their neighbours in a text: positive pointwise mutual information and an SVD.

The classical count model behind static word vectors (Levy, Goldberg & Dagan, 2015, "Improving
Distributional Similarity with Lessons Learned from Word Embeddings"). It needs seconds and no
training, and stands in for fastText vectors trained on the target's segmentation.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp

from tokensurgeon.arrays import Ids, blocks
from tokensurgeon.spaces.space import Space, row_space
from tokensurgeon.spaces.svd import truncated_svd

_PAIRS = 1 << 21
"""Pairs that are counted at a time: 48 MiB of indices and weights."""


def co_occurrence_space(
    documents: Sequence[Sequence[int] | Ids],
    n_tokens: int,
    *,
    dim: int = 128,
    window: int = 4,
    smoothing: float = 0.75,
    power: float = 0.5,
    seed: int = 0,
) -> Space:
    """Return vectors of the tokens that the documents show.

    A neighbour at distance d counts 1/d; what stands before and what stands after are counted
    apart, for a language model tells them apart. Counts become max(0, log(p(t, c) / p(t)p(c))),
    with p(c) ∝ count^`smoothing`, and then U·S^`power` of a truncated SVD.

    Parameters
    ----------
    documents : sequence of sequences of ids, each from 0 to n_tokens - 1
    n_tokens : int
    dim : int
        At most.
    window : int
        Largest distance, in tokens, 1 or more.
    smoothing, power : float
        See above.
    seed : int
        Of the randomised SVD.

    Returns
    -------
    Space
        (n_tokens, dim); tokens that the documents do not show, or only alone, are unknown.
    """
    counts = _pair_counts(documents, n_tokens, window)
    known = np.diff(counts.indptr) > 0
    return row_space(truncated_svd(_ppmi(counts, smoothing), dim, seed, power), known)


def _pair_counts(
    documents: Sequence[Sequence[int] | Ids], n_tokens: int, window: int
) -> sp.csr_array:
    """Return weighted counts, CSR (n_tokens, 2·n_tokens): neighbours after, then before."""
    after = sp.csr_array((n_tokens, n_tokens), dtype=np.float64)
    if documents:
        ids = np.concatenate([np.asarray(one, dtype=np.int64) for one in documents])
        owner = np.repeat(np.arange(len(documents)), [len(one) for one in documents])
        for distance in range(1, window + 1):
            left, right = ids[:-distance], ids[distance:]
            same = owner[:-distance] == owner[distance:]
            left, right = left[same], right[same]
            for part in blocks(len(left), _PAIRS):
                weights = np.full(len(left[part]), 1.0 / distance)
                pairs = sp.coo_array(
                    (weights, (left[part], right[part])), shape=(n_tokens, n_tokens)
                )
                after = sp.csr_array(after + pairs.tocsr())
    return sp.csr_array(sp.hstack([after, after.T], format="csr"))


def _ppmi(counts: sp.csr_array, smoothing: float) -> sp.csr_array:
    """Return the positive pointwise mutual information of each pair that was seen."""
    total = counts.sum()
    if not total:
        return counts
    rows = np.asarray(counts.sum(axis=1)).ravel()
    columns = np.asarray(counts.sum(axis=0)).ravel() ** smoothing
    columns /= columns.sum()
    where = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
    values = np.log(counts.data / (rows[where] * columns[counts.indices]))
    result = sp.csr_array(
        (np.maximum(values, 0.0), counts.indices, counts.indptr), shape=counts.shape
    )
    result.eliminate_zeros()
    return result
