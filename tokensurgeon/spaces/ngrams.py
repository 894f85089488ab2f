"""Tokens by the byte n-grams that they are made of: a space that needs nothing but bytes.

Tokens with like spellings are near: inflections, shared stems, shared endings. It knows nothing
of meaning.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp

from tokensurgeon.arrays import Mask
from tokensurgeon.spaces.space import Space, row_space
from tokensurgeon.spaces.svd import truncated_svd

_START, _END = b"\x02", b"\x03"
"""Stand at either end of a token, so that a beginning differs from an end."""


def ngram_space(
    token_bytes: Sequence[bytes | None],
    *,
    dim: int = 128,
    shortest: int = 1,
    longest: int = 4,
    buckets: int = 1 << 16,
    seed: int = 0,
) -> Space:
    """Return hashed byte n-grams, weighted by rarity and reduced by a truncated SVD.

    A token is the set of its n-grams of `shortest` to `longest` bytes, its ends marked, each
    hashed (CRC-32) into one of `buckets`. An n-gram counts log(n / tokens that have it), a token
    has length 1, and the SVD keeps the `dim` strongest directions.

    Parameters
    ----------
    token_bytes : sequence of bytes or None, length n
        None and empty bytes are unknown.
    dim : int
        At most; few tokens have fewer directions.
    shortest, longest : int
        Lengths of the n-grams, in bytes, markers included.
    buckets : int
    seed : int
        Of the randomised SVD.

    Returns
    -------
    Space
        A token's vector depends on which other tokens were given, not on their order but for
        rounding.
    """
    counts, known = _ngrams(token_bytes, shortest, longest, buckets)
    present = np.bincount(counts.indices, minlength=buckets)
    # An n-gram of a single token tells it from all others alike: the SVD would drop it anyway.
    kept = np.flatnonzero(present > 1)
    n = max(1, int(known.sum()))
    rarity = np.log(n / present[kept]) + 1e-3
    weighted = sp.csr_array(counts[:, kept] * rarity[None, :])
    lengths = np.sqrt(np.asarray(weighted.multiply(weighted).sum(axis=1)).ravel())
    scale = sp.diags_array(1.0 / np.where(lengths > 0, lengths, 1.0))
    return row_space(truncated_svd(sp.csr_array(scale @ weighted), dim, seed), known)


def _ngrams(
    token_bytes: Sequence[bytes | None], shortest: int, longest: int, buckets: int
) -> tuple[sp.csr_array, Mask]:
    """Return which bucket each token has, CSR (n, buckets) of ones, and which tokens have any."""
    indices: list[int] = []
    indptr = [0]
    known = np.zeros(len(token_bytes), dtype=bool)
    for i, data in enumerate(token_bytes):
        if data:
            known[i] = True
            whole = _START + data + _END
            found = {
                zlib.crc32(whole[start : start + size]) % buckets
                for size in range(shortest, longest + 1)
                for start in range(len(whole) - size + 1)
            }
            indices.extend(sorted(found))
        indptr.append(len(indices))
    ones = np.ones(len(indices))
    shape = (len(token_bytes), buckets)
    return sp.csr_array((ones, np.array(indices, dtype=np.int64), indptr), shape=shape), known
