"""Thirteen words in a row, whatever stands around them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokensurgeon.text.overlap import N_WORDS, gram_hashes, overlapping

WORDS = st.lists(st.sampled_from(["row", "table", "index", "lock", "scan", "42", "é"]), max_size=40)


@given(WORDS, WORDS)
def test_hashes_say_what_comparing_all_runs_says(one, two):
    def runs(words):
        n = min(N_WORDS, len(words))
        return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)} if words else set()

    expected = bool(runs(one) & runs(two))
    assert (overlapping([" ".join(one)], [" ".join(two)]) == [0]) == expected


def test_case_and_punctuation_do_not_hide_an_overlap():
    words = [f"word{i}" for i in range(20)]
    text = " ".join(words)
    shouted = "Before: " + ", ".join(word.upper() for word in words[3:16]) + "! And after it."
    assert overlapping(["nothing of it", shouted], [text]) == [1]
    twelve = " ".join(words[3:15])
    assert overlapping([f"before {twelve} after and so on"], [text]) == []


@pytest.mark.parametrize("text", ["", " \n", "?!"])
def test_a_text_without_words_overlaps_with_nothing(text):
    assert gram_hashes(text).size == 0
    assert overlapping([text], [text, "a word"]) == []
    assert overlapping([], ["a word"]) == []


def test_writing_without_spaces_is_compared_in_pairs():
    sentence = "吾輩は猫である名前はまだ無いどこで生れたかとんと見当がつかぬ"
    assert overlapping([f"「{sentence}」と言った。"], [sentence]) == [0]
    assert overlapping(["吾輩は猫である。"], [sentence]) == []
