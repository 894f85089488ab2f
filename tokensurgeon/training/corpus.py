"""Read texts: files, folders and globs become documents.

A document is a string that came from one place. What ends a document depends on the file:

===========  ==================================================================================
``.jsonl``   each line is a document: a string, or an object with the text in a field
``.json``    a list of such values, or one object
others       the whole file; a line that holds only ``<|endoftext|>`` ends a document
===========  ==================================================================================

Any of them may be packed as ``.gz``. Text is taken as it is, line ends included: a byte order mark
at the start of a file is dropped, what is not UTF-8 is replaced by U+FFFD and counted, and nothing
else is changed. This module does not split text into chunks, normalise it or remove duplicates.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokensurgeon.errors import CorpusError

_SUFFIXES = (
    ".txt .text .md .markdown .rst .tex .csv .tsv .json .jsonl .ndjson .html .htm .xml .yaml .yml "
    ".toml .ini .cfg .log .srt .py .pyi .js .ts .jsx .tsx .c .h .cc .cpp .hpp .cs .go .rs .java "
    ".kt .swift .rb .php .pl .lua .r .jl .m .sh .bash .zsh .sql .scala .hs .ml .css"
)
TEXT_SUFFIXES = frozenset(_SUFFIXES.split())
"""What is read from a folder; a file that is named, or found by a glob, may end as it likes."""

_SEPARATOR = re.compile(r"^<\|endoftext\|>\r?(?:\n|\Z)", re.MULTILINE)
_PACKED = {".zst", ".bz2", ".xz", ".zip", ".tar", ".7z", ".parquet", ".arrow", ".pdf", ".docx"}


@dataclass(frozen=True)
class Document:
    """One text and the file it came from (``file:3`` for the third of several)."""

    text: str
    source: str

    @property
    def n_bytes(self) -> int:
        """Length in UTF-8."""
        return len(self.text.encode("utf-8"))


@dataclass(frozen=True)
class Corpus:
    """Documents, and what a card needs to say about them.

    Attributes
    ----------
    documents : tuple of Document
        At least one; none is empty.
    n_bytes : int
        Their length in UTF-8.
    n_replaced : int
        Characters put in place of bytes that are not UTF-8 (or of lone surrogates).
    sha256 : str
        Of each document's UTF-8 followed by a byte 0xFF, which UTF-8 never holds.
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
    patterns: Sequence[str | Path], *, field: str = "text", max_bytes: int | None = None
) -> list[Document]:
    """Return the documents of `read_corpus` without its figures."""
    return list(read_corpus(patterns, field=field, max_bytes=max_bytes).documents)


def read_corpus(
    patterns: Sequence[str | Path], *, field: str = "text", max_bytes: int | None = None
) -> Corpus:
    r"""Read documents from files, folders and globs.

    Parameters
    ----------
    patterns : sequence of str or Path
        A folder is searched for files with `TEXT_SUFFIXES`, hidden ones left out. Files come in
        the order of the patterns, sorted within each; a file that several patterns find is read
        once.
    field : str
        The key that holds the text in JSON objects.
    max_bytes : int or None
        Stop after the document that reaches this many bytes of UTF-8.

    Raises
    ------
    CorpusError
        If a file is missing, empty, unreadable, or not of the format its name says.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> _ = (folder / "a.jsonl").write_text('"one"\n{"text": "two"}\n')
    >>> [document.text for document in read_documents([folder])]
    ['one', 'two']
    """
    if isinstance(patterns, str | Path):
        patterns = [patterns]
    documents: list[Document] = []
    files: list[str] = []
    total = replaced = 0
    for path in find_files(patterns):
        if max_bytes is not None and total >= max_bytes:
            break
        files.append(str(path))
        number = 0
        for text, wrong in _texts_of(path, field):
            replaced += wrong
            if not text:
                continue
            number += 1
            documents.append(Document(text, f"{path}:{number}"))
            total += documents[-1].n_bytes
            if max_bytes is not None and total >= max_bytes:
                break
        if not number:
            raise CorpusError(f"{path} holds no text; leave it out")
        if number == 1:
            documents[-1] = Document(documents[-1].text, str(path))
    return _corpus(documents, replaced, files)


def corpus_of_texts(texts: Iterable[str], source: str = "text") -> Corpus:
    """Return texts that are in memory already as a corpus; empty ones are left out."""
    documents = []
    replaced = 0
    for number, text in enumerate(texts, start=1):
        text, wrong = _without_surrogates(text)
        replaced += wrong
        if text:
            documents.append(Document(text, f"{source}:{number}"))
    return _corpus(documents, replaced, [])


