"""Figures of probes: a ratio of sums over items for each model, its interval, and the difference.

Both models answer the same items, so the difference is drawn from pairs: against itself a model
differs by exactly zero, and the interval is zero wide.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tokensurgeon.arrays import Float64
from tokensurgeon.evaluation.metrics import Interval

LEVEL = 0.95
"""Of every interval."""
QUANTILE = 1.959963984540054
"""Of the normal distribution, for that level on both sides."""
RESAMPLES = 1_000
"""Of a bootstrap: the ends of an interval are then known within some hundredths of its width."""
UNIT = "items"


@dataclass(frozen=True)
class Answers:
    """What one model did on the items of a figure.

    Attributes
    ----------
    values, weights : float64 (n_items,)
        The figure is the sum of `values` over the sum of `weights`: of a share, hits over ones; of
        a loss, bits over bytes.
    """

    values: Float64
    weights: Float64

    @classmethod
    def of(cls, values: Sequence[float], weights: Sequence[float] | None = None) -> Answers:
        """Make them of numbers; each item weighs one if nothing else is said."""
        own = np.asarray(values, dtype=np.float64)
        return cls(own, np.ones(len(own)) if weights is None else np.asarray(weights, np.float64))

    @property
    def ratio(self) -> float | None:
        """The figure; None where nothing weighs anything."""
        total = float(self.weights.sum())
        return float(self.values.sum()) / total if total else None


@dataclass(frozen=True)
class Figure:
    """One line of the table.

    Attributes
    ----------
    probe, name : str
    unit : str
        ``"share"``, ``"bits per byte"``, ``"bits"`` or ``"bytes per token"``.
    higher_is_better : bool or None
        None where neither is.
    n_items : int
    values : tuple of Interval or None
        Of each model, in the order of the table; None where it cannot be asked this.
    difference : Interval or None
        The last model's figure less the first's; None where either has none.
    """

    probe: str
    name: str
    unit: str
    higher_is_better: bool | None
    n_items: int
    values: tuple[Interval | None, ...]
    difference: Interval | None

    def to_dict(self) -> dict[str, Any]:
        """Return the figure as plain values."""
        return asdict(self)


def wilson(hits: float, n: float) -> tuple[float, float]:
    """Return Wilson's interval of a share (Wilson, 1927), at the level of 95 %.

    Examples
    --------
    >>> low, high = wilson(0, 32)
    >>> low, round(high, 3)
    (0.0, 0.107)
    """
    z2 = QUANTILE**2
    middle = (hits + z2 / 2) / (n + z2)
    half = QUANTILE / (n + z2) * math.sqrt(hits * (n - hits) / n + z2 / 4)
    return (0.0 if hits == 0 else middle - half), (1.0 if hits == n else middle + half)


def estimate(answers: Answers, seed: int) -> Interval | None:
    """Return a figure with its interval: Wilson's of a share, else a bootstrap over items."""
    ratio = answers.ratio
    if ratio is None:
        return None
    if (answers.weights == 1).all() and np.isin(answers.values, (0, 1)).all():
        low, high = wilson(float(answers.values.sum()), len(answers.values))
        return Interval(ratio, low, high, LEVEL, 0, UNIT)
    return _interval(ratio, _draws(answers, seed))


def difference(last: Answers, first: Answers, seed: int) -> Interval | None:
    """Return the last figure less the first, with a bootstrap that draws the same items for both.

    None where the two are not of the same items.
    """
    ratios = last.ratio, first.ratio
    if ratios[0] is None or ratios[1] is None or len(last.values) != len(first.values):
        return None
    return _interval(ratios[0] - ratios[1], _draws(last, seed) - _draws(first, seed))


def figure(
    probe: str,
    name: str,
    answers: Sequence[Answers | None],
    *,
    unit: str = "share",
    higher_is_better: bool | None = True,
    seed: int = 0,
) -> Figure | None:
    """Make a figure of what each model did; None where no model did anything."""
    known = [own for own in answers if own is not None]
    values = tuple(None if own is None else estimate(own, seed) for own in answers)
    if all(value is None for value in values):
        return None
    first, last = answers[0], answers[-1]
    gap = None
    if len(answers) > 1 and first is not None and last is not None:
        gap = difference(last, first, seed)
    n_items = max(len(own.values) for own in known)
    return Figure(probe, name, unit, higher_is_better, n_items, values, gap)


def _draws(answers: Answers, seed: int) -> Float64:
    """Return the figure over items drawn anew, float64 (RESAMPLES,)."""
    n = len(answers.values)
    drawn = np.random.default_rng(seed).integers(0, n, size=(RESAMPLES, n))
    totals = answers.weights[drawn].sum(axis=1)
    # A draw in which nothing weighs anything says what all items say.
    empty = totals == 0
    sums = np.where(empty, answers.values.sum(), answers.values[drawn].sum(axis=1))
    ratios: Float64 = sums / np.where(empty, answers.weights.sum(), totals)
    return ratios


def _interval(value: float, draws: Float64) -> Interval:
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(value, min(float(low), value), max(float(high), value), LEVEL, RESAMPLES, UNIT)
