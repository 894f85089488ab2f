"""Learn byte-pair merges from counted segments: the engine of every method that merges.

The stock trainer takes raw text and holds every word as an object of its own. It cannot be told how
often a segment occurs, cannot forbid a merge, and cannot weigh languages against each other. This
one works on flat arrays: all segments one after another, links between neighbours, and for each
pair its positions. A merge touches these positions only, all at once.

Given the same words, counts and order of the alphabet, and no rule, its merges are those of the
stock trainer. Ties are resolved alike: the more frequent pair first, then the one with lower ids.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

import numpy as np

from tokensurgeon.arrays import Ids, Int32
from tokensurgeon.progress import Progress, no_progress
from tokensurgeon.trainers.counting.sequences import ID_BITS, ID_MASK, Sequences
from tokensurgeon.trainers.learned import Merges

Rule = Callable[[bytes], bool]

_GONE = -2
"""Marks the second part of a merge in the flat array; other than any id and than `BORDER`."""
REPORT_EVERY = 256
"""Merges between two reports of progress: often enough to be seen, too seldom to take time."""


class Merger:
    """Merges the most frequent pair of ids, again and again.

    Parameters
    ----------
    sequences : Sequences
        Its `ids` are changed in place.
    merges : Merges
        Merges so far; grows in place.
    allow : callable(bytes) -> bool or None
        Whether a pair may become this token. Asked once for each pair that is about to be merged.
    distinct : bool
        Whether each token is made by one merge alone: a pair that would make a token that is there
        already is not merged.
    min_count : int
        A pair that occurs less often is never merged. It is forgotten at once, because its count
        can only fall.

    Notes
    -----
    Takes about 20 bytes of memory per id of the sequences, and 12 more during construction.
    """

    def __init__(
        self,
        sequences: Sequences,
        merges: Merges,
        *,
        allow: Rule | None = None,
        distinct: bool = False,
        min_count: int = 2,
    ) -> None:
        n = len(sequences.ids)
        self.merges = merges
        self.allow = allow
        self.distinct = distinct
        self.min_count = max(1, min_count)
        self.n_groups = sequences.n_groups
        self._id_of = merges.ids
        self._ids = sequences.ids
        self._segment = sequences.segment
        self._weights = sequences.weights
        self._groups = sequences.groups
        self._next = np.arange(1, n + 1, dtype=np.int32)
        self._before = np.arange(-1, n - 1, dtype=np.int32)
        self._mark = np.zeros(n, bool)
        self._counts: dict[int, int] = {}
        self._positions: dict[int, Int32] = {}
        self._heaps: list[list[tuple[int, int]]] = [[] for _ in range(self.n_groups)]
        is_id = self._ids >= 0
        positions = np.flatnonzero(is_id[:-1] & is_id[1:]).astype(np.int32)
        del is_id
        keys = self._keys(self._ids[positions], self._ids[positions + 1], positions)
        self._add_pairs(keys, positions)
        for heap in self._heaps:
            heapq.heapify(heap)

    @property
    def n_tokens(self) -> Ids:
        """Weighted length of the text in tokens, int64 (n_groups,)."""
        at = self._segment[self._ids >= 0]
        groups = np.zeros(len(at), np.int64) if self._groups is None else self._groups[at]
        sums = np.bincount(groups, self._weights[at].astype(float), minlength=self.n_groups)
        return np.rint(sums).astype(np.int64)

    def best(self, group: int = 0) -> tuple[int, int, int] | None:
        """Return the next pair to merge and its count, ``(left, right, count)``, or None."""
        heap = self._heaps[group]
        while heap:
            negative, key = heap[0]
            count = self._counts.get(key, 0)
            if count < self.min_count:
                heapq.heappop(heap)
                self._counts.pop(key, None)
                continue
            if count != -negative:
                heapq.heapreplace(heap, (-count, key))
                continue
            pair = key // self.n_groups
            left, right = pair >> ID_BITS, pair & ID_MASK
            token = self.merges.tokens[left] + self.merges.tokens[right]
            is_new = not (self.distinct and token in self._id_of)
            if is_new and (self.allow is None or self.allow(token)):
                return left, right, count
            heapq.heappop(heap)
            self._forget(pair)
        return None

    def run(self, n_tokens: int, progress: Progress = no_progress, what: str = "merging") -> Merges:
        """Merge until there are `n_tokens` tokens or no pair is left; return the merges."""
        while len(self.merges.tokens) < n_tokens and (best := self.best()) is not None:
            self.merge(*best)
            if len(self.merges.pairs) % REPORT_EVERY == 0:
                progress(len(self.merges.tokens), n_tokens, what)
        return self.merges

    def merge(self, left: int, right: int, count: int) -> tuple[int, Ids]:
        """Merge a pair everywhere; return the id made and the tokens saved in each group."""
        ids, following, before = self._ids, self._next, self._before
        pair = (left << ID_BITS) | right
        first = self._positions.get(pair, np.zeros(0, np.int32))
        self._forget(pair)
        # Positions were noted when the pair arose. Another merge may have used one of its parts.
        first = first[ids[first] == left]
        second = following[first]
        fits = ids[second] == right
        first, second = first[fits], second[fits]
        if left == right:
            first, second = _every_other(first, second)
        made = self.merges.add(left, right, count, self._id_of)
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
        # If the token before is itself merged at this step, its own merge updates the pair between.
        free = ~self._mark[ahead] & (old_left >= 0)
        self._mark[second] = False
        ends = old_right >= 0
        broken = self._beside(
            second[ends], right, old_right[ends], ahead[free], old_left[free], left
        )
        self._take_pairs(*broken)
        ids[first] = made
        ids[second] = _GONE
        following[first] = after
        before[after] = first
        new_right = ids[after[ends]]  # it may have been made at this step too
        arisen = self._beside(first[ends], made, new_right, ahead[free], old_left[free], made)
        self._add_pairs(*arisen, push=True)
        return made, saved

    def ids(self) -> tuple[Int32, Int32]:
        """Return the present ids and the segment of each, without borders."""
        present = self._ids >= 0
        return self._ids[present], self._segment[present]

    def _keys(self, lefts: Int32, rights: Int32, at: Int32) -> Ids:
        keys = (lefts.astype(np.int64) << ID_BITS) | rights
        if self._groups is not None:
            keys = keys * self.n_groups + self._groups[self._segment[at]]
        return keys

    def _beside(
        self, at: Int32, token: int, after: Int32, ahead: Int32, before: Int32, other: int
    ) -> tuple[Ids, Int32]:
        """Return keys and positions of the pairs (token, after) and (before, other)."""
        lefts = np.concatenate([np.full(len(at), token, np.int32), before])
        rights = np.concatenate([after, np.full(len(ahead), other, np.int32)])
        positions = np.concatenate([at, ahead])
        return self._keys(lefts, rights, positions), positions

    def _take_pairs(self, keys: Ids, at: Int32) -> None:
        """Subtract from the counts of the pairs that a merge breaks."""
        if not len(keys):
            return
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        starts = _starts(keys)
        sums = np.add.reduceat(self._weights[self._segment[at[order]]], starts)
        counts = self._counts
        for key, lost in zip(keys[starts].tolist(), sums.tolist(), strict=True):
            if key in counts:
                counts[key] -= lost

    def _add_pairs(self, keys: Ids, at: Int32, *, push: bool = False) -> None:
        """Add to the counts of new pairs and note their positions; rare pairs are forgotten."""
        if not len(keys):
            return
        order = np.argsort(keys, kind="stable")
        keys, at = keys[order], at[order]
        del order
        starts = _starts(keys)
        sums = np.add.reduceat(self._weights[self._segment[at]], starts)
        counts, groups = self._counts, self.n_groups
        frequent = np.flatnonzero(sums >= self.min_count)
        pairs = keys[starts[frequent]]
        for key, count in zip(pairs.tolist(), sums[frequent].tolist(), strict=True):
            # The pair can exist already, if two merges make the same bytes.
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
            is_frequent = np.isin(keys[starts], pairs // groups)
            frequent, pairs = np.flatnonzero(is_frequent), keys[starts[is_frequent]]
        ends = np.append(starts[1:], len(keys))[frequent]
        positions = self._positions
        for pair, start, end in zip(
            pairs.tolist(), starts[frequent].tolist(), ends.tolist(), strict=True
        ):
            earlier = positions.get(pair)
            new = at[start:end].copy() if push else at[start:end]
            positions[pair] = new if earlier is None else np.concatenate([earlier, new])

    def _forget(self, pair: int) -> None:
        self._positions.pop(pair, None)
        for group in range(self.n_groups):
            self._counts.pop(pair * self.n_groups + group, None)


def _starts(keys: Ids) -> Ids:
    """Return where each run of equal keys begins."""
    return np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))


def _every_other(first: Int32, second: Int32) -> tuple[Int32, Int32]:
    """Keep the first, third, … of overlapping occurrences (``aaa``), as an encoder does."""
    order = np.argsort(first)
    first, second = first[order], second[order]
    linked = np.zeros(len(first), bool)
    linked[1:] = second[:-1] == first[1:]
    numbers = np.arange(len(first))
    start = np.maximum.accumulate(np.where(linked, 0, numbers))
    keep = (numbers - start) % 2 == 0
    return first[keep], second[keep]
