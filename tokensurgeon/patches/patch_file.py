"""The file of a patch: what it holds, and what is checked before any of it is believed.

It is a safetensors file. Its metadata hold the `Facts`, its tensors the rest:

``input.*``, ``output.*``
    How the rows of a side come about, see `PatchSide`; the output's only where it is untied.
``bias.remainder``
    What is added to the sums for the output bias; only where there is one.
``body:A:NAME``, ``body:B:NAME``
    The factors of a change of the body.
``file:NAME``
    The files of the tokenizer, and the records of the surgery.

Formats 1 and 2 (the second with a change of the body) have no checksum and no sketch of the source.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tokensurgeon.arrays import Float32, Ids
from tokensurgeon.checkpoint import BodyUpdate, round_rows
from tokensurgeon.checkpoint.likeness import Sketch
from tokensurgeon.checkpoint.tensor_file import TensorFile, read_tensor_file
from tokensurgeon.errors import CheckpointError, UnsafeCheckpointError, reason

FORMAT = 3
"""Of the files that are written. Older releases refuse it; this one reads 1 to 3."""
FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "seen.txt",
)
RECORDS = ("new_token_ids.json", "surgery/tokens.json")
SIDES = ("input", "output")
BODY, FILE, BIAS = "body:", "file:", "bias.remainder"
MOST_ROWS = 1 << 24
"""Ids of either vocabulary: sixty times the largest that was released."""
MOST_BYTES = 16 << 30
"""Of a patch: a remainder for each of a million rows of width 4096."""
_FORMAT = re.compile(r"tokensurgeon patch ([1-9]\d{0,8})\Z")
_DTYPES = {"I64": "<i8", "I32": "<i4", "F32": "<f4", "U8": "|u1"}
"""Of the tensors of a patch, with numpy's names."""
_PARTS: dict[str, tuple[str, int]] = {
    "copied": ("I64", 1),
    "weights.data": ("F32", 1),
    "weights.indices": ("I32", 1),
    "weights.indptr": ("I64", 1),
    "remainder_ids": ("I64", 1),
    "remainder": ("F32", 2),
}
"""Dtype and number of axes of each tensor of a side."""


