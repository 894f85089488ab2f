"""Bits per byte, the loss of each chunk beside it: two figures are compared chunk by chunk."""

from __future__ import annotations

import numpy as np

from tokensurgeon.arrays import Float64, Ids
from tokensurgeon.evaluation.metrics import LN2, bits_per_byte

FEWEST_CHUNKS = 4
"""Below this the scatter between chunks says nothing."""


class BitsPerByte(float):
    """Bits per byte of a model on some chunks.

    Attributes
    ----------
    losses : float64 (n_chunks,)
        In nats.
    n_bytes : int64 (n_chunks,)
        Bytes that were scored.
    """

    losses: Float64
    n_bytes: Ids

    @classmethod
    def of(cls, losses: Float64, n_bytes: Ids) -> BitsPerByte:
        """Return the figure of losses by chunk."""
        figure = cls(bits_per_byte(float(losses.sum()), int(n_bytes.sum())))
        figure.losses, figure.n_bytes = losses, np.asarray(n_bytes, dtype=np.int64)
        return figure

    def joined(self, further: BitsPerByte) -> BitsPerByte:
        """Return the figure on these chunks and further ones."""
        return BitsPerByte.of(
            np.concatenate([self.losses, further.losses]),
            np.concatenate([self.n_bytes, further.n_bytes]),
        )


def standard_error(one: float, other: float) -> float:
    """Return the standard error of the difference of two figures on the same chunks.

    0 where they are plain numbers; infinite where the chunks are too few to say.
    """
    if not (isinstance(one, BitsPerByte) and isinstance(other, BitsPerByte)):
        return 0.0
    n = len(one.losses)
    if n != len(other.losses) or n < FEWEST_CHUNKS:
        return float("inf")
    # Of a ratio of sums: what each chunk's difference is above the mean difference of its bytes.
    difference, n_bytes = one.losses - other.losses, one.n_bytes
    rest = difference - difference.sum() / n_bytes.sum() * n_bytes
    return float(np.sqrt(n / (n - 1) * (rest**2).sum()) / (LN2 * n_bytes.sum()))
