"""Read texts: files, folders and globs become documents.

A document is one string of a file. What ends a document depends on the kind of file:

============  =================================================================================
``.jsonl``    each line is a document: a string, or an object with the text in a field
``.json``     a list of such values, or one object
``.parquet``  each row (extra ``parquet``)
``.fasta``    each record's sequence, without its name; also ``.fa`` and ``.fna``
others        the whole file; a line that holds only ``<|endoftext|>`` ends a document
============  =================================================================================

A file may be compressed as ``.gz`` or, with the extra ``zstd``, ``.zst``. ``hf:NAME`` is a dataset
of the Hugging Face hub or a local folder of that kind (extra ``datasets``). Text is taken as it is,
line ends included, with two exceptions: a byte order mark at the start of a file is dropped, and
bytes that are not UTF-8 are replaced by U+FFFD and counted. A file with many of these, or of NUL,
is refused. This module does not split text into chunks, normalise it or remove duplicates.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokensurgeon.errors import CorpusError
from tokensurgeon.text.formats import (
    TEXT_SUFFIXES,
    suffix_of,
    texts_of,
    texts_of_dataset,
    without_surrogates,
)

DATASET = "hf:"
MOST_INVALID = 0.01
"""Share of a file's characters that may be no text (not UTF-8, or NUL): damage is rare, and of text
in another encoding each accented letter counts (1.5 % of German, 1.9 % of Spanish, in FLORES)."""
FEW_INVALID = 8
"""So few such characters are counted and never refused: of a short text they are a large share."""


@dataclass(frozen=True)
class Document:
    """One text and the file it came from (``file:3`` for the third of several)."""

    text: str
    source: str
    file: str = ""

    @property
    def n_bytes(self) -> int:
        """Length in UTF-8."""
        return len(self.text.encode("utf-8"))


@dataclass(frozen=True)
class Corpus:
    """Documents, and the facts that a card states about them.

    Attributes
    ----------
    documents : tuple of Document
        At least one; none is empty.
    n_bytes : int
        Their length in UTF-8.
    n_replaced : int
        Number of U+FFFD that replace bytes outside UTF-8 or lone surrogates.
    sha256 : str
        Hash of the documents' UTF-8, each followed by a byte 0xFF, which UTF-8 never contains.
    files : tuple of str
        The files read, in order.
    """

    documents: tuple[Document, ...]
    n_bytes: int
    n_replaced: int
    sha256: str
    files: tuple[str, ...] = ()

    @property
    def texts(self) -> tuple[str, ...]:
        """The documents' texts."""
        return tuple(document.text for document in self.documents)

    def notes(self, use: str) -> list[str]:
        """Say how much of a text for some use was replaced, in a line; none if nothing was."""
        if not self.n_replaced:
            return []
        return [
            f"{self.n_replaced:,} characters of the {use} text are not UTF-8, and are read as "
            "U+FFFD"
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return the facts without the text."""
        return {
            "sha256": self.sha256,
            "bytes": self.n_bytes,
            "documents": len(self.documents),
            "replaced_characters": self.n_replaced,
            "files": list(self.files),
        }


def read_documents(
    patterns: Sequence[str | Path],
    *,
    field: str = "text",
    max_bytes: int | None = None,
    allow_invalid: bool = False,
) -> list[Document]:
    """Return the documents of `read_corpus` without its figures."""
    corpus = read_corpus(patterns, field=field, max_bytes=max_bytes, allow_invalid=allow_invalid)
    return list(corpus.documents)


def read_corpus(
    patterns: Sequence[str | Path],
    *,
    field: str = "text",
    max_bytes: int | None = None,
    allow_invalid: bool = False,
) -> Corpus:
    r"""Read documents from files, folders and globs.

    Parameters
    ----------
    patterns : sequence of str or Path
        A folder is searched for files with `TEXT_SUFFIXES`; hidden ones are left out. Files are
        read in the order of the patterns, sorted within each. A file that several patterns match
        is read once.
    field : str
        The key that holds the text in JSON objects.
    max_bytes : int or None
        Stop after the document that reaches this many bytes of UTF-8. A file of plain text is read
        no further than this.
    allow_invalid : bool
        Take files of which more than `MOST_INVALID` is not UTF-8.

    Raises
    ------
    CorpusError
        If a file is missing, empty, unreadable, no text, or not of the format its name says.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> _ = (folder / "a.jsonl").write_text('"one"\n{"text": "two"}\n')
    >>> [document.text for document in read_documents([folder])]
    ['one', 'two']
    """
    documents: list[Document] = []
    files: dict[str, None] = {}
    replaced = 0
    for document, n_replaced in iter_documents(
        patterns, field=field, max_bytes=max_bytes, allow_invalid=allow_invalid
    ):
        documents.append(document)
        files[document.file] = None
        replaced += n_replaced
    return _corpus(documents, replaced, list(files))


def read_to_measure(
    patterns: Sequence[str | Path],
    *,
    max_bytes: int | None,
    field: str = "text",
    allow_invalid: bool = False,
) -> Corpus:
    """Return the start of `read_corpus`, for a measure that takes whole documents of `max_bytes`.

    Twice as much is read: chunks leave out white space, and a document that does not fit is left.
    """
    most = None if max_bytes is None else 2 * max_bytes
    return read_corpus(patterns, field=field, max_bytes=most, allow_invalid=allow_invalid)


def start_of_texts(texts: Iterable[str], most: int) -> list[str]:
    """Return the first `most` bytes of texts; the last one is cut, and never inside a character.

    Examples
    --------
    >>> start_of_texts(["one", "zwölf", "two"], 6)
    ['one', 'zw']
    """
    kept, left = [], most
    for text in texts:
        if left <= 0:
            break
        data = text.encode("utf-8")
        kept.append(text if len(data) <= left else data[:left].decode("utf-8", "ignore"))
        left -= len(data)
    return [text for text in kept if text]


def find_sources(patterns: str | Path | Sequence[str | Path]) -> list[Path | str]:
    """Return what `iter_documents` reads, in its order: files, then names of datasets.

    Raises
    ------
    CorpusError
        If a pattern matches nothing.
    """
    names = [patterns] if isinstance(patterns, str | Path) else patterns
    datasets = [str(name) for name in names if str(name).startswith(DATASET)]
    paths = [name for name in names if not str(name).startswith(DATASET)]
    return [*(find_files(paths) if paths or not datasets else []), *datasets]


def iter_documents(
    patterns: str | Path | Sequence[str | Path],
    *,
    field: str = "text",
    part_bytes: int | None = None,
    max_bytes: int | None = None,
    allow_invalid: bool = False,
    ends: Counter[str] | None = None,
) -> Iterator[tuple[Document, int]]:
    """Yield each document of `read_corpus`, with the number of characters replaced in it.

    With `part_bytes`, plain text is cut at the first line end after so many bytes, and each part
    counts as a document. So no file is held in memory as a whole. Lines that end a document are
    counted in `ends`.

    Raises
    ------
    CorpusError
        As `read_corpus` does, when it reaches the file; of one that is no text at its end.
    """
    left = max_bytes
    for source in find_sources(patterns):
        if isinstance(source, Path):
            texts = texts_of(source, field, part_bytes, left, ends)
        else:
            texts = texts_of_dataset(source.removeprefix(DATASET), field)
        for document, n_replaced in _documents(str(source), texts, left, allow_invalid):
            yield document, n_replaced
            left = None if left is None else left - document.n_bytes
        if left is not None and left <= 0:
            return


def _documents(
    file: str, texts: Iterator[tuple[str, int]], most: int | None, allow_invalid: bool
) -> Iterator[tuple[Document, int]]:
    """Yield the documents of one file, until they have `most` bytes; refuse what is no text."""
    number = replaced = n_bytes = n_characters = n_invalid = n_nul = 0
    first: tuple[Document, int] | None = None
    for text, n_replaced in texts:
        replaced += n_replaced
        n_characters += len(text)
        n_invalid += n_replaced
        n_nul += text.count("\0")
        if not text:
            continue
        number += 1
        if first is not None:
            yield first
            first = None
        document = Document(text, f"{file}:{number}", file)
        # The first document waits: the only document of a file is named like the file.
        if number == 1:
            first = (document, replaced)
        else:
            yield document, replaced
        replaced = 0
        n_bytes += document.n_bytes if most is not None else 0
        if most is not None and n_bytes >= most:
            break
    n_most = max(FEW_INVALID, MOST_INVALID * n_characters)
    if n_invalid + n_nul > n_most and not allow_invalid:
        encoding = "UTF-16" if n_nul > n_invalid else "LATIN1"
        raise CorpusError(
            f"{file} is no text: of {n_characters:,} characters {n_invalid:,} are not UTF-8 and "
            f"{n_nul:,} are NUL; convert it (iconv -f {encoding} -t UTF-8, or from what it is in), "
            "or let evaluate or transplant take it as it is with --allow-invalid-text"
        )
    if not number:
        raise CorpusError(f"{file} holds no text; leave it out")
    if first is not None:
        yield Document(first[0].text, file, file), first[1]


def corpus_of_texts(texts: Iterable[str], source: str = "text") -> Corpus:
    """Return texts in memory as a corpus; empty ones are left out."""
    documents = []
    replaced = 0
    for number, text in enumerate(texts, start=1):
        text, n_replaced = without_surrogates(text)
        replaced += n_replaced
        if text:
            documents.append(Document(text, f"{source}:{number}"))
    return _corpus(documents, replaced, [])


def corpus_of_documents(documents: Sequence[Document], n_replaced: int = 0) -> Corpus:
    """Return documents that were read as a corpus, with the files that they name.

    Raises
    ------
    CorpusError
        If there is none.
    """
    files = dict.fromkeys(document.file for document in documents if document.file)
    return _corpus(list(documents), n_replaced, list(files))


def find_files(patterns: Sequence[str | Path]) -> list[Path]:
    """Return the files that the patterns match, each once.

    Raises
    ------
    CorpusError
        If a pattern matches nothing.
    """
    files: dict[Path, Path] = {}
    for pattern in patterns:
        path = Path(pattern).expanduser()
        if path.is_dir():
            paths = _files_in(path)
            if not paths:
                raise CorpusError(f"no text files in the folder {path}; name them, or use a glob")
        elif path.is_file():
            paths = [path]
        elif set(str(pattern)) & set("*?["):
            first = next(i for i, part in enumerate(path.parts) if set(part) & set("*?["))
            folder, rest = Path(*path.parts[:first]), str(Path(*path.parts[first:]))
            paths = [name for name in sorted(folder.glob(rest)) if name.is_file()]
            if not paths:
                raise CorpusError(f"no file matches {pattern}; check the pattern, and quote it")
        elif path.exists():
            raise CorpusError(f"{path} is a device or a pipe, not a text file; write it to one")
        else:
            raise CorpusError(f"there is no text file {path}; check the path")
        for name in paths:
            files.setdefault(name.resolve(), name)
    if not files:
        raise CorpusError("no text was named; give files, folders or globs")
    return list(files.values())


def _files_in(folder: Path) -> list[Path]:
    def is_hidden(path: Path) -> bool:
        return any(part.startswith(".") for part in path.relative_to(folder).parts)

    paths = [path for path in folder.rglob("*") if suffix_of(path) in TEXT_SUFFIXES]
    return sorted(path for path in paths if path.is_file() and not is_hidden(path))


def _corpus(documents: list[Document], replaced: int, files: list[str]) -> Corpus:
    if not documents:
        raise CorpusError("the texts given are empty; give at least one document")
    digest = hashlib.sha256()
    total = 0
    for document in documents:
        data = document.text.encode("utf-8")
        digest.update(data + b"\xff")
        total += len(data)
    return Corpus(tuple(documents), total, replaced, digest.hexdigest(), tuple(files))
