"""Text: read from files, parted and cut into chunks, compared with other text."""

from tokensurgeon.text.chunks import CHUNK_SIZES, Chunk, chunk_documents
from tokensurgeon.text.corpus import (
    Corpus,
    Document,
    corpus_of_texts,
    find_files,
    read_corpus,
    read_documents,
)
from tokensurgeon.text.mixture import Part, parse_mixture

__all__ = [
    "CHUNK_SIZES",
    "Chunk",
    "Corpus",
    "Document",
    "Part",
    "chunk_documents",
    "corpus_of_texts",
    "find_files",
    "parse_mixture",
    "read_corpus",
    "read_documents",
]
