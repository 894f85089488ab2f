"""The writing system of a text, read from the Unicode names of its letters."""

from __future__ import annotations

import unicodedata
from collections import Counter
from functools import lru_cache

_SPECIAL = {
    "Cjk": "Han",
    "Ideographic": "Han",
    "Fullwidth": "Latin",
    "Feminine": "Latin",
    "Masculine": "Latin",
    "Micro": "Greek",
    "Modifier": "Latin",
    "": "other script",
}
"""First words of names of letters that do not begin with their script."""


def script_of(text: str) -> str | None:
    """Return the script of most letters: Latin, Han, Cyrillic, …; None where there is no letter.

    Examples
    --------
    >>> script_of("the и"), script_of(" 日本"), script_of("12.")
    ('Latin', 'Han', None)
    """
    counts = Counter(_script_of(c) for c in text if unicodedata.category(c)[0] == "L")
    return max(sorted(counts), key=lambda name: counts[name], default=None)


@lru_cache(maxsize=4096)
def _script_of(character: str) -> str:
    name = unicodedata.name(character, "")
    first = name.split("-")[0].split(" ")[0].capitalize()
    return _SPECIAL.get(first, first)
