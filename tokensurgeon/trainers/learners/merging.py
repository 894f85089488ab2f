"""Learn byte-pair merges from counted segments: the engine of every trained vocabulary here.

The stock trainer takes raw text, has no way to be told how often a segment occurs, to forbid a
merge, or to weigh languages against each other, and holds every word as an object of its own. This
one works on flat arrays: all segments one after another, a chain of neighbours, and for each pair
the positions where it stands. A merge touches just those positions, all at once.

Given the same words, counts and order of the alphabet, and no rule, its merges are those of the
stock trainer, ties included (the more frequent pair, then the one with the lower ids).

What it does not do: split text (see `counting`), or build a tokenizer (see `encoders`).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from tokensurgeon.vocabulary.token_bytes import byte_alphabet

Ints = npt.NDArray[np.int64]
Positions = npt.NDArray[np.int32]
Rule = Callable[[bytes], bool]

SHIFT = 21
"""Bits of an id: vocabularies have at most two million tokens."""
BORDER = -1
"""Stands between segments in the flat array; no pair reaches over it."""
_GONE = -2
REPORT_EVERY = 256


@lru_cache(maxsize=1)
def byte_order() -> tuple[int, ...]:
    """Return the 256 bytes in the order of the characters that stand for them."""
    return tuple(byte for _, byte in sorted((c, b) for b, c in byte_alphabet().items()))


@dataclass
class Merges:
    """Tokens and how each was made.

    Attributes
    ----------
    tokens : list of bytes
        The 256 bytes in `byte_order`, then what was learned. All distinct.
    pairs : list of (int, int)
        Ids of the two parts, in the order learned.
    made : list of int
        The id that each pair makes. Two pairs can make the same string, and so the same id.
    counts : list of int
        How often each pair stood in the text when it was merged.
    """

    tokens: list[bytes] = field(default_factory=lambda: [bytes([b]) for b in byte_order()])
    pairs: list[tuple[int, int]] = field(default_factory=list)
    made: list[int] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)

    def copy(self, n_tokens: int | None = None) -> Merges:
        """Return a copy, cut to the first `n_tokens` tokens and what makes them."""
        end = len(self.pairs)
        if n_tokens is not None:
            end = next((i for i, made in enumerate(self.made) if made >= n_tokens), end)
        return Merges(self.tokens[:n_tokens], self.pairs[:end], self.made[:end], self.counts[:end])

    def add(self, left: int, right: int, count: int, known: dict[bytes, int]) -> int:
        """Note a merge and return the id that it makes; `known` has the id of each string."""
        joined = self.tokens[left] + self.tokens[right]
        found = known.get(joined)
        if found is None:
            found = known[joined] = len(self.tokens)
            self.tokens.append(joined)
        self.pairs.append((left, right))
        self.made.append(found)
        self.counts.append(count)
        return found

    def fill(self, others: Merges, n_tokens: int) -> None:
        """Take merges of others, in their order, whose parts are known, up to `n_tokens` tokens."""
        known = {token: number for number, token in enumerate(self.tokens)}
        for (left, right), count in zip(others.pairs, others.counts, strict=True):
            if len(self.tokens) >= n_tokens:
                break
            first, second = others.tokens[left], others.tokens[right]
            if first in known and second in known and first + second not in known:
                self.add(known[first], known[second], count, known)


@dataclass(frozen=True)
class Sequences:
    """Segments as ids, flat.

    Attributes
    ----------
    ids : int32 array of shape (n,)
        Ids, with `BORDER` before, between and after segments.
    segment : int32 array of shape (n,)
        Which segment each id belongs to (at a border, any).
    weights : int64 array of shape (n_segments,)
    groups : int32 array of shape (n_segments,) or None
        A language, for merging that weighs languages against each other.
    """

    ids: Positions
    segment: Positions
    weights: Ints
    groups: Positions | None = None

    @classmethod
    def of_bytes(
        cls, segments: Sequence[str], weights: Ints, groups: Positions | None = None
    ) -> Sequences:
        """Return segments as the ids of their bytes."""
        number_of = np.empty(256, np.int32)
        number_of[list(byte_order())] = np.arange(256, dtype=np.int32)
        encoded = [segment.encode("utf-8") for segment in segments]
        lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
        flat = number_of[np.frombuffer(b"".join(encoded), np.uint8)]
        return cls.of_flat(flat, lengths, weights, groups)

    @classmethod
    def of_flat(
        cls, flat: Positions, lengths: Ints, weights: Ints, groups: Positions | None = None
    ) -> Sequences:
        """Return ids without borders, parted by the lengths of the segments."""
        n_segments = len(lengths)
        ids = np.full(len(flat) + n_segments + 1, BORDER, np.int32)
        owner = np.repeat(np.arange(n_segments, dtype=np.int32), lengths)
        places = np.arange(1, len(flat) + 1, dtype=np.int64) + owner
        segment = np.zeros(len(ids), np.int32)
        ids[places] = flat
        segment[places] = owner
        return cls(ids, segment, np.asarray(weights, np.int64), groups)

    @property
    def weight(self) -> int:
        """How many ids there are, each as often as its segment."""
        return int(self.weights[self.segment[self.ids >= 0]].sum())

    @property
    def n_groups(self) -> int:
        """Number of groups; 1 where there are none."""
        return 1 if self.groups is None else int(self.groups.max(initial=0)) + 1


class Merger:
    """Merge the most frequent pair, again and again.

    Parameters
    ----------
    sequences : Sequences
        Its `ids` are changed in place.
    merges : Merges
        What is known already; grows in place.
    allow : callable(bytes) -> bool or None
        Whether a pair may become this token. Asked once for each pair that is about to be merged.
    floor : int
        A pair that stands less often than this is never merged, and forgotten as soon as seen:
        its count can only fall.

    Notes
    -----
    Memory is about 20 bytes per id of the sequences, and 12 more while it starts.
    """

    def __init__(
        self,
        sequences: Sequences,
        merges: Merges,
        *,
        allow: Rule | None = None,
        floor: int = 2,
    ) -> None:
        n = len(sequences.ids)
        self.merges = merges
        self.known = {token: number for number, token in enumerate(merges.tokens)}
        self.allow = allow
        self.floor = max(1, floor)
        self.n_groups = sequences.n_groups
        self._ids = sequences.ids
        self._segment = sequences.segment
        self._weights = sequences.weights
        self._groups = sequences.groups
        self._next = np.arange(1, n + 1, dtype=np.int32)
        self._before = np.arange(-1, n - 1, dtype=np.int32)
        self._mark = np.zeros(n, bool)
        self._counts: dict[int, int] = {}
        self._places: dict[int, Positions] = {}
        self._heaps: list[list[tuple[int, int]]] = [[] for _ in range(self.n_groups)]
        real = self._ids >= 0
        places = np.flatnonzero(real[:-1] & real[1:]).astype(np.int32)
        del real
        keys = self._keys(self._ids[places], self._ids[places + 1], places)
        self._add_pairs(keys, places)
        for heap in self._heaps:
            heapq.heapify(heap)

    @property
    def n_tokens(self) -> Ints:
        """Weighted length of the text in tokens so far, one number per group."""
        at = self._segment[self._ids >= 0]
        groups = np.zeros(len(at), np.int64) if self._groups is None else self._groups[at]
        counted = np.bincount(groups, self._weights[at].astype(float), minlength=self.n_groups)
        return np.rint(counted).astype(np.int64)

    def best(self, group: int = 0) -> tuple[int, int, int] | None:
        """Return the next pair to merge and its count, ``(left, right, count)``, or None."""
        heap = self._heaps[group]
        while heap:
            negative, key = heap[0]
            count = self._counts.get(key, 0)
            if count < self.floor:
                heapq.heappop(heap)
                self._counts.pop(key, None)
                continue
            if count != -negative:
                heapq.heapreplace(heap, (-count, key))
                continue
            pair = key // self.n_groups
            left, right = pair >> SHIFT, pair & ((1 << SHIFT) - 1)
            tokens = self.merges.tokens
            if self.allow is None or self.allow(tokens[left] + tokens[right]):
                return left, right, count
            heapq.heappop(heap)
            self._forget(pair)
        return None

    def run(self, n_tokens: int, progress: Callable[[int], None] | None = None) -> Merges:
        """Merge until there are `n_tokens` tokens or no pair is left; return the merges."""
        while len(self.merges.tokens) < n_tokens:
            found = self.best()
            if found is None:
                break
            self.merge(*found)
            if progress is not None and len(self.merges.pairs) % REPORT_EVERY == 0:
                progress(len(self.merges.tokens))
        return self.merges

    def merge(self, left: int, right: int, count: int) -> tuple[int, Ints]:
        """Merge a pair everywhere; return the id made and the tokens saved in each group."""
        ids, following, before = self._ids, self._next, self._before
        pair = (left << SHIFT) | right
        first = self._places.get(pair, np.zeros(0, np.int32))
        self._forget(pair)
        # Positions were noted when the pair arose; another merge may have taken a part since.
        first = first[ids[first] == left]
        second = following[first]
        fits = ids[second] == right
        first, second = first[fits], second[fits]
        if left == right:
            first, second = _every_other(first, second)
        made = self.merges.add(left, right, count, self.known)
        saved = np.zeros(self.n_groups, np.int64)
        if not len(first):
            return made, saved
        weight = self._weights[self._segment[first]]
        if self._groups is None:
            saved[0] = int(weight.sum())
        else:
            np.add.at(saved, self._groups[self._segment[first]], weight)

        after, ahead = following[second], before[first]
        old_right, old_left = ids[after], ids[ahead]
        self._mark[second] = True
        # Where the token before is the second part of another merge, that one tells of the border.
        free = ~self._mark[ahead] & (old_left >= 0)
        self._mark[second] = False
        ends = old_right >= 0
        self._take_pairs(right, old_right[ends], second[ends], old_left[free], left, ahead[free])
        ids[first] = made
        ids[second] = _GONE
        following[first] = after
        before[after] = first
        at = np.concatenate([first[ends], ahead[free]])
        lefts = np.concatenate([np.full(int(ends.sum()), made, np.int32), old_left[free]])
        rights = np.concatenate([ids[after[ends]], np.full(int(free.sum()), made, np.int32)])
        self._add_pairs(self._keys(lefts, rights, at), at, push=True)
        return made, saved

    def ids(self) -> tuple[Positions, Positions]:
        """Return the ids that stand now and the segment of each, borders left out."""
        alive = self._ids >= 0
        return self._ids[alive], self._segment[alive]

    def _keys(self, lefts: Positions, rights: Positions, at: Positions) -> Ints:
        keys = (lefts.astype(np.int64) << SHIFT) | rights
        if self._groups is not None:
            keys = keys * self.n_groups + self._groups[self._segment[at]]
        return keys

    def _take_pairs(
        self,
        right: int,
        old_right: Positions,
        second: Positions,
        old_left: Positions,
        left: int,
        ahead: Positions,
    ) -> None:
        """Count down the pairs that a merge breaks."""
        at = np.concatenate([second, ahead])
        if not len(at):
            return
        lefts = np.concatenate([np.full(len(second), right, np.int32), old_left])
        rights = np.concatenate([old_right, np.full(len(ahead), left, np.int32)])
        keys = self._keys(lefts, rights, at)
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        starts = _starts(keys)
        sums = np.add.reduceat(self._weights[self._segment[at[order]]], starts)
        counts = self._counts
        for key, lost in zip(keys[starts].tolist(), sums.tolist(), strict=True):
            if key in counts:
                counts[key] -= lost

    def _add_pairs(self, keys: Ints, at: Positions, *, push: bool = False) -> None:
        """Count pairs that have arisen and note where; the rare ones are forgotten."""
        if not len(keys):
            return
        order = np.argsort(keys, kind="stable")
        keys, at = keys[order], at[order]
        del order
        starts = _starts(keys)
        sums = np.add.reduceat(self._weights[self._segment[at]], starts)
        counts, groups = self._counts, self.n_groups
        frequent = np.flatnonzero(sums >= self.floor)
        found = keys[starts[frequent]]
        for key, count in zip(found.tolist(), sums[frequent].tolist(), strict=True):
            # A pair that two merges make, of one spelling, can be there already.
            count += counts.get(key, 0)
            counts[key] = count
            heap = self._heaps[key % groups]
            if push:
                heapq.heappush(heap, (-count, key))
            else:
                heap.append((-count, key))
        if groups > 1:
            keys = keys // groups
            starts = _starts(keys)
            kept = np.isin(keys[starts], found // groups)
            frequent, found = np.flatnonzero(kept), keys[starts[kept]]
        ends = np.append(starts[1:], len(keys))[frequent]
        places = self._places
        for pair, start, end in zip(
            found.tolist(), starts[frequent].tolist(), ends.tolist(), strict=True
        ):
            known = places.get(pair)
            new = at[start:end].copy() if push else at[start:end]
            places[pair] = new if known is None else np.concatenate([known, new])

    def _forget(self, pair: int) -> None:
        self._places.pop(pair, None)
        for group in range(self.n_groups):
            self._counts.pop(pair * self.n_groups + group, None)


def _starts(keys: Ints) -> Ints:
    """Return where each run of equal keys begins."""
    return np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))


def _every_other(first: Positions, second: Positions) -> tuple[Positions, Positions]:
    """Of overlapping occurrences (``aaa``) keep the first, the third, …, as an encoder does."""
    order = np.argsort(first)
    first, second = first[order], second[order]
    linked = np.zeros(len(first), bool)
    linked[1:] = second[:-1] == first[1:]
    numbers = np.arange(len(first))
    start = np.maximum.accumulate(np.where(linked, 0, numbers))
    keep = (numbers - start) % 2 == 0
    return first[keep], second[keep]
