"""Counted text, weighed as a mixture says: what methods learn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tokensurgeon.trainers.counting.counts import Counted
from tokensurgeon.trainers.learners.merging import Ints, Positions, Sequences


@dataclass(frozen=True)
class Weighted:
    """Distinct segments, sorted, and what each counts.

    Attributes
    ----------
    segments : list of str
    weights : int64 array of shape (n_segments,)
    groups : int32 array of shape (n_segments,)
        The part of the corpus.
    """

    segments: list[str]
    weights: Ints
    groups: Positions

    def sequences(self, *, grouped: bool = False) -> Sequences:
        """Return the segments as bytes."""
        groups = self.groups if grouped else None
        return Sequences.of_bytes(self.segments, self.weights, groups)

    def sample(self, most_bytes: int) -> Weighted:
        """Return segments spread over the whole, of about so many bytes."""
        total = sum(map(len, self.segments))
        step = max(1, -(-total // most_bytes))
        return self.take(np.arange(len(self.segments)) % step == 0)

    def take(self, kept: npt.NDArray[np.bool_]) -> Weighted:
        """Return the segments for which `kept` is true."""
        segments = [self.segments[number] for number in np.flatnonzero(kept).tolist()]
        return Weighted(segments, self.weights[kept], self.groups[kept])


@dataclass
class Text:
    """Counted tables, with each part of the corpus weighed as a mixture says.

    Attributes
    ----------
    counted : Counted
    multipliers : sequence of float
        What a count of each part is worth; at least 1.
    """

    counted: Counted
    multipliers: Sequence[float] = field(default=())

    @property
    def factors(self) -> list[float]:
        """What a count of each part is worth."""
        return list(self.multipliers) or [1.0] * len(self.counted.parts)

    def table(self, name: str, *, grouped: bool = False, keep: bool = False) -> Weighted:
        """Return a table, in the order of its segments; parts are added up unless `grouped`.

        Unless it is to be kept, a table is let go of: tables are what takes memory.
        """
        tables = self.counted.tables[name] if keep else self.counted.tables.pop(name)
        factors = self.factors
        if len(tables) == 1:
            return _weighted(tables[0], 0)
        if grouped:
            each = [
                _weighted(_times(table, factor), number)
                for number, (table, factor) in enumerate(zip(tables, factors, strict=True))
            ]
            return Weighted(
                [segment for one in each for segment in one.segments],
                np.concatenate([one.weights for one in each]),
                np.concatenate([one.groups for one in each]),
            )
        total: dict[str, int] = {}
        for table, factor in zip(tables, factors, strict=True):
            for segment, count in _times(table, factor).items():
                total[segment] = total.get(segment, 0) + count
        return _weighted(total, 0)


def _times(table: Mapping[str, int], factor: float) -> Mapping[str, int]:
    return table if factor == 1 else {key: round(n * factor) for key, n in table.items()}


def _weighted(table: Mapping[str, int], group: int) -> Weighted:
    segments = sorted(table)
    weights = np.fromiter((table[key] for key in segments), np.int64, len(segments))
    return Weighted(segments, weights, np.full(len(segments), group, np.int32))


def multipliers(n_bytes: Sequence[int], shares: Sequence[float] | None) -> list[float]:
    """Return what each part's counts are worth, so that its bytes make up its share."""
    if shares is None:
        return [1.0] * len(n_bytes)
    raw = [share / max(n, 1) for share, n in zip(shares, n_bytes, strict=True)]
    least = min(factor for factor in raw if factor > 0)
    return [factor / least for factor in raw]
