"""The loss on numbers: what a model pays for the bytes of digits, however they are cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tokensurgeon.evaluation.excess import loss_on_spans
from tokensurgeon.evaluation.metrics import bits_per_byte
from tokensurgeon.evaluation.scoring import Scores
from tokensurgeon.text.chunks import Chunk


@dataclass(frozen=True)
class NumberLoss:
    """The loss on the digits 0 to 9 of a text.

    Attributes
    ----------
    bits_per_digit : float
        The loss of each token is spread evenly over its bytes, as in `excess`.
    digits : int
        How many there are in what was scored.
    """

    bits_per_digit: float
    digits: int


def number_loss(scores: Scores, chunks: Sequence[Chunk]) -> NumberLoss | None:
    """Return the loss on digits over comparable chunks; None where the text has none."""
    nll, digits = 0.0, 0
    for i in np.flatnonzero(scores.comparable).tolist():
        ends, start = scores.token_ends[i], int(scores.start[i])
        if not ends.size:
            continue
        text = np.frombuffer(chunks[i].text.encode("utf-8"), dtype=np.uint8)[start : int(ends[-1])]
        digit = (text >= ord("0")) & (text <= ord("9"))
        if digit.any():
            spans = np.arange(start + 1, int(ends[-1]) + 1)
            nll += float(loss_on_spans(scores.token_nll[i], ends, start, spans)[digit].sum())
            digits += int(digit.sum())
    return NumberLoss(bits_per_byte(nll, digits), digits) if digits else None
