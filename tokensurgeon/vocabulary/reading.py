"""Reads the files of a tokenizer's folder: bounded in bytes, and refused by their own names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokensurgeon.errors import TokenizerError, reason

MOST_BYTES = 256 << 20
"""Bytes of a vocabulary's file: the largest tokenizer.json published has a few dozen MiB."""
MOST_TEMPLATE = 1 << 20
"""Bytes of a chat template: the longest published ones have some 20,000."""


def read_bytes(file: Path, most: int = MOST_BYTES) -> bytes:
    """Return the content of a plain file, of which never more than `most` bytes are read.

    Raises
    ------
    TokenizerError
        If it cannot be read, is no plain file (a folder, a device), or is larger.
    """
    if file.exists() and not file.is_file():
        what = "a folder" if file.is_dir() else "a device"
        raise TokenizerError(f"{file} is {what} and no file; remove it, or put the file there")
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:  # it may grow, or be a list of the system's without a size
            data = stream.read(most + 1) if size <= most else b""
    except OSError as error:
        raise TokenizerError(f"{file} cannot be read: {error.strerror}; restore it") from error
    if max(size, len(data)) > most:
        raise TokenizerError(f"{file} has more than {most >> 20} MiB; no such file has: restore it")
    return data


def read_text(file: Path, most: int = MOST_BYTES) -> str:
    """Return the text of a plain file in UTF-8; see `read_bytes`."""
    try:
        return read_bytes(file, most).decode("utf-8")
    except UnicodeDecodeError as error:
        raise TokenizerError(
            f"{file} is not UTF-8 text: byte {error.start} is {error.object[error.start]:#x}; "
            "save it as UTF-8"
        ) from error


def read_json(file: Path) -> dict[str, Any]:
    """Return a JSON object from a file; anything else is a TokenizerError.

    A key that an object has twice, with two values, is refused: every reader loses one of them.
    """
    try:
        document = json.loads(read_text(file), object_pairs_hook=_object)
    except _RepeatedKeyError as error:
        raise TokenizerError(
            f"{file} names {error.args[0][:40]!r} twice, with two values; remove one of the two"
        ) from error
    except (ValueError, RecursionError) as error:
        why = reason(error, 150)
        raise TokenizerError(f"{file} is not readable JSON: {why}; restore the file") from error
    if not isinstance(document, dict):
        raise TokenizerError(
            f"{file} holds a JSON {type(document).__name__}, not an object; restore the file"
        )
    return document


class _RepeatedKeyError(Exception):
    pass


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        for key, value in pairs:
            if table[key] != value:
                raise _RepeatedKeyError(key)
    return table


def read_template(folder: Path) -> str | None:
    """Return the chat template that stands in a file of its own, or None without such a file."""
    file = folder / "chat_template.jinja"
    return read_text(file, MOST_TEMPLATE) if file.exists() else None


def read_optional_json(file: Path) -> dict[str, Any]:
    """Return a JSON object from a file, or an empty one where there is none."""
    return read_json(file) if file.exists() else {}
