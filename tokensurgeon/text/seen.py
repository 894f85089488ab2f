"""Whether a vocabulary was trained on a text: hashes of lines, stored in its folder.

Stored are the hashes of all distinct lines of `LINE_CHARACTERS` or more, or the lowest `MOST_LINES`
of them. Another text is judged by those of its lines whose hashes are not above the highest stored
one: the share of them that is stored estimates the share of its lines that was seen. How either
text is split into documents makes no difference.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tokensurgeon.arrays import Hashes
from tokensurgeon.errors import CorpusError, UsageError
from tokensurgeon.vocabulary.reading import read_bytes

SEEN_FILE = "seen.txt"
LINE_CHARACTERS = 40
"""Shorter lines (headings, braces, list marks) occur in unrelated texts."""
MOST_LINES = 20_000
"""Bounds the file to 340 kB (17 bytes a line), however large the corpus."""
MOST_BYTES = 1 << 20
"""Bytes of the file that are read at most: three times what `MOST_LINES` need."""
MOST_SEEN = 0.1
"""Share of seen lines that is tolerated: boilerplate such as licences is in every text."""
_ALL, _LOWEST = "all lines", "lines of lowest hash"


def line_hashes(texts: Iterable[str]) -> Hashes:
    """Return the hashes of the longer lines of texts, uint64, ascending, at most `MOST_LINES`."""
    lines = {line.strip() for text in texts for line in text.split("\n")}
    data = b"".join(
        hashlib.blake2b(line.encode("utf-8"), digest_size=8).digest()
        for line in lines
        if len(line) >= LINE_CHARACTERS
    )
    return np.unique(np.frombuffer(data, ">u8").astype(np.uint64))[:MOST_LINES]


@dataclass(frozen=True)
class Seen:
    """The lines that were seen, or a sample of them.

    Attributes
    ----------
    hashes : uint64 (n_lines,)
        Sorted, distinct.
    complete : bool
        Whether these are all lines; else those with the lowest hashes.
    """

    hashes: Hashes
    complete: bool = True

    def plus(self, hashes: Hashes) -> Seen:
        """Return this with further lines."""
        union = np.union1d(self.hashes, hashes)
        complete = self.complete and len(hashes) < MOST_LINES and len(union) <= MOST_LINES
        return Seen(union[:MOST_LINES], complete)

    def joined(self, other: Seen | None) -> Seen:
        """Return this with the lines of another; None has none."""
        if other is None:
            return self
        both = self.plus(other.hashes)
        return Seen(both.hashes, both.complete and other.complete)

    def share(self, texts: Iterable[str]) -> float:
        """Return an estimate of the share of a text's longer lines that were seen."""
        hashes = line_hashes(texts)
        if not self.complete and len(self.hashes):
            hashes = hashes[hashes <= self.hashes[-1]]
        return float(np.isin(hashes, self.hashes).mean()) if len(hashes) else 0.0

    def to_text(self) -> str:
        """Return what the file holds: one line that says what it is, then hexadecimal hashes."""
        head = _ALL if self.complete else _LOWEST
        return "\n".join([head, *(f"{line:016x}" for line in self.hashes.tolist()), ""])

    @classmethod
    def load(cls, folder: Path) -> Seen | None:
        """Return what a vocabulary's folder says, or None where it has no such file.

        Raises
        ------
        CorpusError, TokenizerError
            If the file does not hold hashes, or is larger than `MOST_BYTES`.
        """
        path = folder / SEEN_FILE
        if not path.is_file():
            return None
        try:
            return cls.of_text(read_bytes(path, MOST_BYTES).decode("utf-8"))
        except (ValueError, OverflowError) as error:
            raise CorpusError(f"{path} holds no hashes of lines; remove it") from error

    @classmethod
    def of_text(cls, text: str) -> Seen:
        """Return what `to_text` wrote.

        Raises
        ------
        ValueError, OverflowError
            If a line is no 64-bit hexadecimal number.
        """
        head, *lines = text.split("\n")
        return cls(np.array([int(line, 16) for line in lines if line], np.uint64), head == _ALL)


NOTHING_SEEN = Seen(np.zeros(0, np.uint64))


def refuse_seen(folder: Path | None, texts: Iterable[str], allow: bool) -> None:
    """Refuse text that a vocabulary was trained on, as far as its folder says.

    Raises
    ------
    UsageError
        If more than `MOST_SEEN` of the lines were seen, unless that is allowed.
    """
    seen = Seen.load(folder) if folder is not None and not allow else None
    share = seen.share(texts) if seen is not None else 0.0
    if share > MOST_SEEN:
        raise UsageError(
            f"{share:.0%} of the lines of this text were in the text that the vocabulary of "
            f"{folder} was trained on: give other text, or --allow-seen-text"
        )
