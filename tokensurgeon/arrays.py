"""The array types of the house, the size of a value, and blocks of rows.

One name, one meaning, in every room. Shapes in docstrings come from one glossary: `n_source`,
`n_target`, `n_shared`, `n_missing`, `width`, `donor_width`, `n_docs`, `n_tokens`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

Float32 = npt.NDArray[np.float32]
"""Rows of vocabulary matrices and hidden states."""
Float64 = npt.NDArray[np.float64]
"""Losses, and whatever a small system is solved in."""
Ids = npt.NDArray[np.int64]
"""Token ids, and indices into arrays."""
Int32 = npt.NDArray[np.int32]
"""Ids and positions where there is one for each byte of a text: half the memory of int64."""
Mask = npt.NDArray[np.bool_]
Hashes = npt.NDArray[np.uint64]

ITEM_BYTES = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}
"""Bytes of one value, by the name of its dtype in a checkpoint."""


def blocks(n: int, size: int) -> Iterator[slice]:
    """Yield slices of at most `size` (at least one) that cover ``range(n)``.

    Examples
    --------
    >>> [(part.start, part.stop) for part in blocks(5, 2)]
    [(0, 2), (2, 4), (4, 5)]
    """
    size = max(1, size)
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))


def to_float32(tensor: torch.Tensor) -> Float32:
    """Return the values of a tensor on any device; they may share its memory."""
    values: Float32 = tensor.detach().float().cpu().numpy()
    return values
