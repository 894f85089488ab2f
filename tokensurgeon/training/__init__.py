"""New vocabularies: the text they are trained on, and the trainers."""

from tokensurgeon.training.corpus import (
    Corpus,
    Document,
    corpus_of_texts,
    find_files,
    read_corpus,
    read_documents,
)

__all__ = [
    "Corpus",
    "Document",
    "corpus_of_texts",
    "find_files",
    "read_corpus",
    "read_documents",
]
