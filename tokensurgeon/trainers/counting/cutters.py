"""How a document is cut into the segments that are counted.

A segment is what a tokenizer's pre-tokenizer would pass to its model: no token crosses its borders.
`Pieces` cuts as the tokenizer will. `Chunks` cuts finer and at random, which only limits which
tokens are learned.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from tokensurgeon.trainers.counting.cut_engines import Cut


class Cutter(Protocol):
    """A way to cut text. It is sent to worker processes, and its `repr` identifies it."""

    @property
    def once(self) -> bool:
        """Whether a segment counts once per document, instead of each time it occurs."""
        ...

    def cut(self, text: str) -> Iterable[str]:
        """Return segments that together make the text."""
        ...


@dataclass(frozen=True)
class Pieces:
    """The matches of a pattern; what lies between two matches is a piece too."""

    pattern: str
    once: bool = False

    def cut(self, text: str) -> list[str]:
        """Return segments that together make the text."""
        return pieces(_compiled(self.pattern), text)


@dataclass(frozen=True)
class Chunks:
    """Runs of 1 to `most` words, of random length, within the pieces of a longer pattern.

    The generator is seeded by the document's text, so earlier documents make no difference.
    """

    longer: str
    words: str
    most: int
    seed: int = 0
    once: bool = True

    def cut(self, text: str) -> Iterator[str]:
        """Yield segments that together make the text."""
        draw = random.Random(zlib.crc32(text.encode("utf-8"), self.seed))
        cut = _compiled(self.words)
        for run in pieces(_compiled(self.longer), text):
            words = pieces(cut, run)
            start = 0
            while start < len(words):
                end = start + draw.randint(1, self.most)
                yield "".join(words[start:end])
                start = end


def pieces(cut: Cut, text: str) -> list[str]:
    """Return the matches of a pattern; what lies between two matches is a piece too."""
    engine = cut.engine_for(text)
    found: list[str] = engine.findall(text)  # far faster than a match at a time
    if sum(map(len, found)) == len(text):
        return found
    found, end = [], 0
    for match in engine.finditer(text):
        if match.start() > end:
            found.append(text[end : match.start()])
        found.append(match[0])
        end = match.end()
    if end < len(text):
        found.append(text[end:])
    return found


@lru_cache(maxsize=64)
def _compiled(pattern: str) -> Cut:
    return Cut(pattern)
