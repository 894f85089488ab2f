"""Control strings in a text end a document: they are left out and counted; all else stays."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokensurgeon.errors import UnknownNameError
from tokensurgeon.text.borders import KNOWN, Borders, borders_of
from tokensurgeon.text.corpus import Document
from tokensurgeon.vocabulary.kinds import looks_like_marker


def cut(text: str, *strings: str) -> tuple[list[str], dict[str, int]]:
    borders = Borders(strings)
    return [part.text for part in borders.split(Document(text, "a", "a"))], borders.facts()


def test_a_control_ends_a_document_and_is_counted() -> None:
    text = "one<|end|>\n<|end|>two </s><|end|>three"
    assert cut(text, "<|end|>", "</s>") == (["one", "two ", "three"], {"<|end|>": 3, "</s>": 1})
    assert cut(text) == ([text], {})
    assert cut("<|end|>", "<|end|>") == ([], {"<|end|>": 1})
    assert cut(" \n", "<|end|>") == ([" \n"], {})


def test_of_two_that_begin_alike_the_longer_one_counts() -> None:
    assert cut("a<s>>b<s>c", "<s>", "<s>>") == (["a", "b", "c"], {"<s>": 1, "<s>>": 1})
    # What a pattern would read otherwise is a string like any other.
    assert cut("a[.*]b.*c", "[.*]") == (["a", "b.*c"], {"[.*]": 1})


@settings(max_examples=40)
@given(st.lists(st.text("ab<>| ", max_size=6), max_size=8), st.sampled_from(["<|>", "<<", "a|"]))
def test_the_parts_are_the_text_without_the_borders(parts: list[str], border: str) -> None:
    text = border.join(parts)
    documents, counts = cut(text, border)
    assert not any(border in part for part in documents)
    assert "".join(documents).replace(" ", "") == text.replace(border, "").replace(" ", "")
    assert counts.get(border, 0) == text.count(border)


def test_the_well_known_ones_are_spelled_as_text_never_is() -> None:
    assert all(looks_like_marker(string) and string.isprintable() for string in KNOWN)
    assert not {"<s>", "</s>", "<b>", "<unk>", "[INST]", "<|>"} & set(KNOWN)
    assert {"<s>", *KNOWN} == set(borders_of(["<s>"]).strings)
    assert borders_of(["<s>"], "own").strings == ("<s>",)
    with pytest.raises(UnknownNameError, match="no borders 'none'; there are known, own"):
        borders_of([], "none")
