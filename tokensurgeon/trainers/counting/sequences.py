"""Segments of text as flat arrays of token ids, which merges are learned on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tokensurgeon.arrays import Ids, Int32
from tokensurgeon.vocabulary.token_bytes import byte_order

ID_BITS = 21
"""Bits of an id in a pair packed into one int64: vocabularies have at most two million tokens."""
ID_MASK = (1 << ID_BITS) - 1
"""Selects the right id of a packed pair."""
BORDER = -1
"""Stands between segments in the flat array, so that no pair crosses from one to the next."""


ROWS_AT_ONCE = 1 << 16
"""Segments whose bytes are looked at together: some ten megabytes of arrays for each kilobyte of
their mean length."""


def byte_pairs(segments: Sequence[str], weights: Ids) -> Ids:
    """Return how often each two bytes stand beside each other in segments, int64 (256, 256)."""
    counts = np.zeros(1 << 16, np.int64)
    for start in range(0, len(segments), ROWS_AT_ONCE):
        encoded = [segment.encode("utf-8") for segment in segments[start : start + ROWS_AT_ONCE]]
        owner = np.repeat(np.arange(len(encoded)), np.fromiter(map(len, encoded), np.int64))
        flat = np.frombuffer(b"".join(encoded), np.uint8).astype(np.int64)
        inside = np.flatnonzero(owner[1:] == owner[:-1])
        pairs = (flat[inside] << 8) | flat[inside + 1]
        of_each = weights[start + owner[inside]].astype(float)
        counts += np.rint(np.bincount(pairs, of_each, 1 << 16)).astype(np.int64)
    return counts.reshape(256, 256)


@dataclass(frozen=True)
class Sequences:
    """Segments as ids, one after another in one array.

    Attributes
    ----------
    ids : int32 (n,)
        Ids, with `BORDER` before, between and after segments.
    segment : int32 (n,)
        Index of the segment of each id; arbitrary at a border.
    weights : int64 (n_segments,)
        How often each segment counts.
    groups : int32 (n_segments,) or None
        The language of each segment, for merging that weighs languages against each other.
    """

    ids: Int32
    segment: Int32
    weights: Ids
    groups: Int32 | None = None

    @classmethod
    def of_bytes(
        cls, segments: Sequence[str], weights: Ids, groups: Int32 | None = None
    ) -> Sequences:
        """Return segments as the ids of their bytes."""
        id_of_byte = np.empty(256, np.int32)
        id_of_byte[list(byte_order())] = np.arange(256, dtype=np.int32)
        encoded = [segment.encode("utf-8") for segment in segments]
        lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
        flat = id_of_byte[np.frombuffer(b"".join(encoded), np.uint8)]
        return cls.of_flat(flat, lengths, weights, groups)

    @classmethod
    def of_flat(
        cls, flat: Int32, lengths: Ids, weights: Ids, groups: Int32 | None = None
    ) -> Sequences:
        """Return ids without borders, split by the lengths of the segments."""
        n_segments = len(lengths)
        ids = np.full(len(flat) + n_segments + 1, BORDER, np.int32)
        owner = np.repeat(np.arange(n_segments, dtype=np.int32), lengths)
        positions = np.arange(1, len(flat) + 1, dtype=np.int64) + owner
        segment = np.zeros(len(ids), np.int32)
        ids[positions] = flat
        segment[positions] = owner
        return cls(ids, segment, np.asarray(weights, np.int64), groups)

    @property
    def weight(self) -> int:
        """Number of ids, each counted as often as its segment."""
        return int(self.weights[self.segment[self.ids >= 0]].sum())

    @property
    def n_groups(self) -> int:
        """Number of groups; 1 if there are none."""
        return 1 if self.groups is None else int(self.groups.max(initial=0)) + 1
