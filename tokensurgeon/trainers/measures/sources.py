"""Which texts a vocabulary is measured on, and how they are grouped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokensurgeon.errors import CorpusError
from tokensurgeon.text.borders import Borders
from tokensurgeon.text.corpus import Corpus, Document, read_documents
from tokensurgeon.trainers.counting.counted import Counted
from tokensurgeon.trainers.mixture import ALL

MOST_FILES = 20
"""With more files than this, all are one source: a longer table would be hard to read."""


@dataclass(frozen=True)
class Source:
    """Texts that belong together, such as the documents of a file."""

    name: str
    documents: tuple[str, ...]

    @classmethod
    def of(cls, name: str, documents: Iterable[Document]) -> Source:
        """Return documents as a source."""
        return cls(name, tuple(document.text for document in documents))


def held_out_sources(
    counted: Counted,
    held_out: Sequence[str | Path] | Corpus,
    field: str,
    borders: Sequence[str] = (),
) -> list[Source]:
    """Return the texts to measure on: by part of the mixture, else by file if there are few.

    Parameters
    ----------
    counted : Counted
        With the documents that were held out of the counting.
    held_out : sequence of str or Path, or Corpus
        Files, or a text in memory, to measure on instead.
    field : str
        The key that holds the text in JSON objects.
    borders : sequence of str
        Control strings that end a document, in these files too.

    Raises
    ------
    CorpusError
        If no text is held out, or a file cannot be read.
    """
    if held_out:
        cut = Borders(borders)
        if isinstance(held_out, Corpus):
            read, named = list(held_out.documents), "the held-out text"
        else:
            read, named = read_documents(held_out, field=field), str(held_out[0])
        documents = [part for document in read for part in cut.split(document)]
        if not documents:
            raise CorpusError(f"{named} holds control strings alone; give text to measure on")
        return _by_file(documents)
    parts = {name: documents for name, documents in counted.held_out.items() if documents}
    if not parts:
        raise CorpusError(f"{sum(counted.n_bytes):,} bytes are too few to train on; give more")
    if len(counted.parts) > 1:
        return [Source.of(name, documents) for name, documents in parts.items()]
    return _by_file([document for documents in parts.values() for document in documents])


def _by_file(documents: Sequence[Document]) -> list[Source]:
    files = dict.fromkeys(document.file for document in documents)
    if len(files) > MOST_FILES or not all(files):
        return [Source.of(ALL, documents)]
    return [
        Source.of(Path(file).name, (document for document in documents if document.file == file))
        for file in files
    ]
