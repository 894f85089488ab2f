"""Cut documents into the chunks that every model of a table is scored on.

Chunks of a given length come from the text alone: no tokenizer is asked where to cut. A chunk ends
at a paragraph, else a line, else a space, and never inside a character. The blank where a document
is cut (one space, line end or run of blank lines) belongs to neither chunk and is scored for
nobody: tokenizers disagree on its side.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tokensurgeon.errors import EvaluationError

CHUNK_SIZES = (1024, 768, 512, 384, 256, 192, 128, 96, 64, 32, 16)
"""Chunk lengths in bytes; a table takes the longest that fits its models, and prints it."""

SMALLEST_CHUNK_BYTES = CHUNK_SIZES[-1]

_PARAGRAPH = re.compile(rb"\r?\n(?:[ \t]*\r?\n)+")
_LINE = re.compile(rb"\r?\n")
_SPACE = re.compile(rb"[ \t]")


@dataclass(frozen=True)
class Chunk:
    """A stretch of one document.

    Attributes
    ----------
    text : str
    document : int
        The number of its document among the texts given.
    """

    text: str
    document: int

    @property
    def n_bytes(self) -> int:
        """Length in UTF-8."""
        return len(self.text.encode("utf-8"))


def chunk_documents(
    texts: Sequence[str],
    *,
    max_bytes_per_chunk: int = CHUNK_SIZES[0],
    max_bytes_total: int | None = None,
) -> list[Chunk]:
    """Cut documents into chunks, in order.

    Parameters
    ----------
    texts : sequence of str
        The documents. Empty ones give no chunk.
    max_bytes_per_chunk : int
        No chunk is longer in UTF-8.
    max_bytes_total : int or None
        Take whole documents while they fit into this many bytes. The document that does not fit
        ends the text; only where less than half of the bytes are used by then are its first
        chunks taken.

    Raises
    ------
    EvaluationError
        If there is no text, or the bound leaves no chunk.

    Examples
    --------
    >>> [c.text for c in chunk_documents(["one two three four"], max_bytes_per_chunk=16)]
    ['one two three', 'four']
    """
    if max_bytes_per_chunk < 4:
        raise EvaluationError(f"a chunk of {max_bytes_per_chunk} bytes cannot hold a character")
    chunks: list[Chunk] = []
    total = 0
    for number, text in enumerate(texts):
        parts = [Chunk(part, number) for part in _cut(text.encode("utf-8"), max_bytes_per_chunk)]
        size = sum(part.n_bytes for part in parts)
        if max_bytes_total is not None and total + size > max_bytes_total:
            if total * 2 < max_bytes_total:
                for part in parts:
                    total += part.n_bytes
                    if total > max_bytes_total:
                        break
                    chunks.append(part)
            break
        chunks.extend(parts)
        total += size
    if not chunks:
        bound = f" within {max_bytes_total:,} bytes" if max_bytes_total is not None else ""
        raise EvaluationError(f"{len(texts):,} documents give no text to score{bound}; give more")
    return chunks


def _cut(data: bytes, limit: int) -> Iterator[str]:
    start = 0
    while len(data) - start > limit:
        end, following = _border(data, start, limit)
        yield data[start:end].decode("utf-8")
        start = following
    if start < len(data):
        yield data[start:].decode("utf-8")


def _border(data: bytes, start: int, limit: int) -> tuple[int, int]:
    """Return where a chunk ends and where the next one starts."""
    stop = start + limit
    for pattern in (_PARAGRAPH, _LINE, _SPACE):
        # A chunk is at least half full, so that few are short; the blank may lie behind its end.
        last = None
        for match in pattern.finditer(data, start + limit // 2, min(len(data), stop + 1)):
            last = match
        if last is not None and start < last.start() and last.end() < len(data):
            return last.span()
    while data[stop] & 0xC0 == 0x80:
        stop -= 1
    return stop, stop


FEW_DOCUMENTS = 20
BLOCK = 4096
"""Bytes: where there are few documents, blocks of one are set apart as if they were documents."""


def separable(texts: Sequence[str]) -> list[str]:
    """Return the documents, or blocks of them where they are too few to be parted in two.

    Examples
    --------
    >>> len(separable(["a few words. " * 1000]))
    4
    """
    if len(texts) >= FEW_DOCUMENTS:
        return list(texts)
    return [chunk.text for chunk in chunk_documents(texts, max_bytes_per_chunk=BLOCK)]
