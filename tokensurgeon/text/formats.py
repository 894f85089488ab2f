"""How a file becomes texts: plain text, JSON, JSON lines and Parquet, packed or not.

Nothing is split into chunks, normalised or made distinct here; see `corpus` for what a document is.
"""

from __future__ import annotations

import gzip
import json
import re
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from tokensurgeon.errors import CorpusError

_SUFFIXES = (
    ".txt .text .md .markdown .rst .tex .csv .tsv .json .jsonl .ndjson .html .htm .xml .yaml .yml "
    ".toml .ini .cfg .log .srt .py .pyi .js .ts .jsx .tsx .c .h .cc .cpp .hpp .cs .go .rs .java "
    ".kt .swift .rb .php .pl .lua .r .jl .m .sh .bash .zsh .sql .scala .hs .ml .css .parquet "
    ".fa .fasta .fna"
)
TEXT_SUFFIXES = frozenset(_SUFFIXES.split())
"""What is read from a folder; a file that is named, or found by a glob, may end as it likes."""

FASTA = {".fa", ".fasta", ".fna"}
_SEPARATOR = re.compile(rb"<\|endoftext\|>\r?\n?")
_PACKED = {".bz2", ".xz", ".zip", ".tar", ".7z", ".arrow", ".pdf", ".docx"}
_UNPACKED = (".gz", ".zst")
_ROWS = 256
"""Rows of a Parquet file that are held at once."""


def suffix_of(path: Path) -> str:
    """Return what a file's name ends with, its packing left out."""
    name = path.name.lower()
    for packing in _UNPACKED:
        name = name.removesuffix(packing)
    return Path(name).suffix


def texts_of(path: Path, field: str, part_bytes: int | None = None) -> Iterator[tuple[str, int]]:
    """Yield each document of a file with the number of characters replaced in it.

    Parameters
    ----------
    path : Path
    field : str
        The key (or column) that holds the text.
    part_bytes : int or None
        Cut plain text at the line end after this many bytes, so that a large file is never held
        whole.

    Raises
    ------
    CorpusError
        If the file cannot be read, or is not of the format its name says.
    """
    suffix = suffix_of(path)
    if suffix in _PACKED or path.suffix.lower() in _PACKED:
        raise CorpusError(f"{path}: {suffix} files are not read; unpack it to .txt, .jsonl or .gz")
    if suffix in (".jsonl", ".ndjson"):
        for number, line in enumerate(_lines(path), start=1):
            if line.strip():
                text, wrong = _decode(line, path)
                yield text_of_value(_parse(text, f"{path}, line {number}"), field, path, wrong)
    elif suffix == ".parquet":
        yield from _rows(path, field)
    elif suffix == ".json":
        text, wrong = _decode(b"".join(_lines(path)), path)
        data = _parse(text, str(path)) if text.strip() else []
        for value in data if isinstance(data, list) else [data]:
            yield text_of_value(value, field, path, wrong)
            wrong = 0
    elif suffix in FASTA:
        yield from _records(path)
    else:
        yield from _plain(path, part_bytes)


def _plain(path: Path, part_bytes: int | None) -> Iterator[tuple[str, int]]:
    held: list[bytes] = []
    size = 0
    for line in _lines(path):
        if line.startswith(b"<|endoftext|>") and _SEPARATOR.fullmatch(line):
            yield _decode(b"".join(held), path)
            held, size = [], 0
            continue
        held.append(line)
        size += len(line)
        if part_bytes is not None and size >= part_bytes:
            yield _decode(b"".join(held), path)
            held, size = [], 0
    yield _decode(b"".join(held), path)


def _records(path: Path) -> Iterator[tuple[str, int]]:
    """Yield the sequence of each record, its lines put together; names are left out."""
    held: list[bytes] = []
    for line in _lines(path):
        if line.startswith((b">", b";")):
            yield _decode(b"".join(held), path)
            held = []
        else:
            held.append(line.strip())
    yield _decode(b"".join(held), path)


def _rows(path: Path, field: str) -> Iterator[tuple[str, int]]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise CorpusError(
            f"{path}: Parquet needs pyarrow; pip install 'tokensurgeon[parquet]'"
        ) from error
    try:
        with ParquetFile(path) as file:
            names = file.schema_arrow.names
            if field not in names:
                keys = ", ".join(names[:5])
                raise CorpusError(f"{path} has no column '{field}' (it has {keys})")
            for batch in file.iter_batches(_ROWS, columns=[field]):
                for value in batch.column(0).to_pylist():
                    yield text_of_value(value, field, path, 0)
    except (ArrowException, OSError) as error:
        raise CorpusError(f"{path} is not a whole Parquet file: write it again") from error


def texts_of_dataset(name: str, field: str) -> Iterator[tuple[str, int]]:
    """Yield each text of ``NAME[@CONFIG][:SPLIT]``, a dataset of the hub or a local folder.

    Raises
    ------
    CorpusError
        If the library is missing, the dataset cannot be had, or it has no such field.
    """
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise CorpusError(
            f"hf:{name} needs datasets; pip install 'tokensurgeon[datasets]'"
        ) from error
    path, _, split = name.partition(":")
    path, _, config = path.partition("@")
    try:
        rows = load_dataset(path, config or None, split=split or "train", streaming=True)
    except Exception as error:  # the library raises errors of a dozen unrelated kinds
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CorpusError(f"cannot load the dataset hf:{name}: {reason}") from error
    for row in rows:
        yield text_of_value(row, field, f"hf:{name}", 0)


def _open(path: Path) -> BinaryIO:
    packing = path.suffix.lower()
    if packing == ".gz":
        return cast(BinaryIO, gzip.open(path, "rb"))
    if packing == ".zst":
        return _open_zstd(path)
    return path.open("rb")


def _open_zstd(path: Path) -> BinaryIO:
    try:
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd
    except ImportError as error:
        raise CorpusError(f"{path}: .zst files need pip install 'tokensurgeon[zstd]'") from error
    return cast(BinaryIO, zstd.open(path, "rb"))


def _lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of a file, unpacked, each with its line end."""
    try:
        with _open(path) as file:
            yield from file
    except OSError as error:
        if isinstance(error, gzip.BadGzipFile):
            raise CorpusError(f"{path} is not a whole gzip file: pack it again") from error
        raise CorpusError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:
        # zstd's own error is of a module that may not be installed.
        if isinstance(error, EOFError | zlib.error) or type(error).__name__ == "ZstdError":
            kind = "zstd" if path.suffix.lower() == ".zst" else "gzip"
            raise CorpusError(f"{path} is not a whole {kind} file: pack it again") from error
        raise


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


def text_of_value(value: Any, field: str, path: Path | str, wrong: int) -> tuple[str, int]:
    """Return the text that a value of JSON or a row holds, and the characters replaced in it.

    Raises
    ------
    CorpusError
        If it holds none.
    """
    if isinstance(value, dict):
        if field not in value:
            keys = ", ".join(list(map(str, value))[:5]) or "none"
            raise CorpusError(f"{path}: an object has no field '{field}' (its keys: {keys})")
        value = value[field]
    if not isinstance(value, str):
        kind = type(value).__name__
        raise CorpusError(f"{path}: a document is a string or an object with one, not {kind}")
    text, surrogates = without_surrogates(value)
    return text, wrong + surrogates


def without_surrogates(text: str) -> tuple[str, int]:
    """Replace lone surrogates, which JSON can spell and UTF-8 cannot."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        wrong = sum("\ud800" <= character <= "\udfff" for character in text)
        return re.sub("[\ud800-\udfff]", "�", text), wrong
    return text, 0
