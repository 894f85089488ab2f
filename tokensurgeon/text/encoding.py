"""Chunks under one tokenizer: ids, where each token ends, and the ids around every chunk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tokensurgeon.arrays import Ids, Mask
from tokensurgeon.text.chunks import CHUNK_SIZES, Chunk, chunk_documents
from tokensurgeon.vocabulary import Vocabulary

Frame = tuple[tuple[int, ...], tuple[int, ...]]
"""Ids before and after a text."""


@dataclass(frozen=True)
class Encoded:
    """The chunks under one tokenizer.

    Attributes
    ----------
    ids : tuple of int64 (n_tokens,), len n_chunks
    ends : tuple of int64 (n_tokens,), len n_chunks
        Where in the chunk's UTF-8 each token ends.
    lossless : bool (n_chunks,)
        Where the tokens spell the chunk.
    prefix : tuple of int
        Ids that stand before every chunk: BOS, else EOS, else none; of an encoder its start; -1
        of an encoder–decoder, for its decoder's own start, whatever that is.
    suffix : tuple of int
        Ids that stand after it, for an encoder.
    """

    ids: tuple[Ids, ...]
    ends: tuple[Ids, ...]
    lossless: Mask
    prefix: tuple[int, ...]
    suffix: tuple[int, ...] = ()

    def fits(self, max_positions: int | None) -> Mask:
        """Return which chunks have no more ids than a model has positions, bool (n_chunks,)."""
        most = np.inf if max_positions is None else max_positions
        most -= len(self.prefix) + len(self.suffix)
        return np.array([len(ids) <= most for ids in self.ids], dtype=np.bool_)

    def sequences(self, chosen: Ids) -> list[list[int]]:
        """Return the ids of the chosen chunks as a causal model reads them, the prefix first."""
        return [[*self.prefix, *self.ids[i].tolist()] for i in chosen]


def prefix_of(vocabulary: Vocabulary) -> tuple[int, ...]:
    """Return the ids a sequence starts with: BOS, else EOS, else none."""
    return () if vocabulary.start_id is None else (vocabulary.start_id,)


def encode_chunks(
    vocabulary: Vocabulary, chunks: Sequence[Chunk], frame: Frame | None = None
) -> Encoded:
    """Tokenise each chunk whole.

    Parameters
    ----------
    vocabulary : Vocabulary
    chunks : sequence of Chunk
    frame : two tuples of int, or None
        Ids before and after each chunk; those of a causal model if None (see `prefix_of`).
    """
    prefix, suffix = (prefix_of(vocabulary), ()) if frame is None else frame
    encodings = vocabulary.encode_many([chunk.text for chunk in chunks])
    return Encoded(
        ids=tuple(np.asarray(encoding.ids, dtype=np.int64) for encoding in encodings),
        ends=tuple(np.asarray(encoding.ends, dtype=np.int64) for encoding in encodings),
        lossless=np.array([encoding.lossless for encoding in encodings], dtype=np.bool_),
        prefix=prefix,
        suffix=suffix,
    )


def fitting_chunks(
    vocabulary: Vocabulary,
    texts: Sequence[str],
    max_positions: int | None,
    *,
    longest: int = CHUNK_SIZES[0],
    max_bytes: int | None = None,
) -> tuple[list[Chunk], Encoded, Mask]:
    """Cut texts into the longest chunks that all fit a model; where none does, the shortest.

    Parameters
    ----------
    vocabulary : Vocabulary
    texts : sequence of str
    max_positions : int or None
    longest : int
        Bytes of a chunk at most.
    max_bytes : int or None
        Of text.

    Returns
    -------
    chunks, their tokens, and which fit
    """
    for size in (size for size in CHUNK_SIZES if size <= longest):
        chunks = chunk_documents(texts, max_bytes_per_chunk=size, max_bytes_total=max_bytes)
        encoded = encode_chunks(vocabulary, chunks)
        fits = encoded.fits(max_positions)
        if fits.all():
            break
    return chunks, encoded, fits
