"""Figures of a vocabulary on texts equal what a naive count gives, whatever the ids are."""

from __future__ import annotations

from collections import Counter

import pytest
from tokenizers import Tokenizer

from tests.world import byte_level_bpe, permuted
from tokensurgeon.errors import CorpusError
from tokensurgeon.trainers.measures.figures import measure_vocabulary, parity
from tokensurgeon.trainers.measures.formulas import renyi_efficiency
from tokensurgeon.trainers.measures.sources import Source
from tokensurgeon.vocabulary import Vocabulary, vocabulary_from_tokenizer

TEXTS = (
    "The index is scanned from left to right, and every row that matches is returned.\n",
    "größer, naïve, 日本語 and 3.14159\n\nfor row in table:\n    return row\n",
    "All rights reserved by the authors of the table.\n",
)


def byte_level(size: int = 400, across_words: bool = False) -> Tokenizer:
    return byte_level_bpe(size, ["<|endoftext|>"], TEXTS * 3, across_words=across_words)


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return vocabulary_from_tokenizer(byte_level())


def test_figures_equal_a_naive_count(vocabulary: Vocabulary) -> None:
    sources = [Source("one", TEXTS[:2]), Source("two", TEXTS[2:])]
    figures = measure_vocabulary(vocabulary, sources)
    total = figures.total
    assert total is not None
    ids = [i for text in TEXTS for i in vocabulary.encode(text)]
    counts = Counter(ids)
    assert total.tokens == len(ids)
    assert total.bytes == sum(len(text.encode()) for text in TEXTS)
    assert total.bytes_per_token == total.bytes / len(ids)
    assert total.words == sum(len(text.split()) for text in TEXTS)
    assert total.lines == 5
    assert total.lossy == 0
    assert total.used == len(counts)
    assert figures.size == vocabulary.n_rows
    assert figures.unused == vocabulary.n_rows - 1 - len(counts)
    for alpha, found in total.renyi.items():
        by_hand = renyi_efficiency(list(counts.values()), float(alpha), vocabulary.n_rows)
        assert found == pytest.approx(by_hand)
    longest = max((data for data in vocabulary.token_bytes if data), key=len)
    assert len(figures.longest) == len(longest)
    for name in ("tokens", "bytes", "words", "lines", "documents", "lossy", "multi_word"):
        assert sum(getattr(one, name) for one in figures.sources) == getattr(total, name)


def test_a_permutation_of_the_ids_changes_nothing() -> None:
    found = []
    for tokenizer in (byte_level(), permuted(byte_level(), 3)):
        figures = measure_vocabulary(
            vocabulary_from_tokenizer(tokenizer), [Source("all", TEXTS), Source("one", TEXTS[:1])]
        )
        found.append(figures.to_dict())
    for key in ("size", "kinds", "unused", "multi_word_tokens"):
        assert found[0][key] == found[1][key]
    for one, other in zip(found[0]["sources"], found[1]["sources"], strict=True):
        assert one["tokens"] == other["tokens"]
        assert one["renyi"] == pytest.approx(other["renyi"])
    assert found[0]["parity"]["gini"] == pytest.approx(found[1]["parity"]["gini"])


def test_tokens_of_several_words_are_counted_where_nothing_is_cut() -> None:
    figures = measure_vocabulary(vocabulary_from_tokenizer(byte_level(420, across_words=True)))
    assert figures.multi_word > 10
    assert measure_vocabulary(vocabulary_from_tokenizer(byte_level())).multi_word == 0


def test_without_text_only_the_vocabulary_is_measured(vocabulary: Vocabulary) -> None:
    figures = measure_vocabulary(vocabulary)
    assert (figures.total, figures.parity, figures.unused) == (None, None, None)
    assert sum(figures.kinds.values()) == vocabulary.n_rows


def test_an_empty_source_is_refused(vocabulary: Vocabulary) -> None:
    with pytest.raises(CorpusError, match="two holds no text"):
        measure_vocabulary(vocabulary, [Source("one", TEXTS), Source("two", ("",))])


@pytest.mark.parametrize(
    ("first", "second", "unit"),
    [
        (("a b c\n" * 12,), ("much longer lines here\n" * 12,), "line"),
        (("a b c\n" * 12,), ("much longer lines here\n" * 11,), "byte"),
        (("one", "two"), ("three", "four five"), "document"),
    ],
)
def test_parity_is_per_document_or_line_only_where_these_can_be_translations(
    vocabulary: Vocabulary, first: tuple[str, ...], second: tuple[str, ...], unit: str
) -> None:
    figures = measure_vocabulary(vocabulary, [Source("a", first), Source("b", second)])
    assert figures.parity is not None
    assert figures.parity.unit == unit


def test_the_same_text_twice_is_served_evenly(vocabulary: Vocabulary) -> None:
    figures = measure_vocabulary(vocabulary, [Source("a", TEXTS), Source("b", TEXTS)])
    assert figures.parity is not None
    assert figures.parity.gini == pytest.approx(0, abs=1e-12)
    assert parity(figures.sources[:1]) is None


def test_a_long_token_of_one_repeated_line_is_boilerplate_and_one_of_many_lines_is_not() -> None:
    vocabulary = vocabulary_from_tokenizer(byte_level(420, across_words=True))
    token = max((d for d in vocabulary.token_bytes if d and b"reserved" in d), key=len).decode()
    assert len(token) >= 12
    repeated = tuple(f"{i}\n{token}\nmore {i}" for i in range(9))
    found = measure_vocabulary(vocabulary, [Source("same", repeated)]).boilerplate
    assert token in [each.bytes.decode() for each in found]
    assert all(each.uses >= 9 and each.lines == 1 for each in found if each.bytes == token.encode())
    different = tuple(f"line {i} {token} and {i * i}" for i in range(9))
    found = measure_vocabulary(vocabulary, [Source("other", different)]).boilerplate
    assert token not in [each.bytes.decode() for each in found]
