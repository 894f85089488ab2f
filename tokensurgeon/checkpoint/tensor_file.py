"""Safetensors files as headers and byte ranges: read and checked here, never by a library.

A file is eight bytes of header length, a JSON header, then the tensors' bytes without gaps. This
module parses and bounds the header and reads byte ranges. It does not interpret a model.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tokensurgeon.errors import UnsafeCheckpointError, reason

MAX_HEADER = 100 << 20
"""The bound of the safetensors library itself; a longer header is an attack or damage."""

CHUNK = 16 << 20
"""Bytes copied, hashed or compared at a time: far above a disk's own blocks, far below memory."""

_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8,
    "F8_E5M2FNUZ": 8, "F8_E4M3FNUZ": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "U16": 16, "I16": 16, "F16": 16, "BF16": 16,
    "U32": 32, "I32": 32, "F32": 32, "U64": 64, "I64": 64, "F64": 64, "C64": 64,
}  # fmt: skip
"""Bits of one value, by the dtypes of the safetensors format."""

FLOAT_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64"}
"""File dtypes that rows may have, with torch's names for them."""


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of a file: its dtype as the file spells it, shape, and bytes [begin, end)."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def n_bytes(self) -> int:
        """Size of the tensor's data."""
        return self.end - self.begin

    @property
    def row_bytes(self) -> int:
        """Bytes of one index of the first axis."""
        return self.n_bytes // self.shape[0] if self.shape and self.shape[0] else 0


@dataclass(frozen=True)
class TensorFile:
    """A safetensors file whose header has been checked.

    Attributes
    ----------
    tensors : dict of TensorInfo
        In the order of the header.
    header : bytes
        As stored, padding included.
    metadata : dict of str or None
    """

    path: Path
    header: bytes
    tensors: dict[str, TensorInfo]
    metadata: dict[str, str] | None

    @property
    def data_start(self) -> int:
        """Offset of the first tensor byte in the file."""
        return 8 + len(self.header)

    def in_data_order(self) -> list[TensorInfo]:
        """Return the tensors in the order of their bytes."""
        return sorted(self.tensors.values(), key=lambda info: (info.begin, info.end))

    def chunks(self, name: str) -> Iterator[bytes]:
        """Yield the raw bytes of a tensor, `CHUNK` at a time."""
        info = self.tensors[name]
        left = info.n_bytes
        with self.path.open("rb") as file:
            file.seek(self.data_start + info.begin)
            while left:
                data = file.read(min(CHUNK, left))
                if not data:
                    raise UnsafeCheckpointError(
                        f"{self.path} ended early, as if it changed while it was read; run again"
                    )
                left -= len(data)
                yield data

    def raw_rows(self, name: str) -> npt.NDArray[np.uint8]:
        """Return a tensor as a read-only map of bytes, (shape[0], bytes per row)."""
        info = self.tensors[name]
        shape = (info.shape[0], info.row_bytes)
        if info.n_bytes == 0:
            return np.zeros(shape, dtype=np.uint8)
        offset = self.data_start + info.begin
        return np.memmap(self.path, dtype=np.uint8, mode="r", offset=offset, shape=shape)


def read_tensor_file(path: Path) -> TensorFile:
    """Read and check the header of a safetensors file.

    Raises
    ------
    UnsafeCheckpointError
        On a header that is too long, truncated or not JSON; on duplicate names, unknown dtypes,
        shapes that do not fit their bytes, overlaps, gaps, or bytes past the end of the file.
    """
    try:
        if path.exists() and not path.is_file():
            raise UnsafeCheckpointError(f"{path} is no plain file; put the weights there")
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            if len(start) < 8:
                raise _broken(path, f"it has {size} bytes, fewer than the length of a header")
            length = struct.unpack("<Q", start)[0]
            if not 2 <= length <= min(MAX_HEADER, size - 8):
                raise _broken(path, f"its header claims {length} bytes in a file of {size}")
            header = file.read(length)
    except OSError as error:
        raise UnsafeCheckpointError(
            f"cannot read {path}: {error.strerror}; check the file"
        ) from error
    try:
        table = json.loads(header.decode("utf-8"), object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError) as error:
        raise _broken(path, f"its header is not plain JSON ({reason(error)})") from error
    if not isinstance(table, dict):
        raise _broken(path, "its header is no table of tensors")
    metadata = table.pop("__metadata__", None)
    if metadata is not None and not (
        isinstance(metadata, dict) and all(isinstance(value, str) for value in metadata.values())
    ):
        raise _broken(path, "its metadata are not strings")
    tensors = {name: _tensor(path, name, entry) for name, entry in table.items()}
    checked, end = TensorFile(path, header, tensors, metadata), 0
    for info in checked.in_data_order():
        if info.begin != end:
            raise _broken(path, f"the bytes of {info.name[:80]!r} overlap others or leave a gap")
        end = info.end
    n_bytes = size - checked.data_start
    if end != n_bytes:
        raise _broken(path, f"its tensors need {end} bytes and {n_bytes} follow the header")
    return checked


def _broken(path: Path, why: str) -> UnsafeCheckpointError:
    return UnsafeCheckpointError(
        f"{path.name} is not a sound safetensors file: {why}; download it again"
    )


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name occurs twice")
    return table


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63


def _tensor(path: Path, name: str, entry: Any) -> TensorInfo:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _broken(path, f"the entry of {name[:80]!r} has unexpected fields")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _BITS:
        raise _broken(path, f"{name[:80]!r} has the unknown dtype {str(dtype)[:20]!r}")
    if not isinstance(shape, list) or len(shape) > 16 or not all(map(_is_size, shape)):
        raise _broken(path, f"{name[:80]!r} has no proper shape")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(_is_size, offsets)):
        raise _broken(path, f"{name[:80]!r} has no proper offsets")
    bits = _BITS[dtype]
    for dimension in shape:  # Python's integers do not overflow, unlike a reader's in C
        bits *= dimension
    if bits % 8 or bits // 8 != offsets[1] - offsets[0]:
        raise _broken(path, f"{name[:80]!r} of shape {shape} does not fill its bytes")
    return TensorInfo(name, dtype, tuple(shape), offsets[0], offsets[1])
