"""Text: reading it from files, cutting it into chunks, comparing it with other text."""

from tokensurgeon.text.chunks import CHUNK_SIZES, Chunk, chunk_documents
from tokensurgeon.text.corpus import (
    Corpus,
    Document,
    corpus_of_texts,
    find_files,
    find_sources,
    read_corpus,
    read_documents,
    start_of_texts,
)
from tokensurgeon.text.grouped import Grouped, read_grouped

__all__ = [
    "CHUNK_SIZES",
    "Chunk",
    "Corpus",
    "Document",
    "Grouped",
    "chunk_documents",
    "corpus_of_texts",
    "find_files",
    "find_sources",
    "start_of_texts",
    "read_corpus",
    "read_documents",
    "read_grouped",
]
