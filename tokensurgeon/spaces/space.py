"""The `Space`: a vector per token, and which tokens have one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tokensurgeon.arrays import Float32, Mask
from tokensurgeon.errors import InitialiserError


@dataclass(frozen=True)
class Space:
    """Vectors of n tokens, in the order in which the builder was given them.

    Attributes
    ----------
    vectors : float32 (n, dim)
        Finite; 0 where the space does not know the token.
    known : bool (n,)
        Where the space says something of the token: never where its vector is 0.

    Raises
    ------
    InitialiserError
        If the shapes or types do not fit, or a vector is not finite.
    """

    vectors: Float32
    known: Mask

    def __post_init__(self) -> None:
        """Check the shapes and that every vector is finite."""
        vectors, known = self.vectors, self.known
        if vectors.ndim != 2 or vectors.dtype != np.float32 or known.shape != vectors.shape[:1]:
            raise InitialiserError(
                f"a space has {vectors.dtype} vectors of shape {vectors.shape} and "
                f"{known.shape[0]} flags; give float32 (n, dim) and n flags"
            )
        if not np.isfinite(vectors).all():
            raise InitialiserError(
                f"{int((~np.isfinite(vectors).all(axis=1)).sum())} of {len(vectors)} vectors of a "
                "space hold NaN or Inf; leave those tokens unknown"
            )

    @property
    def dim(self) -> int:
        """Dimensions of the vectors."""
        return int(self.vectors.shape[1])


def row_space(rows: npt.NDArray[np.floating], known: Mask) -> Space:
    """Return rows as a space: a donor's, or what a builder has computed.

    Parameters
    ----------
    rows : float (n, dim)
        One row per token.
    known : bool (n,)
        Tokens that have a row. One whose row is 0 or not finite becomes unknown.
    """
    vectors = np.array(rows, dtype=np.float32)
    known = known & np.isfinite(vectors).all(axis=1) & (vectors != 0).any(axis=1)
    vectors[~known] = 0.0
    return Space(vectors, known)


def unit(vectors: Float32) -> Float32:
    """Return the vectors at length 1, float32; a zero vector stays zero."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1.0), dtype=np.float32)
