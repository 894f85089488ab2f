"""How a file becomes texts: plain text, JSON, JSON lines, Parquet and FASTA, compressed or not.

See `corpus` for what a document is.
"""

from __future__ import annotations

import codecs
import gzip
import json
import re
import sys
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from tokensurgeon.errors import CorpusError, reason

_SUFFIXES = (
    ".txt .text .md .markdown .rst .tex .csv .tsv .json .jsonl .ndjson .html .htm .xml .yaml .yml "
    ".toml .ini .cfg .log .srt .py .pyi .js .ts .jsx .tsx .c .h .cc .cpp .hpp .cs .go .rs .java "
    ".kt .swift .rb .php .pl .lua .r .jl .m .sh .bash .zsh .sql .scala .hs .ml .css .parquet "
    ".fa .fasta .fna"
)
TEXT_SUFFIXES = frozenset(_SUFFIXES.split())
"""What is read from a folder. A file that is named or matched by a glob may have any suffix."""

_JSON_LINES = (".jsonl", ".ndjson")
FASTA = {".fa", ".fasta", ".fna"}
_RECORD = re.compile(rb"[>;]")
END_OF_TEXT = "<|endoftext|>"
"""A line of plain text that holds only this ends a document."""
_SEPARATOR = re.compile(re.escape(END_OF_TEXT.encode()) + rb"\r?\n?\Z")
_UNREADABLE = {".bz2", ".xz", ".zip", ".tar", ".7z", ".arrow", ".pdf", ".docx"}
_COMPRESSED = (".gz", ".zst")
_TO_UTF8 = "{0}; convert it to UTF-8 (iconv -f {0} -t UTF-8)"
BEGINNINGS = {
    b"\xff\xfe\0\0": _TO_UTF8.format("UTF-32"),
    b"\0\0\xfe\xff": _TO_UTF8.format("UTF-32"),
    b"\xff\xfe": _TO_UTF8.format("UTF-16"),
    b"\xfe\xff": _TO_UTF8.format("UTF-16"),
    b"\x1f\x8b": "packed by gzip; let its name end in .gz",
    b"\x28\xb5\x2f\xfd": "packed by zstd; let its name end in .zst",
    b"PK\x03\x04": "a zip archive; unpack it",
}
"""How a file begins that is no text in UTF-8, and what to do with it."""
_ROWS = 256
"""Rows of a Parquet file held in memory at once: a row may be a whole book."""
_PIECE = 1 << 20
"""Bytes of a line that are read at once: a file may be one line of many GB."""
LONGEST_LINE = 256 << 20
"""Bytes of a line that is a document, or of a part of plain text: far more than a book."""
MOST_JSON = 1 << 30
"""Bytes of a .json file, which is read whole; ten times as much memory is needed to read it."""
_UNPACKED, _GROWTH = 64 << 20, 100
"""A packed file that has given more bytes than the first is refused where they are more than the
second times its own: text gives 3 to 20 times, what was made to fill a memory 1,000 and more."""


def suffix_of(path: Path) -> str:
    """Return the suffix of a file's name, that of its compression left out."""
    name = path.name.lower()
    for compression in _COMPRESSED:
        name = name.removesuffix(compression)
    return Path(name).suffix


def texts_of(
    path: Path,
    field: str,
    part_bytes: int | None = None,
    most: int | None = None,
    ends: Counter[str] | None = None,
) -> Iterator[tuple[str, int]]:
    """Yield each document of a file with the number of characters replaced in it.

    Parameters
    ----------
    path : Path
    field : str
        The key (or column) that holds the text.
    part_bytes : int or None
        Cut plain text at the first line end after this many bytes, so that a large file is never
        held in memory as a whole.
    most : int or None
        Of plain text, read no more than this many bytes, and a piece of a line.
    ends : Counter of str, optional
        Counts the lines that end a document.

    Raises
    ------
    CorpusError
        If the file cannot be read, or is not of the format its name says.
    """
    suffix = suffix_of(path)
    if suffix in _UNREADABLE or path.suffix.lower() in _UNREADABLE:
        raise CorpusError(f"{path}: {suffix} files are not read; unpack it to .txt, .jsonl or .gz")
    if suffix in (*_JSON_LINES, ".json"):
        for value, where, n_replaced in json_values(path):
            yield text_of_value(value, field, where, n_replaced)
    elif suffix == ".parquet":
        yield from _rows(path, field)
    elif suffix in FASTA:
        yield from _parts(path, _RECORD, most=most, strips=True)
    else:
        yield from _parts(path, _SEPARATOR, part_bytes, most, ends=ends)


