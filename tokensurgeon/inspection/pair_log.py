"""How often each pair of tokens occurs in samples of text while a merge list is applied to them.

The merges of a BPE tokenizer are applied in order to the distinct words of each sample. The changes
of each step are logged: adding them up gives the counts at any step.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import regex

from tokensurgeon.arrays import Float64, Ids
from tokensurgeon.errors import TokenizerError
from tokensurgeon.trainers.edits.base import spelled_merges
from tokensurgeon.vocabulary import Vocabulary
from tokensurgeon.vocabulary.parts import SPACE_MARK, Parts, pre_tokens, read_parts

Step = tuple[tuple[int, int, int], ...]
"""The pairs that make one token: ``(left, right, made)``."""

_ID_BITS = 32
"""Bits of an id in a pair packed into one integer: more than any vocabulary needs."""
_REPORT_EVERY = 200
"""Steps between two reports of progress: often enough to be seen, too seldom to take time."""


@dataclass(frozen=True)
class PairLog:
    """Counts of pairs at the start, and the changes of each step.

    Attributes
    ----------
    start : float64 (n_pairs, n_samples)
        How often each pair occurs in each sample before any merge: whole numbers.
    chosen : sequence of int64 (n,)
        Indices of the pairs that each step merges.
    changed, change : sequences of int64 (n,) and float64 (n, n_samples)
        Indices of the pairs whose counts a step changes, and by how much.
    sizes : float64 (n_samples,)
        Bytes of each sample.
    spelled : sequence of (str, str)
        Each pair's two tokens.
    """

    start: Float64
    chosen: Sequence[Ids]
    changed: Sequence[Ids]
    change: Sequence[Float64]
    sizes: Float64
    spelled: Sequence[tuple[str, str]]


def merge_steps(vocabulary: Vocabulary, limit: int) -> tuple[list[Step], dict[str, int]]:
    """Return the first merges of a BPE tokenizer as steps, and the id of every spelling.

    A merge list that was reconstructed from a vocabulary has all pairs that make a token one after
    another (``▁t h``, ``▁ th``): these are one step.

    Raises
    ------
    TokenizerError
        If the tokenizer has no merges.
    """
    document = json.loads(vocabulary.tokenizer.to_str())
    model = document["model"]
    if model.get("type") != "BPE" or not model.get("merges"):
        raise TokenizerError(
            f"the mixture is read off a merge list, and a {model.get('type')} tokenizer has "
            "none; give a BPE tokenizer"
        )
    ids: dict[str, int] = dict(model["vocab"])
    steps: list[Step] = []
    for left, right in spelled_merges(document):
        made = ids.get(left + right)
        if made is None or left not in ids or right not in ids:
            continue  # a merge with a prefix such as "##" inside words is left out
        merge = (ids[left], ids[right], made)
        if steps and steps[-1][0][2] == made:
            steps[-1] = (*steps[-1], merge)
        elif len(steps) == limit:
            break
        else:
            steps.append((merge,))
    return steps, ids


def count_words(vocabulary: Vocabulary, texts: Iterable[str]) -> Counter[str]:
    """Count the pieces into which the tokenizer's pre-tokenizer cuts texts: merges are inside them.

    SentencePiece trains on text cut at spaces, and between letters, digits and signs, though its
    tokenizers do not cut. For these the texts are cut in the same way.
    """
    parts = read_parts(vocabulary.tokenizer)
    cut = _sentencepiece_cut(vocabulary, parts)
    counts: Counter[str] = Counter()
    for text in texts:
        pieces = pre_tokens(vocabulary.tokenizer, text)
        if cut is not None:
            pieces = [word for piece in pieces for word in cut.findall(piece)]
        counts.update(pieces)
    return counts


def _sentencepiece_cut(vocabulary: Vocabulary, parts: Parts) -> regex.Pattern[str] | None:
    if not parts.marks_spaces or parts.byte_level:
        return None
    digits = r"\p{N}" if vocabulary.number_scheme == "single" else r"\p{N}+"
    mark = SPACE_MARK
    return regex.compile(
        rf"{mark}?(?:\p{{L}}[\p{{L}}\p{{M}}]*|{digits}|[^\p{{L}}\p{{N}}{mark}\n]+)|{mark}|\n"
    )


def log_pairs(
    words: Sequence[Mapping[str, int]],
    sizes: Sequence[int],
    steps: Sequence[Step],
    ids: Mapping[str, int],
    progress: Callable[[int, int], None] | None = None,
) -> PairLog:
    """Apply steps to the distinct words of samples, and log the counts of pairs.

    Parameters
    ----------
    words : sequence of mapping of str to int
        Counts of the words of each sample.
    sizes : sequence of int
        Bytes of each sample.
    steps, ids
        As `merge_steps` returns them. Pairs of characters without an id are counted too: otherwise
        a sample that the tokenizer cannot write would give no constraints.
    progress : callable(done, total) or None
    """
    distinct = sorted(set().union(*words))
    weights = np.array([[sample.get(word, 0) for sample in words] for word in distinct], float)
    weights = weights.reshape(len(distinct), len(words))
    id_of = dict(ids)
    others = sorted(set().union(*distinct) - id_of.keys())
    id_of.update({character: i for i, character in enumerate(others, max(ids.values()) + 1)})
    state = _Words([[id_of[c] for c in word] for word in distinct], weights)
    start = state.flush()
    chosen, changed, change = [], [], []
    for number, step in enumerate(steps):
        chosen.append(np.array([state.index_of(left, right) for left, right, _ in step], np.int64))
        for left, right, made in step:
            state.merge(left, right, made)
        pairs, deltas = state.flush()
        changed.append(pairs)
        change.append(deltas)
        if progress is not None and number % _REPORT_EVERY == 0:
            progress(number, len(steps))
    counts = np.zeros((len(state.index), len(words)))
    counts[start[0]] = start[1]
    names = {number: spelling for spelling, number in id_of.items()}
    mask = (1 << _ID_BITS) - 1
    spelled = [(names[key >> _ID_BITS], names[key & mask]) for key in state.index]
    return PairLog(counts, chosen, changed, change, np.asarray(sizes, float), spelled)


class _Words:
    """Words as lists of ids, the words that contain each pair, and the changes since `flush`."""

    def __init__(self, words: list[list[int]], weights: Float64) -> None:
        self.words = words
        self.weights = weights
        self.index: dict[int, int] = {}
        self._where: dict[int, set[int]] = {}
        self._pairs: list[int] = []
        self._at: list[int] = []
        self._signs: list[int] = []
        for number, word in enumerate(words):
            self._note(word, number, 1)

    def index_of(self, left: int, right: int) -> int:
        """Return the index of a pair."""
        return self.index.setdefault((left << _ID_BITS) | right, len(self.index))

    def merge(self, left: int, right: int, made: int) -> None:
        """Merge a pair in every word, from the left."""
        for number in self._where.pop((left << _ID_BITS) | right, ()):
            word = self.words[number]
            merged = _merged(word, left, right, made)
            if len(merged) != len(word):
                self._note(word, number, -1)
                self._note(merged, number, 1)
                self.words[number] = merged

    def flush(self) -> tuple[Ids, Float64]:
        """Return the pairs whose counts have changed since the last call, and by how much."""
        pairs, where = np.unique(np.array(self._pairs, np.int64), return_inverse=True)
        deltas = np.zeros((len(pairs), self.weights.shape[1]))
        signed = np.array(self._signs, float)[:, None] * self.weights[np.array(self._at, np.int64)]
        np.add.at(deltas, where, signed)
        self._pairs, self._at, self._signs = [], [], []
        nonzero = np.abs(deltas).max(axis=1, initial=0.0) > 0
        return pairs[nonzero], deltas[nonzero]

    def _note(self, word: list[int], number: int, sign: int) -> None:
        for left, right in pairwise(word):
            key = (left << _ID_BITS) | right
            self._pairs.append(self.index.setdefault(key, len(self.index)))
            self._at.append(number)
            self._signs.append(sign)
            if sign > 0:
                self._where.setdefault(key, set()).add(number)


def _merged(word: list[int], left: int, right: int, made: int) -> list[int]:
    merged: list[int] = []
    at = 0
    while at < len(word):
        fits = word[at] == left and at + 1 < len(word) and word[at + 1] == right
        merged.append(made if fits else word[at])
        at += 2 if fits else 1
    return merged
