"""Laws of merging: it can be undone, crosses no word, and knows no order of the batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from tests.vocabulary.tiny_tokenizers import TINY, made
from tests.world import SENTENCES
from tokensurgeon.errors import SettingError, UnknownNameError
from tokensurgeon.runtime.merging.merged_batch import MergedBatch
from tokensurgeon.runtime.merging.policies import (
    Limits,
    merge_frequent,
    merge_identifiers,
    merge_similar,
    vectors_of_rows,
)
from tokensurgeon.runtime.merging.word_runs import PATTERNS, runs_in_words
from tokensurgeon.vocabulary import Vocabulary, load_vocabulary

N_OWN = 1000
TEXTS = [
    *SENTENCES,
    "unhappiness and unhappiness, the happiest",
    "größer größere Übungen इसके साथ हिन्दी भाषा",
    "total_count = total_count + item.total_count * 2048",
]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, world: Path) -> Vocabulary:
    return load_vocabulary(world / "source")


def similar(sequences: list[list[int]], vocabulary: Vocabulary, limits: Limits) -> MergedBatch:
    rows = np.random.default_rng(3).normal(size=(N_OWN, 8)).astype(np.float32)
    vectors = vectors_of_rows(sequences, rows, rows.mean(axis=0))
    return merge_similar(sequences, vocabulary, N_OWN, limits, vectors, least_cosine=-1.0)


def frequent(sequences: list[list[int]], vocabulary: Vocabulary, limits: Limits) -> MergedBatch:
    return merge_frequent(sequences, vocabulary, N_OWN, limits)


def identifiers(sequences: list[list[int]], vocabulary: Vocabulary, limits: Limits) -> MergedBatch:
    return merge_identifiers(sequences, vocabulary, N_OWN, limits)


POLICIES: dict[str, Callable[..., MergedBatch]] = {
    "words": frequent,
    "identifiers": identifiers,
    "lines": similar,
}
"""By what each stays inside."""


def encoded(vocabulary: Vocabulary) -> list[list[int]]:
    return [encoding.ids for encoding in vocabulary.encode_many(TEXTS)]


@pytest.mark.parametrize("within", POLICIES)
@pytest.mark.parametrize("name", sorted(TINY))
def test_unmerging_gives_the_ids_back(name: str, within: str) -> None:
    vocabulary = made(name)
    sequences = encoded(vocabulary)
    batch = POLICIES[within](sequences, vocabulary, Limits(least_count=1))
    assert batch.unmerged() == sequences
    assert batch.n_before == sum(map(len, sequences)) >= batch.n_after
    assert len(set(batch.merged)) == len(batch.merged)


@pytest.mark.parametrize("within", POLICIES)
def test_a_permuted_batch_gives_the_same_merges(small: Vocabulary, within: str) -> None:
    sequences = encoded(small)
    order = np.random.default_rng(1).permutation(len(sequences)).tolist()
    for limits in (Limits(), Limits(merges=7), Limits(saving=0.1, least_count=1)):
        one = POLICIES[within](sequences, small, limits)
        two = POLICIES[within]([sequences[i] for i in order], small, limits)
        assert one.merged == two.merged
        for i, row in zip(order, two.sequences, strict=True):
            assert row.tolist() == one.sequences[i].tolist()


@pytest.mark.parametrize("within", POLICIES)
@pytest.mark.parametrize("name", sorted(TINY))
def test_borders_are_never_crossed(name: str, within: str) -> None:
    """Each merged token lies within one match of the pattern in the bytes of its sequence."""
    vocabulary = made(name)
    sequences = encoded(vocabulary)
    batch = POLICIES[within](sequences, vocabulary, Limits(least_count=1))
    for sequence in batch.sequences:
        spelled = [vocabulary.bytes_of(batch.pieces_of(token)) for token in sequence.tolist()]
        text = b"".join(spelled).decode("utf-8", "surrogateescape")
        words = regex.findall(PATTERNS[within], text)
        assert "".join(words) == text
        borders = np.cumsum([len(word.encode("utf-8", "surrogateescape")) for word in words])
        end = 0
        for token, data in zip(sequence.tolist(), spelled, strict=True):
            start, end = end, end + len(data)
            if token >= N_OWN:
                assert not ((borders > start) & (borders < end)).any()


def test_limits_are_kept(small: Vocabulary) -> None:
    sequences = encoded(small)
    whole = frequent(sequences, small, Limits(least_count=1))
    assert frequent(sequences, small, Limits(merges=0)).merged == ()
    assert frequent(sequences, small, Limits(merges=3)).n_merges == 3
    saved = frequent(sequences, small, Limits(saving=0.1, least_count=1))
    assert 0.1 <= saved.saving < 0.12 < whole.saving
    assert max(len(p) for p in frequent(sequences, small, Limits(longest=3)).merged) <= 3
    for keep in (1, 4, 100):
        kept = frequent(sequences, small, Limits(least_count=1, keep_last=keep))
        for own, row in zip(sequences, kept.sequences, strict=True):
            last = own[-keep:]
            assert row[len(row) - len(last) :].tolist() == last


def test_every_word_becomes_one_token_in_the_end(small: Vocabulary) -> None:
    sequences = encoded(small)
    batch = frequent(sequences, small, Limits(least_count=1, longest=100))
    for own, row in zip(sequences, batch.sequences, strict=True):
        runs = runs_in_words(own, small)
        assert len(row) == len(own) - sum(b - a - 1 for a, b in runs)


def by_rescans(words: list[list[int]], n: int) -> list[list[tuple[int, ...]]]:
    """Merge by counting all pairs anew each time: the plain definition."""
    rows: list[list[tuple[int, ...]]] = [[(i,) for i in word] for word in words]
    made: dict[tuple[int, ...], int] = {}

    def rank(part: tuple[int, ...]) -> tuple[int, int]:
        return (0, part[0]) if len(part) == 1 else (1, made[part])

    for _ in range(n):
        pairs = Counter(pair for row in rows for pair in disjoint(row))
        if not pairs:
            break
        left, right = min(pairs, key=lambda p: (-pairs[p], rank(p[0]), rank(p[1])))
        if pairs[left, right] < 2:
            break
        made.setdefault(left + right, len(made))
        for row in rows:
            at = 0
            while at < len(row) - 1:
                if (row[at], row[at + 1]) == (left, right):
                    row[at : at + 2] = [left + right]
                at += 1
    return rows


def disjoint(row: list[tuple[int, ...]]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    return list(pairwise(row))


@given(st.lists(st.text("abcd", min_size=1, max_size=9), min_size=1, max_size=12))
def test_local_updates_give_what_rescans_give(words: list[str]) -> None:
    """On letters as tokens, every word a sequence."""
    vocabulary = made("characters")
    sequences = [vocabulary.encode(word) for word in words]
    batch = frequent(sequences, vocabulary, Limits(merges=4, longest=100))
    slow = by_rescans(sequences, 4)
    assert [[batch.pieces_of(t) for t in row.tolist()] for row in batch.sequences] == slow


def test_an_identifier_becomes_one_token(small: Vocabulary) -> None:
    sequences = [small.encode("total_count = total_count + other")]
    batch = identifiers(sequences, small, Limits(least_count=1))
    spelled = [small.bytes_of(batch.pieces_of(t)) for t in batch.sequences[0].tolist()]
    assert [part.strip() for part in spelled if part.strip()] == [
        b"total_count", b"=", b"total_count", b"+", b"other",
    ]  # fmt: skip


def test_what_is_alike_is_merged_first(small: Vocabulary) -> None:
    ids = small.encode("the calendar says days")
    vectors = np.eye(len(ids), dtype=np.float32)
    vectors[3] = vectors[2] + 0.1
    batch = merge_similar([ids], small, N_OWN, Limits(merges=1), [vectors])
    assert batch.merged == ((ids[2], ids[3]),)
    nothing = merge_similar([ids], small, N_OWN, Limits(), [np.eye(len(ids), dtype=np.float32)],
                            least_cosine=0.5)  # fmt: skip
    assert nothing.merged == ()


def test_digits_and_controls_are_not_merged(small: Vocabulary) -> None:
    ids = [0, *small.encode("20482048 20482048"), 1, 1]
    assert runs_in_words(ids, small) == []
    assert runs_in_words([], small) == []
    word = small.encode("calendar")
    assert runs_in_words([*word, 0, *word], small) == [
        (0, len(word)), (len(word) + 1, 2 * len(word) + 1),
    ]  # fmt: skip


def test_bad_limits_are_refused(small: Vocabulary) -> None:
    for bad in ({"saving": 1.0}, {"merges": -1}, {"least_count": 0}, {"longest": 1},
                {"keep_last": -1}):  # fmt: skip
        with pytest.raises(SettingError, match=next(iter(bad))):
            Limits(**bad)
    with pytest.raises(UnknownNameError, match="no borders 'texts'"):
        runs_in_words([1], small, "texts")
    with pytest.raises(SettingError, match="2 vectors were given for 3 tokens"):
        merge_similar([[5, 6, 7]], small, N_OWN, Limits(), [np.zeros((2, 4), np.float32)])