def json_values(path: Path) -> Iterator[tuple[Any, str, int]]:
    """Yield each value of a file of JSON lines, or of the list that a JSON file is.

    Besides it, where it stands, for messages, and the number of characters replaced in it.

    Raises
    ------
    CorpusError
        If the file cannot be read, or is no JSON.
    """
    if suffix_of(path) in _JSON_LINES:
        for number, line in enumerate(_whole_lines(path), start=1):
            if line.strip():
                where = f"{path}, line {number}"
                text, n_replaced = _decode(line, path)
                yield _parse(text, where), where, n_replaced
        return
    text, n_replaced = _decode(_whole(path), path)
    data = _parse(text, str(path)) if text.strip() else []
    for number, value in enumerate(data if isinstance(data, list) else [data], start=1):
        yield value, f"{path}, entry {number}", n_replaced
        n_replaced = 0


def _parts(
    path: Path,
    border: re.Pattern[bytes],
    part_bytes: int | None = None,
    most: int | None = None,
    strips: bool = False,
    ends: Counter[str] | None = None,
) -> Iterator[tuple[str, int]]:
    """Yield the lines between borders, joined; the borders are left out, and counted in `ends`."""
    part: list[bytes] = []
    size = total = 0
    starts = True
    for piece in _pieces(path):
        line_ends = piece.endswith(b"\n")
        separates = starts and border.match(piece)
        if not separates:
            part.append(piece.strip() if strips else piece)
            size += len(piece)
            total += len(piece)
        elif ends is not None:
            ends[END_OF_TEXT] += 1
        starts = line_ends
        if most is not None and total >= most:
            break
        whole = part_bytes is not None and size >= part_bytes
        if separates or (whole and (line_ends or size >= LONGEST_LINE)):
            text, n_replaced, left = _decode_whole(b"".join(part), path)
            yield text, n_replaced
            part, size = [left], len(left)
    text, n_replaced, left = _decode_whole(b"".join(part), path)
    if left and (most is None or total < most):  # the file ends inside a character
        text, n_replaced = text + "\ufffd", n_replaced + 1
    yield text, n_replaced


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
                raise CorpusError(
                    f"{path} has no column '{field}' (it has {keys}); name another with --field"
                )
            for batch in file.iter_batches(_ROWS, columns=[field]):
                for value in batch.column(0).to_pylist():
                    yield text_of_value(value, field, str(path), 0)
    except (ArrowException, OSError) as error:
        raise CorpusError(f"{path} is not a whole Parquet file: write it again") from error


