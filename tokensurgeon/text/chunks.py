"""Cut documents into the chunks that every model of a table is scored on.

Where to cut depends on the text and the length alone, never on a tokenizer. A chunk ends at a
paragraph, else at a line, else at a space, and never inside a character. The white space at a cut
(one space, one line end or a run of blank lines) belongs to neither chunk and is not scored:
tokenizers disagree whether it belongs to the left or to the right.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tokensurgeon.errors import EvaluationError

CHUNK_SIZES = (1024, 768, 512, 384, 256, 192, 128, 96, 64, 32, 16)
"""Chunk lengths in bytes. A table takes the longest that fits its models, and prints it; steps of a
factor 1.3 to 2 waste little of a model's context."""
SMALLEST_CHUNK_BYTES = CHUNK_SIZES[-1]

_PARAGRAPH = re.compile(rb"\r?\n(?:[ \t]*\r?\n)+")
_LINE = re.compile(rb"\r?\n")
_SPACE = re.compile(rb"[ \t]")


@dataclass(frozen=True)
class Chunk:
    """A part of one document.

    Attributes
    ----------
    text : str
    document : int
        Index of its document in the texts given.
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
        Documents; empty ones give no chunk.
    max_bytes_per_chunk : int
        Upper bound of a chunk's length in UTF-8.
    max_bytes_total : int or None
        Take whole documents until one does not fit into this many bytes. If less than half of the
        bytes are used by then, take the first chunks of that document too.

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
        raise EvaluationError(
            f"a chunk of {max_bytes_per_chunk} bytes cannot hold a character; take 4 or more"
        )
    chunks: list[Chunk] = []
    total = 0
    for document, text in enumerate(texts):
        parts = [Chunk(part, document) for part in _cut(text.encode("utf-8"), max_bytes_per_chunk)]
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
        end, next_start = _border(data, start, limit)
        yield data[start:end].decode("utf-8")
        start = next_start
    if start < len(data):
        yield data[start:].decode("utf-8")


def _border(data: bytes, start: int, limit: int) -> tuple[int, int]:
    """Return where a chunk ends and where the next one starts."""
    stop = start + limit
    for pattern in (_PARAGRAPH, _LINE, _SPACE):
        # At least half of the limit, so that few chunks are short. The blank may follow the limit.
        matches = pattern.finditer(data, start + limit // 2, min(len(data), stop + 1))
        last = [None, *matches][-1]
        if last is not None and start < last.start() and last.end() < len(data):
            return last.span()
    while data[stop] & 0xC0 == 0x80:
        stop -= 1
    return stop, stop


FEW_DOCUMENTS = 20
"""With fewer documents, single ones would decide what lands on either side of a split."""
BLOCK = 4096
"""Bytes of the blocks that few documents are cut into: a few paragraphs."""


def separable(texts: Sequence[str]) -> list[str]:
    """Return the documents, or blocks of them where they are too few to be split in two.

    Examples
    --------
    >>> len(separable(["a few words. " * 1000]))
    4
    """
    if len(texts) >= FEW_DOCUMENTS:
        return list(texts)
    return [chunk.text for chunk in chunk_documents(texts, max_bytes_per_chunk=BLOCK)]
