r"""How text is cut before a trainer counts: presets of patterns, and schemes for digits.

A token never crosses a cut. The patterns of `gpt2`, `cl100k` and `o200k` are the published ones of
those tokenizers, except for how a run of digits is cut, which is a choice of its own:

=========  ===========================================================================
`left-3`   groups of up to three from the left: 1234567 → 123 456 7
`right-3`  groups of three from the right: 1234567 → 1 234 567. Digits after a decimal
           point are grouped from the left: 3.14159 → 3 . 141 59
`single`   each digit alone
`any`      whole runs; the trainer decides
=========  ===========================================================================

In `right-3` the first group of a run looks ahead over it once, and the following ones only look at
the character before them, so that a long run costs linear time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokensurgeon.errors import SettingError, UnknownNameError

if TYPE_CHECKING:
    from tokenizers.pre_tokenizers import PreTokenizer

PRETOKENIZERS = ("gpt2", "cl100k", "o200k", "none")
DIGITS = ("left-3", "right-3", "single", "any")

_NUMBERS = {
    "left-3": r"\p{N}{1,3}",
    "right-3": (
        r"(?<=\p{N}\.)\p{N}{1,3}"  # the first group after a decimal point
        r"|(?<=\p{N})\p{N}{1,3}"  # a later group: the first one left a multiple of three
        r"|\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))"
    ),
    "single": r"\p{N}",
    "any": r"\p{N}+",
}
_CONTRACTIONS = r"'s|'t|'re|'ve|'m|'ll|'d"
_BLANKS = r"\s+(?!\S)|\s+"
_BEFORE = r"[^\r\n\p{L}\p{N}]?"
_UPPER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}"
_LOWER = r"\p{Ll}\p{Lm}\p{Lo}\p{M}"


def pattern(name: str, digits: str) -> str | None:
    """Return the pattern of a preset with a scheme for digits; None where nothing is cut.

    Raises
    ------
    UnknownNameError
        If either is unknown.
    """
    check_choice("pre-tokenizer", name, PRETOKENIZERS)
    check_choice("digit scheme", digits, DIGITS)
    numbers = _NUMBERS[digits]
    if name == "none":
        return None if digits == "any" else rf"{numbers}|\P{{N}}+"
    if name == "gpt2":
        numbers = rf" ?{numbers}" if digits == "any" else numbers
        return rf"{_CONTRACTIONS}| ?\p{{L}}+|{numbers}| ?[^\s\p{{L}}\p{{N}}]+|{_BLANKS}"
    if name == "cl100k":
        return (
            rf"(?i:{_CONTRACTIONS})|{_BEFORE}\p{{L}}+|{numbers}"
            rf"| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|{_BLANKS}"
        )
    end = rf"(?i:{_CONTRACTIONS})?"
    return (
        rf"{_BEFORE}[{_UPPER}]*[{_LOWER}]+{end}|{_BEFORE}[{_UPPER}]+[{_LOWER}]*{end}|{numbers}"
        rf"| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|\s*[\r\n]+|{_BLANKS}"
    )


def pretokenizer(name: str, digits: str) -> PreTokenizer:
    """Return the stock pre-tokenizer: the cut, if any, then bytes as characters.

    What a pattern does not match is a piece of its own, so the pieces always cover the text.
    """
    from tokenizers import Regex, pre_tokenizers

    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    found = pattern(name, digits)
    if found is None:
        return bytes_only
    split = pre_tokenizers.Split(Regex(found), behavior="isolated")
    return pre_tokenizers.Sequence([split, bytes_only])


def check_choice(what: str, value: str, known: tuple[str, ...]) -> None:
    """Refuse a name that is not known.

    Raises
    ------
    UnknownNameError
        Listing those that are.
    """
    if value not in known:
        raise UnknownNameError(f"no {what} '{value}'; there are {', '.join(known)}")


def check_range(what: str, value: int, low: int, high: int) -> None:
    """Refuse a number out of its range.

    Raises
    ------
    SettingError
    """
    if not low <= value <= high:
        raise SettingError(f"{what} is {value:,}; take {low:,} to {high:,}")