def texts_of_dataset(name: str, field: str) -> Iterator[tuple[str, int]]:
    """Yield each text of ``NAME[@CONFIG][:SPLIT]``, a dataset of the hub or a local folder.

    Raises
    ------
    CorpusError
        If the library is missing, the dataset cannot be loaded, or it has no such field.
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
        raise CorpusError(
            f"cannot load the dataset hf:{name}: {reason(error)}; check the name, or give files"
        ) from error
    for row in rows:
        yield text_of_value(row, field, f"hf:{name}", 0)


def _open(path: Path) -> BinaryIO:
    compression = path.suffix.lower()
    if compression == ".gz":
        return cast(BinaryIO, gzip.open(path, "rb"))
    if compression != ".zst":
        return path.open("rb")
    try:
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd
    except ImportError as error:
        raise CorpusError(
            f"{path}: .zst files need zstandard; pip install 'tokensurgeon[zstd]'"
        ) from error
    return cast(BinaryIO, zstd.open(path, "rb"))


def _pieces(path: Path) -> Iterator[bytes]:
    """Yield the lines of a file, decompressed, each with its line end; long ones in pieces."""
    packed = path.suffix.lower() in _COMPRESSED
    try:
        most = max(_UNPACKED, _GROWTH * path.stat().st_size) if packed else None
        total = 0
        with _open(path) as file:
            while piece := file.readline(_PIECE):
                yield piece
                total += len(piece)
                if most is not None and total > most:
                    raise CorpusError(
                        f"{path} unpacks to more than {_GROWTH} times its size, which text does "
                        "not; leave it out, or unpack it yourself"
                    )
    except Exception as error:
        # The class of zstd's error is in a module that may not be installed.
        is_broken = isinstance(error, EOFError | zlib.error | gzip.BadGzipFile)
        if is_broken or type(error).__name__ == "ZstdError":
            kind = "zstd" if path.suffix.lower() == ".zst" else "gzip"
            raise CorpusError(f"{path} is not a whole {kind} file: pack it again") from error
        if isinstance(error, OSError):
            raise CorpusError(f"cannot read {path}: {reason(error)}; check the path") from error
        raise


def _whole_lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of a file, each a document."""
    line: list[bytes] = []
    size, number = 0, 1
    for piece in _pieces(path):
        line.append(piece)
        size += len(piece)
        if size > LONGEST_LINE:
            raise CorpusError(
                f"{path}, line {number} is longer than {LONGEST_LINE:,} bytes; part the document"
            )
        if piece.endswith(b"\n"):
            yield b"".join(line)
            line, size, number = [], 0, number + 1
    if line:
        yield b"".join(line)


def _whole(path: Path) -> bytes:
    """Return a file that can only be read as a whole."""
    pieces: list[bytes] = []
    size = 0
    for piece in _pieces(path):
        pieces.append(piece)
        size += len(piece)
        if size > MOST_JSON:
            raise CorpusError(
                f"{path} has more than {MOST_JSON:,} bytes of JSON, which is read whole; write it "
                "as .jsonl, a document a line"
            )
    return b"".join(pieces)


def _decode(data: bytes, path: Path) -> tuple[str, int]:
    text, n_replaced, left = _decode_whole(data, path)
    return (f"{text}\ufffd", n_replaced + 1) if left else (text, n_replaced)


def _decode_whole(data: bytes, path: Path) -> tuple[str, int, bytes]:
    """Return the text, the number of characters replaced, and what begins a character at the end.

    Raises
    ------
    CorpusError
        If it begins as another encoding does, or as a packed file.
    """
    for start, what in BEGINNINGS.items():
        if data.startswith(start):
            raise CorpusError(f"{path} is {what}")
    text, n_read = codecs.utf_8_decode(data, "replace", False)
    n_replaced = text.count("\ufffd") - data.count("\ufffd".encode())
    return text.removeprefix("\ufeff"), n_replaced, data[n_read:]


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError as error:
        raise CorpusError(f"{where} is JSON nested too deep; write the text alone") from error
    except ValueError as error:  # no JSON, or an integer of more digits than Python reads
        reason = str(error).partition(";")[0]
        raise CorpusError(f"{where} is not JSON ({reason}); mend it, or name it .txt") from error


def text_of_value(value: Any, field: str, where: str, n_replaced: int) -> tuple[str, int]:
    """Return the text in a value of JSON or a row, and the number of characters replaced in it.

    `n_replaced` were replaced in decoding; lone surrogates are added. `where` names it in messages.

    Raises
    ------
    CorpusError
        If it holds none.
    """
    if isinstance(value, dict):
        if field not in value:
            keys = ", ".join(list(map(str, value))[:5]) or "none"
            raise CorpusError(
                f"{where}: an object has no field '{field}' (its keys: {keys}); name another with "
                "--field"
            )
        value = value[field]
    if not isinstance(value, str):
        kind = "null" if value is None else type(value).__name__
        raise CorpusError(
            f"{where}: a document is a string or an object with one, not {kind}; leave it out"
        )
    text, surrogates = without_surrogates(value)
    return text, n_replaced + surrogates


def without_surrogates(text: str) -> tuple[str, int]:
    """Replace lone surrogates, which JSON can spell and UTF-8 cannot; return their number too."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return re.subn("[\ud800-\udfff]", "�", text)
    return text, 0
