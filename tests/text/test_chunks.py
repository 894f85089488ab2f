"""Chunks come from the text alone, fit, and lose nothing but the blanks at which it was cut."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokensurgeon.errors import EvaluationError
from tokensurgeon.text import chunk_documents

text = st.text(alphabet=st.sampled_from("ab é日😀 \n\r\t."), max_size=300)


@settings(max_examples=80, deadline=None)
@given(st.lists(text, max_size=4), st.integers(4, 64))
def test_chunks_fit_and_lose_only_blanks_where_they_are_cut(texts, limit):
    if not any(texts):
        return
    chunks = chunk_documents(texts, max_bytes_per_chunk=limit)
    assert all(0 < chunk.n_bytes <= limit for chunk in chunks)
    for number, whole in enumerate(texts):
        parts = [chunk.text for chunk in chunks if chunk.document == number]
        pattern = r"[ \t\r\n]*".join(map(re.escape, parts))
        assert re.fullmatch(pattern, whole)
        if len(whole.encode()) <= limit:
            assert parts == [whole] * bool(whole)


def test_a_cut_prefers_paragraphs_then_lines_then_spaces():
    paragraphs = "one two three.\n\n    four five\nsix"
    assert [c.text for c in chunk_documents([paragraphs], max_bytes_per_chunk=22)] == [
        "one two three.",
        "    four five\nsix",
    ]
    assert [c.text for c in chunk_documents(["aa bb cc\ndd ee"], max_bytes_per_chunk=12)] == [
        "aa bb cc",
        "dd ee",
    ]
    assert [c.text for c in chunk_documents(["aa bb cc"], max_bytes_per_chunk=6)] == ["aa bb", "cc"]


def test_a_word_longer_than_a_chunk_is_cut_between_characters():
    chunks = chunk_documents(["日" * 100], max_bytes_per_chunk=16)
    assert "".join(chunk.text for chunk in chunks) == "日" * 100
    assert {chunk.n_bytes for chunk in chunks} == {15}


def test_the_budget_takes_whole_documents_in_order():
    texts = ["a" * 40, "b" * 40, "c" * 40]
    chunks = chunk_documents(texts, max_bytes_per_chunk=32, max_bytes_total=90)
    assert {chunk.document for chunk in chunks} == {0, 1}
    assert sum(chunk.n_bytes for chunk in chunks) == 80


def test_a_first_document_beyond_the_budget_gives_its_first_chunks():
    chunks = chunk_documents(["a" * 400], max_bytes_per_chunk=32, max_bytes_total=100)
    assert [chunk.n_bytes for chunk in chunks] == [32, 32, 32]


def test_no_text_is_an_error_that_says_so():
    with pytest.raises(EvaluationError, match="2 documents give no text"):
        chunk_documents(["", ""])
