"""Counted text, weighted as a mixture says: what methods learn from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tokensurgeon.arrays import Ids, Int32, Mask
from tokensurgeon.trainers.counting.counts import Counted
from tokensurgeon.trainers.counting.sequences import Sequences


@dataclass(frozen=True)
class WeightedSegments:
    """Distinct segments, sorted, and the weight of each.

    Attributes
    ----------
    segments : list of str
    weights : int64 (n_segments,)
    groups : int32 (n_segments,)
        Index of the part of the corpus.
    """

    segments: list[str]
    weights: Ids
    groups: Int32

    @classmethod
    def of_table(cls, table: Mapping[str, int], group: int = 0) -> WeightedSegments:
        """Return the segments of a table of counts."""
        segments = sorted(table)
        weights = np.fromiter((table[segment] for segment in segments), np.int64, len(segments))
        return cls(segments, weights, np.full(len(segments), group, np.int32))

    def sequences(self, *, grouped: bool = False) -> Sequences:
        """Return the segments as ids of bytes."""
        groups = self.groups if grouped else None
        return Sequences.of_bytes(self.segments, self.weights, groups)

    def sample(self, max_bytes: int) -> WeightedSegments:
        """Return every n-th segment, with n such that about `max_bytes` bytes are left."""
        total = sum(map(len, self.segments))
        step = max(1, -(-total // max_bytes))
        return self.take(np.arange(len(self.segments)) % step == 0)

    def take(self, mask: Mask) -> WeightedSegments:
        """Return the segments where `mask` is true."""
        segments = [self.segments[number] for number in np.flatnonzero(mask).tolist()]
        return WeightedSegments(segments, self.weights[mask], self.groups[mask])


@dataclass
class WeightedText:
    """Counted tables, with each part of the corpus weighted as a mixture says.

    Attributes
    ----------
    counted : Counted
    multipliers : sequence of float
        Factor for the counts of each part, at least 1; empty if nothing is weighted.
    """

    counted: Counted
    multipliers: Sequence[float] = field(default=())

    @property
    def factors(self) -> list[float]:
        """Factor for the counts of each part."""
        return list(self.multipliers) or [1.0] * len(self.counted.parts)

    def table(self, name: str, *, grouped: bool = False, keep: bool = False) -> WeightedSegments:
        """Return a table, sorted by segment; parts are added up unless `grouped`.

        Tables take most of the memory, so this one is deleted from `counted` unless `keep`.
        """
        tables = self.counted.tables[name] if keep else self.counted.tables.pop(name)
        if len(tables) == 1:
            return WeightedSegments.of_table(tables[0])
        weighted: list[Mapping[str, int]] = [
            table if factor == 1 else {key: round(n * factor) for key, n in table.items()}
            for table, factor in zip(tables, self.factors, strict=True)
        ]
        if grouped:
            parts = [WeightedSegments.of_table(part, i) for i, part in enumerate(weighted)]
            return WeightedSegments(
                [segment for part in parts for segment in part.segments],
                np.concatenate([part.weights for part in parts]),
                np.concatenate([part.groups for part in parts]),
            )
        total: Counter[str] = Counter()
        for part in weighted:
            total.update(part)
        return WeightedSegments.of_table(total)


def multipliers(n_bytes: Sequence[int], shares: Sequence[float] | None) -> list[float]:
    """Return the factor for each part's counts that gives its bytes their share."""
    if shares is None:
        return [1.0] * len(n_bytes)
    factors = [share / max(n, 1) for share, n in zip(shares, n_bytes, strict=True)]
    least = min(factor for factor in factors if factor > 0)
    return [factor / least for factor in factors]
