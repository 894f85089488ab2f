"""Text held out of what a target tokenizer is trained on: whole documents, to measure on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tokensurgeon.errors import CorpusError
from tokensurgeon.text.corpus import Corpus, Document, corpus_of_documents
from tokensurgeon.trainers.counting.held_out import EVERY, HeldOut
from tokensurgeon.trainers.mixture import ALL, Part, documents_of


@dataclass(frozen=True)
class HeldText:
    """The two parts of a text.

    Attributes
    ----------
    training : Corpus
        What the tokenizer is trained on.
    held_out : Corpus
        What its figures and the model's are measured on.
    """

    training: Corpus
    held_out: Corpus


def part_text(patterns: tuple[str, ...]) -> HeldText:
    """Part the documents of some files as a training does; all of them are held in memory.

    Raises
    ------
    CorpusError
        If the files cannot be read, or are too little to hold out of.
    """
    replaced = 0

    def documents() -> Iterator[Document]:
        nonlocal replaced
        for document, n in documents_of(Part(patterns), "text"):
            replaced += n
            yield document

    splitter = HeldOut()
    training = [document for document in splitter.split(ALL, documents()) if document.text]
    held_out = [document for document in splitter.documents[ALL] if document.text.strip()]
    if not training or not held_out:
        n_bytes = sum(document.n_bytes for document in (*training, *held_out))
        raise CorpusError(
            f"{n_bytes:,} bytes of text are too few to hold out one of {EVERY} parts; give more, "
            "or other text to measure on"
        )
    return HeldText(corpus_of_documents(training, replaced), corpus_of_documents(held_out, 0))
