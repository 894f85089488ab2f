"""Whether a vocabulary was trained on a text: hashes of lines, kept beside it.

Of all distinct lines of `LINE_CHARACTERS` or more those with the lowest hashes are kept, at most
`MOST_LINES`. A text's own lines below the highest kept hash tell which share of it was seen. So it
does not matter how either was parted into documents.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tokensurgeon.errors import CorpusError

SEEN_FILE = "seen.txt"
LINE_CHARACTERS = 40
MOST_LINES = 20_000
_ALL, _LOWEST = "all lines", "lines of lowest hash"
Hashes = npt.NDArray[np.uint64]


def line_hashes(texts: Iterable[str]) -> Hashes:
    """Return hashes of the longer lines of texts, lowest first, the first `MOST_LINES`."""
    lines = {line.strip() for text in texts for line in text.split("\n")}
    data = b"".join(
        hashlib.blake2b(line.encode("utf-8"), digest_size=8).digest()
        for line in lines
        if len(line) >= LINE_CHARACTERS
    )
    return np.unique(np.frombuffer(data, ">u8").astype(np.uint64))[:MOST_LINES]


@dataclass(frozen=True)
class Seen:
    """A sample of the lines that were seen.

    Attributes
    ----------
    hashes : uint64 array
        Sorted, distinct.
    complete : bool
        Whether these are all lines; else those with the lowest hashes.
    """

    hashes: Hashes
    complete: bool = True

    def plus(self, hashes: Hashes) -> Seen:
        """Return this with further lines."""
        together = np.union1d(self.hashes, hashes)
        complete = self.complete and len(hashes) < MOST_LINES and len(together) <= MOST_LINES
        return Seen(together[:MOST_LINES], complete)

    def share(self, texts: Iterable[str]) -> float:
        """Return the share of a text's longer lines that were seen, as the sample tells it."""
        found = line_hashes(texts)
        if not self.complete and len(self.hashes):
            found = found[found <= self.hashes[-1]]
        if not len(found):
            return 0.0
        return float(np.isin(found, self.hashes).mean())

    def to_text(self) -> str:
        """Return what is written: one line that says what it is, then hashes in hexadecimal."""
        head = _ALL if self.complete else _LOWEST
        return "\n".join([head, *(f"{each:016x}" for each in self.hashes.tolist()), ""])

    @classmethod
    def load(cls, folder: Path) -> Seen | None:
        """Return what a vocabulary's folder says, or None where it says nothing.

        Raises
        ------
        CorpusError
            If the file is not one of ours.
        """
        path = folder / SEEN_FILE
        if not path.is_file():
            return None
        try:
            return cls.of_text(path.read_text("utf-8"))
        except (ValueError, OverflowError) as error:
            raise CorpusError(f"{path} holds no hashes of lines; remove it") from error

    @classmethod
    def of_text(cls, text: str) -> Seen:
        """Return what `to_text` wrote.

        Raises
        ------
        ValueError, OverflowError
            If it did not.
        """
        head, *lines = text.split("\n")
        return cls(np.array([int(line, 16) for line in lines if line], np.uint64), head == _ALL)


NOTHING = Seen(np.zeros(0, np.uint64))
