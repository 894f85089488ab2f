"""The `Space`: a vector per token, and which tokens have one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tokensurgeon.errors import InitialiserError

Vectors = npt.NDArray[np.float32]
Progress = Callable[[int, int], None]


def no_progress(done: int, total: int) -> None:
    """Show nothing."""


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

    vectors: Vectors
    known: npt.NDArray[np.bool_]

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


def made(vectors: npt.NDArray[np.floating], known: npt.NDArray[np.bool_]) -> Space:
    """Return a space; what is not known, not finite or 0 becomes unknown and 0."""
    result = np.array(vectors, dtype=np.float32)
    known = known & np.isfinite(result).all(axis=1) & (result != 0).any(axis=1)
    result[~known] = 0.0
    return Space(result, known)


def unit(vectors: Vectors) -> Vectors:
    """Return the vectors at length 1, float32; a zero vector stays zero."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1.0), dtype=np.float32)
