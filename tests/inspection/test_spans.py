"""Spans cover the text, whatever the tokenizer does to it."""

from __future__ import annotations

import pytest

from tests.vocabulary.tiny_tokenizers import HARD_TEXTS, SENTENCES
from tokensurgeon.errors import TokenizerError
from tokensurgeon.inspection import spans_of, visible
from tokensurgeon.inspection.spans import excerpt, quoted
from tokensurgeon.vocabulary import Vocabulary


@pytest.mark.parametrize("text", [*SENTENCES, *HARD_TEXTS])
def test_spans_cover_the_text(vocabulary: Vocabulary, text: str) -> None:
    try:
        ids = vocabulary.encode(text)
    except TokenizerError:
        pytest.skip("this tokenizer has no way to write the text")
    spans = spans_of(vocabulary, text)
    assert [span.id for span in spans] == ids
    if ids:
        assert b"".join(span.data for span in spans) == text.encode()


def test_white_space_and_broken_characters_show() -> None:
    assert visible(b" a\n\tb\r") == "·a⏎\n→b␍"
    assert visible("日".encode()[:2]) == "⟨e6⟩⟨97⟩"
    assert visible(b"\x00") == "⟨U+0000⟩"
    assert visible("größer".encode()) == "größer"


def test_an_excerpt_ends_between_words_and_is_short(vocabulary: Vocabulary) -> None:
    text = "several words in a row of a table " * 20
    found = excerpt("name", text, 100, [vocabulary])
    assert len(found.text.encode()) <= 100
    assert text.startswith(found.text)
    assert text[len(found.text)] == " "
    whole = excerpt("name", "short", 100, [vocabulary, vocabulary])
    assert whole.text == "short"
    assert whole.cuts[0] == whole.cuts[1]


def test_quoted_text_is_short_and_says_what_is_no_text() -> None:
    assert quoted(b"\xff\xfe") == "0xfffe"
    assert quoted(b"a" * 99).endswith("…'")
