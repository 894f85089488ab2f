"""Where words lie in a sequence of ids: tokens are merged inside one word, and never across two.

Borders are found in the bytes that the ids spell, so one rule serves every tokenizer. A token that
lies in two words, such as `of the`, belongs to none and is never merged; neither is a control.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import regex

from tokensurgeon.errors import UnknownNameError
from tokensurgeon.vocabulary import Vocabulary

_LETTER = r"[\p{L}\p{M}]"
PATTERNS = {
    "words": (
        rf" ?{_LETTER}+(?:['’]{_LETTER}+)*|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+|\s+(?!\S)|\s+"
    ),
    "identifiers": (r" ?[\p{L}\p{M}_][\p{L}\p{M}\p{N}_]*|[^\p{L}\p{M}_]"),
    "lines": r"[^\r\n]+|[\r\n]",
}
"""What merged tokens stay inside, by name; each pattern matches every character.

`words` counts a space to the word behind it, and marks to their letters, or Hindi would be cut at
each vowel. A digit is a word of its own: most rules for rows lose the order of the pieces, and 20
is not 02. In `identifiers` a run of letters, digits and underscores is one word, in `lines` a whole
line.
"""

_COMPILED = {name: regex.compile(pattern) for name, pattern in PATTERNS.items()}


def runs_in_words(
    ids: Sequence[int], vocabulary: Vocabulary, within: str = "words"
) -> list[tuple[int, int]]:
    """Return where two or more tokens in a row lie in one word.

    Parameters
    ----------
    ids : sequence of int
        Ids without bytes, such as controls, lie in no word and part those beside them.
    vocabulary : Vocabulary
    within : {"words", "identifiers", "lines"}

    Returns
    -------
    list of (start, end)
        Indices into `ids`, the end excluded; ascending.

    Raises
    ------
    UnknownNameError
        If `within` is another word.
    """
    if within not in _COMPILED:
        raise UnknownNameError(f"no borders '{within}'; there are {', '.join(_COMPILED)}")
    table, n_known = vocabulary.token_bytes, vocabulary.n_rows
    parts = [(table[i] or b"") if 0 <= i < n_known else b"" for i in ids]
    ends = np.cumsum([len(part) for part in parts], dtype=np.int64)
    if not len(ends):
        return []
    starts = np.concatenate([[0], ends[:-1]])
    # Bytes that are no UTF-8, such as half a character at the end, become one character each.
    text = b"".join(parts).decode("utf-8", "surrogateescape")
    widths = [
        len(word.encode("utf-8", "surrogateescape")) for word in _COMPILED[within].findall(text)
    ]
    borders = np.concatenate([[0], np.cumsum(widths, dtype=np.int64)])
    first = np.searchsorted(borders, starts, "right")
    last = np.searchsorted(borders, ends, "left")
    # Words by their number from 1; tokens without bytes, or in two words, by numbers below 0.
    word = np.where((first == last) & (ends > starts), first, -np.arange(1, len(ends) + 1))
    changes = np.flatnonzero(np.diff(word)) + 1
    firsts = np.concatenate([[0], changes]).tolist()
    lasts = np.concatenate([changes, [len(word)]]).tolist()
    return [(a, b) for a, b in zip(firsts, lasts, strict=True) if b - a > 1]
