"""Laws of the two engines that cut text: whichever runs a pattern, the pieces are the same."""

from __future__ import annotations

import random
import re
import sys
from itertools import combinations

import pytest
import regex

from tokensurgeon.trainers.counting import cut_engines
from tokensurgeon.trainers.counting.cut_engines import Cut, spelled_out
from tokensurgeon.trainers.counting.cutters import pieces
from tokensurgeon.trainers.counting.pretokenizers import (
    BARRIERS,
    DIGITS,
    NO_CROSS,
    PRETOKENIZERS,
    counted_pattern,
    joined_pattern,
)

PLANE = "".join(map(chr, range(1 << 16)))
"""Also halves of surrogates, which no document holds."""
HARD = " \n\r\t.,'’sStTlLdDvVeErRkKaAzZ127.½²_-/\x1cſßİıǅä́中٣\x85\u2028\u3000\0\ufffd"
ALL = [
    *(counted_pattern(name, digits) for name in PRETOKENIZERS for digits in DIGITS),
    *(joined_pattern(name, "any") for name in PRETOKENIZERS[:-1]),
    *(
        joined_pattern("cl100k", "right-3", no_cross=barriers, max_pieces=most)
        for n in range(len(BARRIERS) + 1)
        for barriers in combinations(BARRIERS, n)
        for most in (None, 3)
    ),
]


def assert_same(pattern: str, texts: list[str]) -> None:
    """Assert that both engines find the same in texts."""
    slow, fast = regex.compile(pattern), re.compile(spelled_out(pattern))
    for text in texts:
        assert fast.findall(text) == slow.findall(text)


@pytest.mark.skipif(sys.version_info < cut_engines.ATOMIC, reason="this re is not taken")
def test_both_engines_find_the_same_in_hard_text() -> None:
    draw = random.Random(0)
    hard = ["".join(draw.choices(letters, k=4_000)) for letters in (HARD, HARD[:30])]
    for pattern in dict.fromkeys(ALL):
        assert_same(pattern, hard)


@pytest.mark.skipif(sys.version_info < cut_engines.ATOMIC, reason="this re is not taken")
@pytest.mark.parametrize("name", PRETOKENIZERS)
def test_both_engines_know_every_character(name: str) -> None:
    contexts = [PLANE, " ".join(PLANE), "a'".join(PLANE[:0x3000])]
    assert_same(counted_pattern(name, "left-3"), contexts)
    if name != "none":
        assert_same(joined_pattern(name, "left-3", no_cross=NO_CROSS), contexts)


def test_text_beyond_the_plane_and_the_first_of_any_text_is_left_to_regex(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cut_engines, "FEW", 8)
    cut = Cut(counted_pattern("cl100k", "left-3"))
    assert cut.engine_for("first.") is not (second := cut.engine_for("second"))
    assert second is cut.engine_for("größer") is not cut.engine_for("𝔞𝔟 1")
    assert pieces(cut, "𝔞𝔟 𝔠𝟙") == ["𝔞𝔟", " 𝔠", "𝟙"]
    monkeypatch.setattr(cut_engines, "ATOMIC", (99,))
    old = Cut(counted_pattern("cl100k", "left-3"))
    assert old.engine_for("first.") is old.engine_for("second")
