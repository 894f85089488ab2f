r"""How text is cut before a trainer counts: presets of patterns, and schemes for digits.

A token never crosses a cut. The patterns of `gpt2`, `cl100k` (which `llama3` has too) and `o200k`
are the published ones of those tokenizers, except for runs of digits, which are cut by a separate
scheme. `code` cuts identifiers at capitals and underscores, and keeps a line end together with the
indentation after it.

=========  ===========================================================================
`left-3`   groups of up to three from the left: 1234567 → 123 456 7
`right-3`  groups of three from the right: 1234567 → 1 234 567. Digits after a decimal
           point are grouped from the left: 3.14159 → 3 . 141 59; the parts of a version or
           an address are whole numbers: 1.2.10234 → 1 . 2 . 10 234
`single`   each digit alone
`any`      whole runs; the trainer decides
=========  ===========================================================================

In `right-3`, the first group of a run looks ahead over the run once, and each later group only
looks at the character before it, so that a long run takes linear time.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from tokensurgeon.errors import SettingError, UnknownNameError

if TYPE_CHECKING:
    from tokenizers.pre_tokenizers import PreTokenizer

PRETOKENIZERS = ("gpt2", "cl100k", "llama3", "o200k", "code", "none")
DIGITS = ("left-3", "right-3", "single", "any")
PRETOKENIZER, SCHEME = "cl100k", "left-3"
"""What text is cut by where nothing is said: as most new tokenizers do."""
BARRIERS = ("newline", "digits", "punctuation")
"""Kinds of pieces that a token of several pieces may be kept from crossing."""
NO_CROSS = ("newline", "digits")
LONGEST_RUN = 64
"""Pieces of a run that may cross lines: otherwise a segment would be a whole document."""

# After a decimal point: a dot without another dot before or after it and digits between the two, as
# in versions and addresses. A look-behind has to be of fixed length.
_DECIMAL = (
    r"(?<=\p{N}\.)"
    + "".join(rf"(?<!\.\p{{N}}{{{n}}}\.)" for n in range(1, 9))
    + r"(?!\p{N}+\.\p{N})"
)
_NUMBERS = {
    "left-3": r"\p{N}{1,3}",
    "right-3": (
        rf"{_DECIMAL}\p{{N}}{{1,3}}"  # the first group after a decimal point
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


def number_pattern(digits: str) -> str:
    """Return the pattern of the groups into which a scheme cuts digits.

    Raises
    ------
    UnknownNameError
        If there is no such scheme.
    """
    check_choice("digit scheme", digits, DIGITS)
    return _NUMBERS[digits]


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


def counted_pattern(name: str, digits: str) -> str:
    """Return the pattern for counting: that of `pattern`, but `none` is cut at lines.

    Raises
    ------
    UnknownNameError
        If either is unknown.
    """
    cut = pattern(name, digits)
    if name != "none":
        return str(cut)
    other = "\\n" if cut is None else r"\n\p{N}"
    lines = rf"[^{other}]*\n+|[^{other}]+"
    return lines if cut is None else rf"{_NUMBERS[digits]}|{lines}"


def joined_pattern(
    name: str,
    digits: str,
    *,
    no_cross: Collection[str] = NO_CROSS,
    max_pieces: int | None = None,
) -> str:
    """Return a pattern that matches runs of the preset's pieces, up to what no token may cross.

    Wherever it cuts, the preset's own pattern cuts too. So a run consists of whole pieces, and
    pieces that stay separate are cut as before.

    Parameters
    ----------
    name, digits : str
    no_cross : collection of {"newline", "digits", "punctuation"}
        Pieces of these kinds stay separate.
    max_pieces : int or None
        Most pieces of a run. If runs may cross lines, None means `LONGEST_RUN`.

    Raises
    ------
    UnknownNameError
        If a name is unknown, or the preset has no pieces to join.
    """
    check_choice("pre-tokenizer with words", name, PRETOKENIZERS[:-1])
    check_choice("digit scheme", digits, DIGITS)
    for kind in no_cross:
        check_choice("barrier", kind, BARRIERS)
    parts = _alternatives(name, digits)
    kinds = list(parts)
    # What stays separate is tried before the pieces that may be joined.
    separate = [parts["digits"]] if "digits" in no_cross else []
    inner: dict[str, str] = {}
    lines = "newline" in no_cross
    if lines:
        inner = {"punctuation": rf" ?{_OTHER}++", "blank": rf"(?!\s*[\r\n])(?:{_BLANKS})"}
        if parts["punctuation"] != rf" ?{_OTHER}+":
            # Punctuation, with the line end that belongs to its piece.
            separate.append(rf" ?{_OTHER}++[\r\n]")
    if "punctuation" in no_cross:
        separate.append(rf" ?{_OTHER}")
    barriers = {"digits", "punctuation"} & set(no_cross) | ({"newline"} if lines else set())
    run = "|".join(inner.get(kind, parts[kind]) for kind in kinds if kind not in barriers)
    most = max_pieces or (None if lines else LONGEST_RUN)
    veto = f"(?!{'|'.join(separate)})" if separate else ""
    # An atomic group: without it, both engines that run the pattern would backtrack over pieces.
    joined = rf"(?:{veto}(?:{run}))"
    joined = rf"(?>{joined}{{1,{most}}})" if most else f"{joined}++"
    return "|".join([joined, *parts.values()])


def _alternatives(name: str, digits: str) -> dict[str, str]:
    """Return the alternatives of a pattern, in the order tried, by what they match."""
    numbers = _NUMBERS[digits]
    if name == "gpt2":
        return {
            "contraction": _CONTRACTIONS,
            "word": r" ?\p{L}+",
            "digits": rf" ?{numbers}" if digits == "any" else numbers,
            "punctuation": rf" ?{_OTHER}+",
            "blank": _BLANKS,
        }
    if name == "code":
        return {
            "word": rf"{_BEFORE}_*(?:[{_UPPER}]?[{_LOWER}]+|[{_UPPER}]+(?![{_LOWER}])|[{_UPPER}])",
            "digits": numbers,
            "punctuation": rf" ?{_OTHER}+",
            "newline": r"(?:\r?\n)+[ \t]*",
            "blank": _BLANKS,
        }
    if name in ("cl100k", "llama3"):
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


def pretokenizer(cut: str | None) -> PreTokenizer:
    """Return the stock pre-tokenizer of a pattern: the cut, if any, then bytes as characters.

    What the pattern does not match is a piece of its own, so the pieces always cover the text.
    """
    from tokenizers import Regex, pre_tokenizers

    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    if cut is None:
        return bytes_only
    split = pre_tokenizers.Split(Regex(cut), behavior="isolated")
    return pre_tokenizers.Sequence([split, bytes_only])


def check_choice(what: str, value: str, known: tuple[str, ...]) -> None:
    """Refuse an unknown name.

    Raises
    ------
    UnknownNameError
        With a list of the known ones.
    """
    if value not in known:
        raise UnknownNameError(f"no {what} '{value}'; there are {', '.join(known)}")


def check_range(what: str, value: int, low: int, high: int) -> None:
    """Refuse a number out of its range.

    Raises
    ------
    SettingError
        If it is below `low` or above `high`.
    """
    if not low <= value <= high:
        raise SettingError(f"{what} is {value:,}; take {low:,} to {high:,}")
