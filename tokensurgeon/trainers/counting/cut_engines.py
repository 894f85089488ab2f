r"""Patterns with classes of characters, run by the faster of two engines that knows the text.

`regex` knows the classes of Unicode, such as ``\p{L}``. `re` does not, and cuts text more than
twice as fast. So it is given the same pattern with every class written out: the ranges of those
characters up to U+FFFF that `regex` finds in it. Text with other characters, and the first of any
text, is left to `regex`.
"""

from __future__ import annotations

import re
import sys
from functools import lru_cache

import regex

FEW = 1_000_000
"""Characters until `re` takes over: to write the classes out and compile them takes as long."""
PLANE = 1 << 16
"""Characters whose classes are written out: `re` has a bitmap of these, and searches for others."""
_BEYOND = re.compile("[\U00010000-\U0010ffff]")
_PART = re.compile(r"(\[(?:\\.|[^\\\]])+\]|\\[pP]\{\w+\}|\\[sSdDwW])|\\.|.", re.DOTALL)
"""A class, or one other character of a pattern."""
ATOMIC = (3, 11, 5)
"""Python whose `re` matches possessive quantifiers of groups rightly; earlier ones do not."""


class Cut:
    """A pattern without groups that capture.

    Parameters
    ----------
    pattern : str
        As `regex` reads it.
    """

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._regex = regex.compile(pattern)
        self._re: re.Pattern[str] | None = None
        self._left = FEW if sys.version_info >= ATOMIC else sys.maxsize

    def engine_for(self, text: str) -> re.Pattern[str] | regex.Pattern[str]:
        """Return the compiled pattern that is to cut a text; which one it is changes no match."""
        if self._left >= 0:
            self._left -= len(text)
        if self._left >= 0:
            return self._regex
        if self._re is None:
            self._re = re.compile(spelled_out(self._pattern))
        if text.isascii() or not _BEYOND.search(text):
            return self._re
        return self._regex


def spelled_out(pattern: str) -> str:
    r"""Return a pattern with every class as ranges of the characters up to U+FFFF in it.

    Examples
    --------
    >>> spelled_out(r"a[\r\n]+|\x20")
    'a[\\U0000000a\\U0000000d]+|\\x20'
    """
    return "".join(_ranges(part[1]) if part[1] else part[0] for part in _PART.finditer(pattern))


@lru_cache(maxsize=64)
def _ranges(characters: str) -> str:
    """Return a class as ranges."""
    found = ""
    for match in regex.finditer(f"{characters}+", _plane()):
        first, last = match.start(), match.end() - 1
        found += f"\\U{first:08x}" + (f"-\\U{last:08x}" if last > first else "")
    return f"[{found}]"


@lru_cache(maxsize=1)
def _plane() -> str:
    return "".join(map(chr, range(PLANE)))
