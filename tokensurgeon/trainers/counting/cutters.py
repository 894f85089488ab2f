"""How a document is cut into the segments that are counted.

A segment is what a tokenizer's pre-tokenizer would hand to its model: no token crosses a segment's
border. `Pieces` cut as the tokenizer will. `Chunks` cut finer and at random, which only bounds what
is learned.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import regex


class Cutter(Protocol):
    """A way to cut text. Frozen: it goes to worker processes, and its `repr` names it."""

    @property
    def once(self) -> bool:
        """Count a segment once per document that has it, rather than each time."""
        ...

    def cut(self, text: str) -> Iterator[str]:
        """Yield segments that together are the text."""
        ...


@dataclass(frozen=True)
class Pieces:
    """The pieces of a pattern; what it does not match is a piece too."""

    pattern: str
    once: bool = False

    def cut(self, text: str) -> Iterator[str]:
        """Yield segments that together are the text."""
        return pieces(_compiled(self.pattern), text)


@dataclass(frozen=True)
class Chunks:
    """Runs of 1 to `most` words, at random, within the pieces of a longer pattern.

    The draw is seeded by the text of the document, so it does not depend on what was read before.
    """

    longer: str
    words: str
    most: int
    seed: int = 0
    once: bool = True

    def cut(self, text: str) -> Iterator[str]:
        """Yield segments that together are the text."""
        draw = random.Random(zlib.crc32(text.encode("utf-8"), self.seed))
        cut = _compiled(self.words)
        for run in pieces(_compiled(self.longer), text):
            words = list(pieces(cut, run))
            start = 0
            while start < len(words):
                end = start + draw.randint(1, self.most)
                yield "".join(words[start:end])
                start = end


def pieces(cut: regex.Pattern[str], text: str) -> Iterator[str]:
    """Yield the pieces of a text; what the pattern does not match is a piece too."""
    end = 0
    for match in cut.finditer(text):
        if match.start() > end:
            yield text[end : match.start()]
        yield match[0]
        end = match.end()
    if end < len(text):
        yield text[end:]


@lru_cache(maxsize=64)
def _compiled(pattern: str) -> regex.Pattern[str]:
    return regex.compile(pattern)