class Facts(BaseModel):
    """What a patch says of its source and of itself."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    format: str
    source_vocabulary: str
    source_rows: int = Field(ge=1, le=MOST_ROWS)
    source_tied: bool
    tied: bool
    width: int = Field(ge=1, le=1 << 20)
    id_map: dict[str, int]
    chat_template: Literal["source", "target"]
    recipe: str
    sketch: Sketch | None = None
    sha256: str | None = None

    @property
    def version(self) -> int:
        """The number of the format."""
        match = _FORMAT.match(self.format)
        return int(match[1]) if match else 0


@dataclass(frozen=True)
class PatchSide:
    """How the rows of one side come about from a source's.

    Attributes
    ----------
    copied : int64 (n_target,)
        The source row that is taken bit for bit, or -1.
    weights : csr_array of float32 (n_target, n_source)
    remainder_ids : int64 (n_remainders,)
        Ascending; rows that are not copied.
    remainder : float32 (n_remainders, width)
        What is added to the sums of these.
    """

    copied: Ids
    weights: sp.csr_array
    remainder_ids: Ids
    remainder: Float32

    def rows(self, source: Float32, dtype: str) -> Float32:
        """Return the rows for a source, rounded as they will be written."""
        rows = np.asarray(self.weights @ source[: self.weights.shape[1]], dtype=np.float32)
        rows[self.remainder_ids] += self.remainder
        is_copied = self.copied >= 0
        rows[~is_copied] = round_rows(rows[~is_copied], dtype)
        rows[is_copied] = source[self.copied[is_copied]]
        return rows

    def to_arrays(self, name: str) -> dict[str, npt.NDArray[Any]]:
        """Return the arrays as a patch file names them."""
        csr = self.weights
        arrays: tuple[npt.NDArray[Any], ...] = (
            self.copied,
            csr.data.astype(np.float32),
            csr.indices.astype(np.int32),
            csr.indptr.astype(np.int64),
            self.remainder_ids,
            self.remainder,
        )
        return {f"{name}.{part}": one for part, one in zip(_PARTS, arrays, strict=True)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any], name: str, n_source: int) -> PatchSide:
        """Return a side of a patch file, checked.

        Raises
        ------
        ValueError
            Saying which of its numbers cannot be.
        """
        copied, data, indices, indptr, ids, remainder = (arrays[f"{name}.{p}"] for p in _PARTS)
        n_target = len(copied)
        if not 1 <= n_target <= MOST_ROWS:
            raise ValueError(f"it has {n_target:,} {name} rows, not 1 to {MOST_ROWS:,}")
        if copied.min() < -1 or copied.max() >= n_source:
            raise ValueError(
                f"the {name} rows copy row {_worst(copied, n_source)} of a source that has "
                f"{n_source:,}"
            )
        if len(indices) and (indices.min() < 0 or indices.max() >= n_source):
            raise ValueError(
                f"the {name} rows are sums over row {_worst(indices, n_source)} of a source that "
                f"has {n_source:,}"
            )
        counts = np.diff(indptr)
        whole = len(data) == len(indices) and len(indptr) == n_target + 1
        if not whole or (counts < 0).any() or indptr[0] != 0 or indptr[-1] != len(data):
            raise ValueError(f"the sparse weights of the {name} rows do not fit each other")
        if len(ids) != len(remainder) or (np.diff(ids) <= 0).any():
            raise ValueError(
                f"{len(ids):,} ids for {len(remainder):,} remainders of {name} rows, or one twice"
            )
        if len(ids) and (ids[0] < 0 or ids[-1] >= n_target or (copied[ids] >= 0).any()):
            raise ValueError(f"a remainder is of an {name} row that is copied, or is not there")
        if not (np.isfinite(data).all() and np.isfinite(remainder).all()):
            raise ValueError(f"the weights or remainders of the {name} rows hold NaN or Inf")
        weights = sp.csr_array((data, indices, indptr), shape=(n_target, n_source))
        weights.check_format(full_check=True)
        return cls(copied, weights, ids, remainder)


@dataclass(frozen=True)
class Patch:
    """What a patch file holds, checked.

    Attributes
    ----------
    facts : Facts
    sides : tuple of PatchSide
        One where the result is tied.
    bias : float32 (n_target,) or None
    body : BodyUpdate or None
    files : dict of bytes
        By the names of `FILES` and `RECORDS`.
    """

    facts: Facts
    sides: tuple[PatchSide, ...]
    bias: Float32 | None
    body: BodyUpdate | None
    files: dict[str, bytes]

    def to_bytes(self) -> bytes:
        """Return the file, with its checksum."""
        from safetensors.numpy import save

        arrays: dict[str, npt.NDArray[Any]] = {}
        for name, side in zip(SIDES, self.sides, strict=False):
            arrays |= side.to_arrays(name)
        if self.bias is not None:
            arrays[BIAS] = self.bias.astype(np.float32)
        if self.body is not None:
            arrays |= {f"{BODY}{name}": one for name, one in self.body.to_arrays().items()}
        for name, data in self.files.items():
            arrays[f"{FILE}{name}"] = np.frombuffer(data, np.uint8)
        arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        facts = self.facts.model_dump(exclude_none=True) | {"sha256": ""}
        facts["sha256"] = checksum(facts, arrays)
        return save(arrays, {"patch": json.dumps(facts, ensure_ascii=False)})


def read_patch(path: Path) -> Patch:
    """Read a patch, and check every number, key, shape and dtype in it.

    Raises
    ------
    CheckpointError
        If it is no patch, is of a newer release, was changed, or contradicts itself.
    """
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder; give a patch file, and then the checkpoint")
    if not path.is_file():
        raise CheckpointError(f"there is no patch file {path}; check the path")
    try:
        file = read_tensor_file(path)
    except UnsafeCheckpointError as error:
        raise CheckpointError(f"{path} is no patch file ({reason(error)}); give a patch") from error
    facts = _read_facts(path, (file.metadata or {}).get("patch"))
    try:
        arrays = _read_arrays(file, facts)
        if facts.version >= FORMAT:
            said = facts.model_dump(exclude_none=True) | {"sha256": ""}
            if facts.sha256 != checksum(said, arrays):
                raise ValueError("its content is not what its checksum says")
        return _checked(facts, arrays)
    except ValueError as error:
        raise CheckpointError(
            f"{path} is a damaged patch: {reason(error)}; fetch it again, or export it anew"
        ) from error


def _read_facts(path: Path, text: str | None) -> Facts:
    export = "export it again with 'patch export'"
    try:
        data = json.loads(text or "null", object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path} is no patch file: its facts are no JSON; {export}"
        ) from error
    version = _FORMAT.match(str(data.get("format"))) if isinstance(data, dict) else None
    if version is None:
        raise CheckpointError(
            f"{path} is no patch file of this version (format {FORMAT}): {export}"
        )
    if int(version[1]) > FORMAT:
        raise CheckpointError(
            f"{path} has format {version[1]}, and this release reads 1 to {FORMAT}: update "
            f"tokensurgeon, or {export}"
        )
    try:
        facts = Facts.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))[:80]
        raise CheckpointError(
            f"{path} is a damaged patch: '{key}': {first['msg']}; {export}"
        ) from error
    checked = (facts.sha256 is not None, facts.sketch is not None)
    if checked != (facts.version >= 3,) * 2:
        raise CheckpointError(
            f"{path} is a damaged patch: format {facts.version} "
            f"{'needs' if facts.version >= 3 else 'has no'} checksum and sketch; {export}"
        )
    return facts


def _read_arrays(file: TensorFile, facts: Facts) -> dict[str, npt.NDArray[Any]]:
    """Read the tensors, after their names, dtypes and shapes were looked at."""
    if sum(info.n_bytes for info in file.tensors.values()) > MOST_BYTES:
        raise ValueError(f"it has more than {MOST_BYTES:,} bytes")
    sides = SIDES[: 1 if facts.tied else 2]
    expected = {f"{side}.{part}": of for side in sides for part, of in _PARTS.items()}
    optional = {BIAS: ("F32", 1)}
    optional |= {f"{FILE}{name}": ("U8", 1) for name in (*FILES, *RECORDS)}
    body = {name for name in file.tensors if name.startswith((f"{BODY}A:", f"{BODY}B:"))}
    known = expected | optional | dict.fromkeys(body, ("F32", 2))
    for name, info in file.tensors.items():
        if name not in known:
            raise ValueError(f"it holds {name[:80]!r}, which no patch does")
        if (info.dtype, len(info.shape)) != known[name]:
            raise ValueError(f"{name[:80]} is {info.dtype} {list(info.shape)}")
    missing = [name for name in expected if name not in file.tensors]
    missing += [f"{FILE}{n}" for n in (FILES[0], *RECORDS) if f"{FILE}{n}" not in file.tensors]
    if missing:
        raise ValueError(f"it lacks {missing[0]}")
    arrays = {}
    for name, info in file.tensors.items():
        data = np.frombuffer(b"".join(file.chunks(name)), _DTYPES[info.dtype])
        arrays[name] = data.reshape(info.shape)
    return arrays


def _checked(facts: Facts, arrays: dict[str, npt.NDArray[Any]]) -> Patch:
    """Return the patch, if its parts fit each other."""
    names = SIDES[: 1 if facts.tied else 2]
    if facts.tied and not facts.source_tied:
        raise ValueError("its source has two matrices and its result one")
    sides = tuple(PatchSide.from_arrays(arrays, name, facts.source_rows) for name in names)
    n_target = len(sides[0].copied)
    if any(len(side.copied) != n_target for side in sides):
        raise ValueError("its two sides differ in their number of rows")
    if any(side.remainder.shape[1] != facts.width for side in sides):
        raise ValueError(f"its remainders do not have the width {facts.width}")
    for old, new in facts.id_map.items():
        if not (old.isascii() and old.isdecimal() and len(old) <= len(str(MOST_ROWS))):
            raise ValueError(f"its map of ids has the key {old[:40]!r}")
        if int(old) >= facts.source_rows or not 0 <= new < n_target:
            raise ValueError(
                f"its map of ids has {old} → {new}, of {facts.source_rows:,} and {n_target:,}"
            )
    bias = arrays.get(BIAS)
    if bias is not None and (len(bias) != n_target or not np.isfinite(bias).all()):
        raise ValueError(f"the bias does not hold {n_target:,} finite numbers")
    files = {n.removeprefix(FILE): a.tobytes() for n, a in arrays.items() if n.startswith(FILE)}
    _check_records(files, names, sides)
    return Patch(facts, sides, bias, _body(arrays), files)


def _body(arrays: Mapping[str, npt.NDArray[Any]]) -> BodyUpdate | None:
    """Return the change of the body that a patch file holds, if any."""
    factors = {name.removeprefix(BODY): a for name, a in arrays.items() if name.startswith(BODY)}
    for name, factor in factors.items():
        other = factors.get(("B" if name[0] == "A" else "A") + name[1:])
        ranks = [] if other is None else [factor.shape[name[0] == "A"], other.shape[name[0] == "B"]]
        if len(ranks) != 2 or ranks[0] != ranks[1] or not np.isfinite(factor).all():
            raise ValueError(f"the factors of the change of {name[2:82]} do not fit each other")
    return BodyUpdate.from_arrays(factors) if factors else None


def _check_records(
    files: Mapping[str, bytes], names: tuple[str, ...], sides: tuple[PatchSide, ...]
) -> None:
    """Check that the records of the surgery are of these rows: `explain` and `export` read them."""
    new, tokens = (_json(files[name], name) for name in RECORDS)
    n_target = len(sides[0].copied)
    ids = new.get("new_token_ids")
    if not isinstance(ids, list) or not all(type(i) is int and 0 <= i < n_target for i in ids):
        raise ValueError(f"{RECORDS[0]} names ids that are not below {n_target:,}")
    for name, side in zip(names, sides, strict=True):
        said = tokens.get(name)
        if not isinstance(said, dict) or said.get("copied") != side.copied.tolist():
            raise ValueError(f"{RECORDS[1]} is not the record of its {name} rows")
    for name in FILES[:3]:
        if name in files:
            _json(files[name], name)


def _json(data: bytes, name: str) -> dict[str, Any]:
    try:
        content = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} in it is no JSON") from error
    if not isinstance(content, dict):
        raise ValueError(f"{name} in it is no JSON object")
    return content


def checksum(facts: dict[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    """Return the sha256 over the facts, and over each tensor's name, shape, dtype and bytes."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(json.dumps([name, str(array.dtype), list(array.shape)]).encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a key occurs twice")
    return table


def _worst(ids: npt.NDArray[Any], n: int) -> int:
    """Return an id that is negative or not below `n`; -1 is none where rows are copied."""
    return int(ids.min() if ids.max() < n else ids.max())
