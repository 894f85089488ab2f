"""Laws of scripts: whatever part of a text of theirs is taken, its bytes are theirs."""

from __future__ import annotations

import pytest
from tokenizers import Regex

from tokensurgeon.errors import UnknownNameError
from tokensurgeon.vocabulary.scripts import (
    ANY_SCRIPT,
    LANGUAGES,
    SCRIPTS,
    Writable,
    scripts_named,
    scripts_of_language,
)

TEXTS = {
    "Latin": "größer — naïve, 3.14 € 🎉 e\u0301\n",
    "Cyrillic": "война и мир, 1869 «Ї»\t",
    "Devanagari": "हिन्दी में १२३।",
    "Han": "日本 中文、。",
    "Hangul": "한국어 1",
}


@pytest.mark.parametrize("script", TEXTS)
def test_every_part_of_a_text_of_a_script_can_be_written_in_it(script: str) -> None:
    data, writable = TEXTS[script].encode(), Writable.of([script])
    assert all(
        writable.has(data[start:end])
        for start in range(len(data))
        for end in range(start, len(data) + 1)
    )


@pytest.mark.parametrize("script", TEXTS)
def test_text_of_another_script_cannot(script: str) -> None:
    writable = Writable.of([script])
    letters = {"Latin": "a", "Cyrillic": "ж", "Devanagari": "ह", "Han": "中", "Hangul": "한"}
    for other, letter in letters.items():
        assert writable.has(f"1 {letter}".encode()) == (other == script)


def test_bytes_that_are_no_text_are_of_no_script() -> None:
    writable = Writable.of(["Latin", "Greek"])
    assert not any(writable.has(data) for data in (b"\xff", b"a\xff", b"\xc0\x80", b"\x80" * 4))
    assert writable.has(b"")


def test_every_script_is_one_of_unicode_and_every_language_is_written_in_one() -> None:
    for script in (*SCRIPTS, *ANY_SCRIPT):
        Regex(rf"\p{{{script}}}")  # an unknown property is an error
    assert all(set(scripts) <= set(SCRIPTS) for scripts in LANGUAGES.values())
    assert scripts_of_language("JA") == ("Han", "Hiragana", "Katakana")
    assert scripts_named(["latin", "old-italic", "Latin"]) == ("Latin", "Old_Italic")
    with pytest.raises(UnknownNameError, match="did you mean 'Greek'"):
        scripts_named(["Greeck"])
    with pytest.raises(UnknownNameError, match="no language 'klingon'"):
        scripts_of_language("klingon")
