"""Figures from losses: bits per byte, perplexities, and intervals by bootstrap.

Perplexity per token cannot compare two vocabularies; bits per byte can, and is the headline.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tokensurgeon.arrays import Mask, blocks
from tokensurgeon.errors import EvaluationError
from tokensurgeon.evaluation.scoring import Scores

LN2 = math.log(2.0)
FEWEST_DOCUMENTS = 10
"""Of which a bootstrap draws; fewer say nothing of their own variance, and chunks are drawn."""
DRAWS_AT_ONCE = 4_000_000
"""Indices drawn together, 32 MB, so that many documents do not fill the memory."""


@dataclass(frozen=True)
class Interval:
    """An estimate and its interval.

    `unit` says what was drawn anew: "documents", or "chunks" where there are fewer than ten
    documents, which makes the interval too narrow if the chunks of a document are alike; "items" of
    a probe. Wilson's interval of a share draws nothing, and `resamples` is then 0.
    """

    estimate: float
    low: float
    high: float
    level: float
    resamples: int
    unit: str


def bits_per_byte(nll: float, n_bytes: int) -> float:
    """Return the loss as bits per byte: nll in nats / (ln 2 × bytes).

    Examples
    --------
    >>> bits_per_byte(nll=8 * math.log(2), n_bytes=4)
    2.0
    """
    return float(nll) / (LN2 * n_bytes) if n_bytes else math.nan


def perplexity(nll: float, n_units: int) -> float:
    """Return exp of the mean loss per unit: token perplexity, or byte perplexity."""
    if not n_units:
        return math.nan
    mean = float(nll) / n_units
    return math.exp(mean) if mean < 700 else math.inf  # a float64 ends at exp(709)


def bytes_per_token(n_bytes: int, n_tokens: int) -> float:
    """Return how much text a token carries: what users of a vocabulary save."""
    return n_bytes / n_tokens if n_tokens else math.nan


def totals(scores: Scores, keep: Mask | None = None) -> tuple[float, int, int]:
    """Return the loss, bytes and tokens over comparable chunks (and those of `keep`)."""
    mask = scores.comparable if keep is None else scores.comparable & keep
    return (
        float(scores.nll[mask].sum()),
        int(scores.n_bytes[mask].sum()),
        int(scores.n_tokens[mask].sum()),
    )


def bootstrap_ratio(
    a: Scores,
    b: Scores,
    seed: int = 0,
    *,
    resamples: int = 1_000,
    level: float = 0.95,
) -> Interval:
    """Return by how many bits per byte `a` is worse than `b`, with a paired interval.

    Documents are drawn with replacement, the same for both; each draw gives the ratio of the sums
    of loss difference and bytes, not a mean of ratios.

    Parameters
    ----------
    a, b : Scores
        Of the same chunks.
    seed, resamples : int
        Of the draws, and how many.
    level : float
        Share of the draws inside the interval.

    Raises
    ------
    EvaluationError
        If the two have no chunk in common.
    """
    both = a.comparable & b.comparable
    if not both.any():
        raise EvaluationError("the two models have no comparable chunk in common; give other text")
    if not np.array_equal(a.n_bytes[both], b.n_bytes[both]):
        raise EvaluationError("the two models were scored on different bytes; score them together")
    difference, n_bytes = a.nll[both] - b.nll[both], a.n_bytes[both].astype(np.float64)
    documents, index = np.unique(a.document[both], return_inverse=True)
    unit = "chunks" if len(documents) < FEWEST_DOCUMENTS else "documents"
    if unit == "documents":
        difference, n_bytes = (
            np.bincount(index, values).astype(np.float64) for values in (difference, n_bytes)
        )
    estimate = float(difference.sum() / (LN2 * n_bytes.sum()))
    generator = np.random.default_rng(seed)
    n = len(n_bytes)
    values = np.empty(resamples)
    for part in blocks(resamples, DRAWS_AT_ONCE // n):
        drawn = generator.integers(0, n, size=(part.stop - part.start, n))
        values[part] = difference[drawn].sum(axis=1) / (LN2 * n_bytes[drawn].sum(axis=1))
    tail = (1 - level) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return Interval(
        estimate, min(float(low), estimate), max(float(high), estimate), level, resamples, unit
    )
