"""SentencePiece's compiled table of replacements, checked before a library follows it.

The table is a double array (darts-clone) that says for a run of bytes where its replacement begins,
and then the replacements, each ended by a zero byte. Libraries that read it trust its numbers.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

import numpy as np

LONGEST = 256
"""Bytes of one replacement: the longest that Unicode's own forms need has 33."""

_BLOCK = 256
"""Units that a node may lead to: one for each value of a byte."""
_VALUE = (1 << 31) - 1
"""The bits of a leaf that say where its replacement begins."""


def stored_problem(stored: Any) -> str | None:
    """Return what is wrong with a table as tokenizer.json has it, in base64; None if nothing is."""
    try:
        data = base64.b64decode(stored, validate=True)
    except (TypeError, ValueError, binascii.Error):
        return "is no base64"
    return charsmap_problem(data)


def charsmap_problem(data: bytes) -> str | None:
    """Return what is wrong with a table; None if nothing is.

    Examples
    --------
    >>> charsmap_problem(bytes([0, 0, 0, 255, 255, 255, 255]))
    'says that its array has 4,278,190,080 bytes, and has 7 in all'
    """
    size = int.from_bytes(data[:4], "little")
    if size % 4 or not 4 <= size <= len(data) - 4:
        return f"says that its array has {size:,} bytes, and has {len(data):,} in all"
    units = np.frombuffer(data, "<u4", size // 4, 4).astype(np.int64)
    texts = data[4 + size :]
    try:
        texts.decode("utf-8")
    except UnicodeDecodeError as error:
        return f"has replacements that are not UTF-8, at byte {error.start}"
    places = np.arange(len(units))
    first = places ^ ((units >> 10) << ((units & (1 << 9)) >> 6))
    inner = units >> 31 == 0
    inner[0] = True  # the root is followed, whatever it says of itself
    outside = inner & ((first | (_BLOCK - 1)) >= len(units))
    if outside.any():
        return f"leads out of its array of {len(units):,} units at unit {int(outside.argmax())}"
    begins = units[first[inner & (units >> 8 & 1 == 1)]] & _VALUE
    letters = np.frombuffer(texts, np.uint8)
    if begins.size and begins.max() >= len(letters):
        return f"leads to byte {begins.max():,} of {len(letters):,} bytes of replacements"
    if (letters[begins] >> 6 == 2).any():
        return "has a replacement that begins inside a character"
    ends = np.append(np.flatnonzero(letters == 0), len(letters))
    longest = int((ends[np.searchsorted(ends, begins)] - begins).max(initial=0))
    if longest > LONGEST:
        return f"replaces a character by {longest:,} bytes; at most {LONGEST} are read"
    return None
