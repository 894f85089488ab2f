"""The truncated SVD of a sparse matrix, for matrices of any size down to nothing."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from tokensurgeon.arrays import Float32

_ITERATIONS = 4
"""Power iterations of the randomised SVD: more sharpen weak directions, which count little."""


def truncated_svd(matrix: sp.csr_array, dim: int, seed: int, power: float = 1.0) -> Float32:
    """Return U·S^power of the `dim` strongest directions, float32 (n, ≤ dim), seeded.

    Directions of no strength are left out; at least one column is returned, of zeros if need be.
    """
    rank = min(dim, *matrix.shape)
    if rank < 1 or not matrix.nnz:
        return np.zeros((matrix.shape[0], 1), dtype=np.float32)
    if min(matrix.shape) <= max(2 * dim, 64):
        left, strength, _ = np.linalg.svd(matrix.toarray(), full_matrices=False)
        left, strength = left[:, :rank], strength[:rank]
    else:
        from sklearn.decomposition import TruncatedSVD

        svd = TruncatedSVD(rank, n_iter=_ITERATIONS, random_state=seed)
        left = svd.fit_transform(matrix.astype(np.float32))
        strength = svd.singular_values_
        left = left / np.where(strength > 0, strength, 1.0)
    kept = strength > 1e-6 * strength[0]
    return np.asarray(left[:, kept] * strength[kept] ** power, dtype=np.float32)
