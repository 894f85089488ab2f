"""Which adjacent tokens of a batch become one: three policies, one result.

`frequency`    the most frequent adjacent pair of the batch is merged, again and again, inside words
               (Feher, Vulić and Minixhofer, 2024, arXiv 2411.18553)
`identifiers`  all pieces of an identifier of code become one token, the identifier that saves most
               first
`meaning`      adjacent tokens whose vectors are most alike become one, inside lines (after
               SemToken: Liu and Yu, 2025, arXiv 2508.15190)

None looks at rows. Ties are resolved by ids, never by the order of the batch, so a permuted batch
gives the same merged tokens.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tokensurgeon.arrays import Float32
from tokensurgeon.errors import SettingError
from tokensurgeon.runtime.merging.merged_batch import MergedBatch, Pieces, Span
from tokensurgeon.runtime.merging.word_runs import runs_in_words
from tokensurgeon.trainers.counting.sequences import Sequences
from tokensurgeon.trainers.learned import Merges
from tokensurgeon.trainers.learners.merging import Merger
from tokensurgeon.vocabulary import Vocabulary

POLICIES = ("frequency", "identifiers", "meaning")
_Places = tuple[int, int, int]
"""Where two neighbouring spans begin, and where the second ends."""

ID_BYTES = 4
"""Bytes of an id where pieces are written as bytes, which the merger adds up: ids are below 2³²."""
LONGEST = 16
"""Pieces of a merged token at most, by default: a word of more is rare, and a bound keeps a line of
dashes from becoming one token."""


@dataclass(frozen=True)
class Limits:
    """How far to merge; it ends with the first limit that is reached.

    Attributes
    ----------
    merges : int or None
        Most merges; 0 merges nothing.
    saving : float or None
        Share of the batch's tokens that is to be saved, at least 0 and below 1.
    least_count : int
        A pair, or an identifier, that the batch has less often is not merged. 1 merges every word.
    longest : int
        Pieces of a merged token at most; at least 2.
    keep_last : int
        Last tokens of each sequence that stay as they are.
    """

    merges: int | None = None
    saving: float | None = None
    least_count: int = 2
    longest: int = LONGEST
    keep_last: int = 0

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name, least in (("merges", 0), ("least_count", 1), ("longest", 2), ("keep_last", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise SettingError(f"{name} must be {least} or more; got {value}")
        if self.saving is not None and not 0 <= self.saving < 1:
            raise SettingError(f"saving must be 0 or more and below 1; got {self.saving:g}")

    def reached(self, n_merges: int, n_saved: int, n_tokens: int) -> bool:
        """Whether nothing more is to be merged."""
        if self.merges is not None and n_merges >= self.merges:
            return True
        return self.saving is not None and n_saved >= self.saving * n_tokens


def merge_frequent(
    sequences: Sequence[Sequence[int]],
    vocabulary: Vocabulary,
    n_own: int,
    limits: Limits,
    within: str = "words",
) -> MergedBatch:
    """Merge the most frequent adjacent pair of a batch inside words, again and again.

    Each distinct word is held once, with how often the batch has it. A heap gives the next pair,
    and a merge touches the positions of its pair alone.

    Parameters
    ----------
    sequences : sequence of sequences of int
    vocabulary : Vocabulary
    n_own : int
        Rows of the model; merged tokens are numbered from here on.
    limits : Limits
    within : str
        As in `runs_in_words`.
    """
    places = _places(sequences, vocabulary, limits, within)
    counts = Counter(word for _, _, word in places)
    if not counts or limits.reached(0, 0, 1):
        return MergedBatch.of_spans(sequences, [()] * len(sequences), n_own, 0)
    words = sorted(counts)
    own, flat = np.unique([piece for word in words for piece in word], return_inverse=True)
    table = Sequences.of_flat(
        flat.astype(np.int32),
        np.array([len(word) for word in words], dtype=np.int64),
        np.array([counts[word] for word in words], dtype=np.int64),
    )
    # A token is the sequence of its pieces, of fixed width each: other cuts are other tokens.
    longest = limits.longest * ID_BYTES
    merger = Merger(
        table,
        Merges([int(i).to_bytes(ID_BYTES, "big") for i in own.tolist()]),
        allow=lambda token: len(token) <= longest,
        min_count=limits.least_count,
    )
    n_tokens, n_merges, n_saved = sum(map(len, sequences)), 0, 0
    while not limits.reached(n_merges, n_saved, n_tokens) and (best := merger.best()) is not None:
        _, saved = merger.merge(*best)
        n_merges += 1
        n_saved += int(saved[0])
    ids, segment = merger.ids()
    sizes = [len(token) // ID_BYTES for token in merger.merges.tokens]
    cut: dict[Pieces, list[Span]] = {word: [] for word in words}
    begin, before = 0, -1
    for token, number in zip(ids.tolist(), segment.tolist(), strict=True):
        begin = begin if number == before else 0
        before = number
        if sizes[token] > 1:
            cut[words[number]].append((begin, begin + sizes[token]))
        begin += sizes[token]
    spans: list[list[Span]] = [[] for _ in sequences]
    for i, start, word in places:
        spans[i].extend((start + a, start + b) for a, b in cut[word])
    return MergedBatch.of_spans(sequences, spans, n_own, n_merges)


def merge_identifiers(
    sequences: Sequence[Sequence[int]], vocabulary: Vocabulary, n_own: int, limits: Limits
) -> MergedBatch:
    """Merge all pieces of an identifier into one token, the one that saves most tokens first.

    Parameters and result as of `merge_frequent`. An identifier of more than `limits.longest` pieces
    stays as it is.
    """
    places = _places(sequences, vocabulary, limits, "identifiers")
    counts = Counter(word for _, _, word in places if len(word) <= limits.longest)
    known = [word for word, count in counts.items() if count >= limits.least_count]
    chosen: set[Pieces] = set()
    n_tokens, n_saved = sum(map(len, sequences)), 0
    for word in sorted(known, key=lambda word: (-counts[word] * (len(word) - 1), word)):
        if limits.reached(len(chosen), n_saved, n_tokens):
            break
        chosen.add(word)
        n_saved += counts[word] * (len(word) - 1)
    spans: list[list[Span]] = [[] for _ in sequences]
    for i, start, word in places:
        if word in chosen:
            spans[i].append((start, start + len(word)))
    return MergedBatch.of_spans(sequences, spans, n_own)


def merge_similar(
    sequences: Sequence[Sequence[int]],
    vocabulary: Vocabulary,
    n_own: int,
    limits: Limits,
    vectors: Sequence[Float32],
    *,
    least_cosine: float = 0.0,
    within: str = "lines",
) -> MergedBatch:
    """Merge the adjacent tokens or spans whose mean vectors have the largest cosine.

    Each sequence is merged as if it stood alone; the limits end all of them at one cosine.
    `least_count` plays no part.

    Parameters
    ----------
    sequences, vocabulary, n_own, limits
        As in `merge_frequent`.
    vectors : sequence of float32 (n_tokens, any width)
        One for each token of each sequence: rows, or hidden states.
    least_cosine : float
        Spans less alike are not merged.
    within : str
        As in `runs_in_words`.

    Raises
    ------
    SettingError
        If a sequence has other than one vector for each token.
    """
    for ids, own in zip(sequences, vectors, strict=True):
        if len(ids) != len(own):
            raise SettingError(
                f"{len(own)} vectors were given for {len(ids)} tokens; give one for each token"
            )
    chains = [_Chain(ids, own, vocabulary, limits, within)
              for ids, own in zip(sequences, vectors, strict=True)]  # fmt: skip
    heap: list[tuple[float, int, _Places]] = [
        (-cosine, i, places) for i, chain in enumerate(chains) for cosine, places in chain.pairs
    ]
    heapq.heapify(heap)
    n_tokens, n_merges, cosine = sum(map(len, sequences)), 0, np.inf
    while heap and -heap[0][0] >= least_cosine:
        # What ends it is a cosine, not a place in the batch.
        if limits.reached(n_merges, n_merges, n_tokens) and -heap[0][0] < cosine:
            break
        negative, i, places = heapq.heappop(heap)
        made = chains[i].merge(*places)
        if made is None:
            continue
        n_merges, cosine = n_merges + 1, min(cosine, -negative)
        for alike, places in made:
            heapq.heappush(heap, (-alike, i, places))
    spans = [chain.spans() for chain in chains]
    return MergedBatch.of_spans(sequences, spans, n_own, n_merges)


class _Chain:
    """The spans of one sequence, each with the sum of its vectors; neighbours may be merged."""

    def __init__(
        self,
        ids: Sequence[int],
        vectors: Float32,
        vocabulary: Vocabulary,
        limits: Limits,
        within: str,
    ) -> None:
        n = len(ids)
        self._longest = limits.longest
        self._sums = vectors.astype(np.float64)
        self._end = list(range(1, n + 1))  # of the span that begins here
        self._before = list(range(-1, n - 1))  # where the span before begins
        self._alive = [True] * n
        self._word = [-1] * n
        for number, (a, b) in enumerate(runs_in_words(ids, vocabulary, within)):
            for at in range(a, min(b, n - limits.keep_last)):
                self._word[at] = number
        self.pairs = [pair for at in range(n - 1) if (pair := self._pair(at)) is not None]

    def _pair(self, left: int) -> tuple[float, _Places] | None:
        """Return how alike a span and the next are, and the three places that say which."""
        right = self._end[left]
        if right >= len(self._end) or self._word[left] < 0 or self._word[left] != self._word[right]:
            return None
        end = self._end[right]
        if end - left > self._longest:
            return None
        one, two = self._sums[left], self._sums[right]
        norms = float(np.sqrt((one @ one) * (two @ two)))
        return (float(one @ two) / norms if norms else 0.0), (left, right, end)

    def merge(self, left: int, right: int, end: int) -> list[tuple[float, _Places]] | None:
        """Merge two spans; return the pairs that arise, or None where the two are no more."""
        if not (self._alive[left] and self._alive[right]):
            return None
        if self._end[left] != right or self._end[right] != end:
            return None
        self._sums[left] += self._sums[right]
        self._alive[right], self._end[left] = False, end
        if end < len(self._before):
            self._before[end] = left
        ahead = self._before[left]
        pairs = [self._pair(left), self._pair(ahead) if ahead >= 0 else None]
        return [pair for pair in pairs if pair is not None]

    def spans(self) -> list[Span]:
        """Return the spans of more than one token."""
        return [(at, end) for at, end in enumerate(self._end) if self._alive[at] and end - at > 1]


def _places(
    sequences: Sequence[Sequence[int]], vocabulary: Vocabulary, limits: Limits, within: str
) -> list[tuple[int, int, Pieces]]:
    """Return the runs of tokens in words: sequence, index of the first token, ids."""
    places: list[tuple[int, int, Pieces]] = []
    for i, ids in enumerate(sequences):
        last = len(ids) - limits.keep_last
        for a, b in runs_in_words(ids, vocabulary, within):
            if min(b, last) - a > 1:
                places.append((i, a, tuple(ids[a : min(b, last)])))
    return places


def vectors_of_rows(
    sequences: Sequence[Sequence[int]], rows: Float32, mean: Float32
) -> list[Float32]:
    """Return the row of each token less the mean row, by which all rows are somewhat alike.

    Parameters
    ----------
    sequences : sequence of sequences of int
    rows : float32 (n_rows, width)
    mean : float32 (width,)
    """
    return [rows[np.asarray(ids, dtype=np.int64)] - mean for ids in sequences]
