"""Rows of a model that already has the tokens, as a space."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tokensurgeon.spaces.space import Space, made


def row_space(rows: npt.NDArray[np.float32], known: npt.NDArray[np.bool_]) -> Space:
    """Return the rows as they are.

    Parameters
    ----------
    rows : float32 (n, width)
        One side of a donor's matrices, by token.
    known : bool (n,)
        Which of them are the donor's own; rows that are 0 or not finite are unknown anyway.
    """
    return made(rows, known)
