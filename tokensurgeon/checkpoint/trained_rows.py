"""Which rows of a checkpoint look trained."""

from __future__ import annotations

import numpy as np

from tokensurgeon.arrays import Float32, Hashes, Mask, blocks
from tokensurgeon.errors import CheckpointError
from tokensurgeon.vocabulary import Kind, Vocabulary

AT_ONCE = 4096
"""Rows that are hashed together: a block of a few dozen MiB at common widths."""


def looks_trained(vocabulary: Vocabulary, *matrices: Float32) -> Mask:
    """Return which source rows look trained, bool (n_source,).

    A row looks trained if it belongs to an ordinary token and is finite, not zero and not one of
    several identical rows on any side: a block of untrained rows often shares its initial value.

    Parameters
    ----------
    vocabulary : Vocabulary
    *matrices : float32 (n_source, width)
        One for each side.
    """
    n_rows = matrices[0].shape[0]
    trained = np.zeros(n_rows, dtype=bool)
    n = min(n_rows, vocabulary.n_rows)
    trained[:n] = vocabulary.kinds[:n] == Kind.ORDINARY
    for rows in matrices:
        trained &= np.isfinite(rows).all(axis=1) & (rows != 0).any(axis=1)
        _, which, counts = np.unique(row_hashes(rows), return_inverse=True, return_counts=True)
        trained &= counts[which] == 1
    return trained


def refuse_untrained(rows: Float32, whose: str) -> None:
    """Refuse a matrix whose finite rows are all the same: nothing can be learned from it.

    Parameters
    ----------
    rows : float32 (n_rows, width)
    whose : str
        Of whom they are, in the message.

    Raises
    ------
    CheckpointError
    """
    first = None
    for part in blocks(len(rows), AT_ONCE):
        finite = rows[part][np.isfinite(rows[part]).all(axis=1)]
        if first is None and len(finite):
            first = finite[0]
        if first is not None and (finite != first).any():
            return
    what = "NaN or Inf" if first is None else "equal" if first.any() else "zero"
    raise CheckpointError(
        f"the {whose} rows are all {what}, {len(rows):,} of them, so nothing was trained there; "
        "give a trained checkpoint"
    )


def row_hashes(rows: Float32) -> Hashes:
    """Return a 64-bit hash of each row's bytes: equal rows, equal hashes, in little memory."""
    width = rows.shape[1]
    factors = np.random.default_rng(0).integers(1, 2**63, width, dtype=np.uint64) | np.uint64(1)
    hashes = np.empty(len(rows), dtype=np.uint64)
    for part in blocks(len(rows), AT_ONCE):
        bits = np.ascontiguousarray(rows[part]).view(np.uint32)
        # Multiply-add modulo 2^64: overflow is meant.
        hashes[part] = (bits.astype(np.uint64) * factors).sum(axis=1)
    return hashes
