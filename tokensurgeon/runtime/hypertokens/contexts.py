"""Texts cut into the contexts that a model reads with one codebook each."""

from __future__ import annotations

from collections.abc import Sequence

from tokensurgeon.text import Chunk, chunk_documents
from tokensurgeon.text.chunks import SMALLEST_CHUNK_BYTES
from tokensurgeon.text.encoding import Encoded, encode_chunks
from tokensurgeon.vocabulary import Vocabulary


def cut_contexts(
    vocabulary: Vocabulary,
    documents: Sequence[str],
    context_bytes: int,
    max_positions: int | None = None,
) -> tuple[list[Chunk], Encoded]:
    """Return chunks of documents with their ids, as long as asked and as the model takes.

    Where one of `context_bytes` has more ids than the model has positions, chunks are half as long,
    a quarter, and so on; ids count, for the plain model is measured on the same chunks.

    Raises
    ------
    EvaluationError
        If there is no text.
    """
    while True:
        chunks = chunk_documents(documents, max_bytes_per_chunk=context_bytes)
        encoded = encode_chunks(vocabulary, chunks)
        if context_bytes <= SMALLEST_CHUNK_BYTES or encoded.fits(max_positions).all():
            return chunks, encoded
        context_bytes = max(SMALLEST_CHUNK_BYTES, context_bytes // 2)