def find_files(patterns: Sequence[str | Path]) -> list[Path]:
    """Return the files that the patterns name, each once.

    Raises
    ------
    CorpusError
        If a pattern finds nothing.
    """
    found: dict[Path, Path] = {}
    for pattern in patterns:
        path = Path(pattern).expanduser()
        if path.is_dir():
            paths = _files_in(path)
            if not paths:
                raise CorpusError(f"no text files in the folder {path}; name them, or use a glob")
        elif path.is_file():
            paths = [path]
        elif any(mark in str(pattern) for mark in "*?["):
            paths = [name for name in _glob(path) if name.is_file()]
            if not paths:
                raise CorpusError(f"no file matches {pattern}; check the pattern, and quote it")
        else:
            raise CorpusError(f"there is no text file {path}; check the path")
        for name in paths:
            found.setdefault(name.resolve(), name)
    if not found:
        raise CorpusError("no text was named; give files, folders or globs")
    return list(found.values())


def _glob(pattern: Path) -> list[Path]:
    parts = pattern.parts
    first = next(i for i, part in enumerate(parts) if any(mark in part for mark in "*?["))
    return sorted(Path(*parts[:first]).glob(str(Path(*parts[first:]))))


def _files_in(folder: Path) -> list[Path]:
    paths = []
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if not hidden and path.is_file() and _suffix(path) in TEXT_SUFFIXES:
            paths.append(path)
    return paths


def _suffix(path: Path) -> str:
    name = path.name.lower().removesuffix(".gz")
    return Path(name).suffix


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


def _texts_of(path: Path, field: str) -> Iterator[tuple[str, int]]:
    """Yield each document of a file with the number of characters replaced in it."""
    suffix = _suffix(path)
    if suffix in _PACKED or path.suffix.lower() in _PACKED:
        raise CorpusError(f"{path}: {suffix} files are not read; unpack it to .txt, .jsonl or .gz")
    if suffix in (".jsonl", ".ndjson"):
        for number, line in enumerate(_lines(path), start=1):
            if line.strip():
                text, wrong = _decode(line, path)
                yield _value(_parse(text, f"{path}, line {number}"), field, path, wrong)
        return
    text, wrong = _decode(b"".join(_lines(path)), path)
    if suffix == ".json":
        data = _parse(text, str(path)) if text.strip() else []
        for value in data if isinstance(data, list) else [data]:
            yield _value(value, field, path, wrong)
            wrong = 0
        return
    for part in _SEPARATOR.split(text):
        yield part, wrong
        wrong = 0


def _lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of a file, unpacked, each with its line end."""
    try:
        packed = path.suffix.lower() == ".gz"
        with gzip.open(path, "rb") if packed else path.open("rb") as file:
            yield from file
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise CorpusError(f"{path} is not a whole gzip file: pack it again") from error
    except OSError as error:
        raise CorpusError(f"cannot read {path}: {error.strerror or error}") from error


def _decode(data: bytes, path: Path) -> tuple[str, int]:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise CorpusError(f"{path} is UTF-16; convert it to UTF-8 (iconv -f UTF-16 -t UTF-8)")
    text = data.decode("utf-8", errors="replace")
    wrong = text.count("�") - data.count("�".encode())
    return text.removeprefix("\ufeff"), wrong


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise CorpusError(f"{where} is not JSON ({error}); mend it, or name it .txt") from error


def _value(value: Any, field: str, path: Path, wrong: int) -> tuple[str, int]:
    if isinstance(value, dict):
        if field not in value:
            keys = ", ".join(list(map(str, value))[:5]) or "none"
            raise CorpusError(f"{path}: an object has no field '{field}' (its keys: {keys})")
        value = value[field]
    if not isinstance(value, str):
        kind = type(value).__name__
        raise CorpusError(f"{path}: a document is a string or an object with one, not {kind}")
    text, surrogates = _without_surrogates(value)
    return text, wrong + surrogates


def _without_surrogates(text: str) -> tuple[str, int]:
    """Replace lone surrogates, which JSON can spell and UTF-8 cannot."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        wrong = sum("\ud800" <= character <= "\udfff" for character in text)
        return re.sub("[\ud800-\udfff]", "�", text), wrong
    return text, 0
