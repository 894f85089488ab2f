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
_OTHER = r"[^\s\p{L}\p{N}]"
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
    if name == "none":
        return None if digits == "any" else rf"{_NUMBERS[digits]}|\P{{N}}+"
    return "|".join(_alternatives(name, digits).values())


def joined_pattern(name: str, digits: str) -> str:
    """Return a pattern whose pieces are runs of the preset's, up to a number or a line's end.

    It only joins: wherever it cuts, the preset's own pattern cuts too. So digits are grouped as
    they were, and a token that crosses a cut of the preset is one of several whole pieces.

    Raises
    ------
    UnknownNameError
        If either is unknown, or the preset has no pieces to join.
    """
    check_choice("pre-tokenizer with words", name, PRETOKENIZERS[:-1])
    check_choice("digit scheme", digits, DIGITS)
    parts = _alternatives(name, digits)
    # What stays apart, tried before the pieces that may be joined: numbers, and signs with the
    # line's end that belongs to their piece.
    apart = parts["digits"]
    if "newline" in parts:
        apart += rf"| ?{_OTHER}++[\r\n]"
    inner = {"punctuation": rf" ?{_OTHER}++", "blank": rf"(?!\s*[\r\n])(?:{_BLANKS})"}
    names = [kind for kind in parts if kind not in ("digits", "newline")]
    run = "|".join(inner.get(kind, parts[kind]) for kind in names)
    return rf"(?:(?!{apart})(?:{run}))++|{'|'.join(parts.values())}"


def _alternatives(name: str, digits: str) -> dict[str, str]:
    """Return what a pattern tries in turn, by what it matches."""
    numbers = _NUMBERS[digits]
    if name == "gpt2":
        return {
            "contraction": _CONTRACTIONS,
            "word": r" ?\p{L}+",
            "digits": rf" ?{numbers}" if digits == "any" else numbers,
            "punctuation": rf" ?{_OTHER}+",
            "blank": _BLANKS,
        }
    if name == "cl100k":
        words = {"contraction": rf"(?i:{_CONTRACTIONS})", "word": rf"{_BEFORE}\p{{L}}+"}
        end = r"[\r\n]*"
    else:
        after = rf"(?i:{_CONTRACTIONS})?"
        words = {
            "word": rf"{_BEFORE}[{_UPPER}]*[{_LOWER}]+{after}",
            "capitals": rf"{_BEFORE}[{_UPPER}]+[{_LOWER}]*{after}",
        }
        end = r"[\r\n/]*"
    return {
        **words,
        "digits": numbers,
        "punctuation": rf" ?{_OTHER}+{end}",
        "newline": r"\s*[\r\n]+",
        "blank": _BLANKS,
    }


def pretokenizer(found: str | None) -> PreTokenizer:
    """Return the stock pre-tokenizer of a pattern: the cut, if any, then bytes as characters.

    What a pattern does not match is a piece of its own, so the pieces always cover the text.
    """
    from tokenizers import Regex, pre_tokenizers

    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
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
