"""Counted text, weighted as a mixture says: what methods learn from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from tokensurgeon.arrays import Ids, Int32, Mask
from tokensurgeon.trainers.counting.counted import Counted, LeftOut, Table
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


class Stored(Protocol):
    """A table that lies elsewhere."""

    def load(self, group: int = 0) -> tuple[WeightedSegments, LeftOut]:
        """Return the segments that fit into memory, and what is known of the others."""
        ...


@dataclass
class WeightedText:
    """Counted tables, with each part of the corpus weighted as a mixture says.

    Attributes
    ----------
    counted : Counted
    multipliers : sequence of float
        Factor for the counts of each part, at least 1; empty if nothing is weighted.
    divided_by : int
        By what counts were divided for a stock trainer; set by the training.
    """

    counted: Counted
    multipliers: Sequence[float] = field(default=())
    divided_by: int = 1

    @property
    def factors(self) -> list[float]:
        """Factor for the counts of each part."""
        return list(self.multipliers) or [1.0] * len(self.counted.parts)

    def table(self, name: str, *, grouped: bool = False, keep: bool = False) -> WeightedSegments:
        """Return a table, sorted by segment; parts are added up unless `grouped`.

        Tables take most of the memory, so this one is deleted from `counted` unless `keep`.
        """
        tables = self.counted.tables[name] if keep else self.counted.tables.pop(name)
        parts = [self._segments(name, table, i) for i, table in enumerate(tables)]
        if len(parts) == 1:
            return parts[0]
        weighted = [
            part if factor == 1 else replace(part, weights=_scaled(part.weights, factor))
            for part, factor in zip(parts, self.factors, strict=True)
        ]
        if grouped:
            return WeightedSegments(
                [segment for part in weighted for segment in part.segments],
                np.concatenate([part.weights for part in weighted]),
                np.concatenate([part.groups for part in weighted]),
            )
        total: Counter[str] = Counter()
        for part in weighted:
            total.update(dict(zip(part.segments, part.weights.tolist(), strict=True)))
        return WeightedSegments.of_table(total)

    def _segments(self, name: str, table: Table | Stored, group: int) -> WeightedSegments:
        if isinstance(table, Mapping):
            return WeightedSegments.of_table(table, group)
        segments, left_out = table.load(group)
        counted = self.counted
        counted.dropped[name] = counted.dropped.get(name, 0) + left_out.weight
        before = counted.left_out.get(name, LeftOut())
        counted.left_out[name] = before.plus(left_out, self.factors[group])
        return segments


def _scaled(weights: Ids, factor: float) -> Ids:
    scaled: Ids = np.rint(weights * factor).astype(np.int64)
    return scaled


def multipliers(n_bytes: Sequence[int], shares: Sequence[float] | None) -> list[float]:
    """Return the factor for each part's counts that gives its bytes their share."""
    if shares is None:
        return [1.0] * len(n_bytes)
    factors = [share / max(n, 1) for share, n in zip(shares, n_bytes, strict=True)]
    least = min(factor for factor in factors if factor > 0)
    return [factor / least for factor in factors]
