"""The patched weight files: untouched bytes copied, vocabulary rows streamed in the file's dtype.

Weights of the body are untouched, but for those that an update of it is merged into.

Order, names and metadata of the source's headers are kept, so a patch that changes nothing gives
the same file. Shards without vocabulary tensors are hard-linked, or copied to another file system.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from tokensurgeon.arrays import Float32, Ids, blocks
from tokensurgeon.checkpoint.checkpoint import rows_to_float32, rows_to_raw
from tokensurgeon.checkpoint.files import INDEX
from tokensurgeon.checkpoint.plan import PatchPlan
from tokensurgeon.checkpoint.tensor_file import CHUNK, TensorFile, TensorInfo
from tokensurgeon.errors import UnsafeCheckpointError


@dataclass(frozen=True)
class _Replacement:
    """New rows of one tensor; `origin` is the file key whose raw rows are copied.

    `axis` counts the tokens; along axis 1 the first has one entry.
    """

    origin: str
    rows: Float32
    copied: Ids
    axis: int = 0


def write_tensors(plan: PatchPlan, folder: Path) -> None:
    """Write the weight files of a plan (and their index) into `folder`.

    Raises
    ------
    UnsafeCheckpointError
        If a row to be written is not finite, unless copied rows may be, or a merged weight.
    """
    tensors = plan.checkpoint.tensors
    replaced, merged = _replacements(plan), plan.body_keys
    added = {key: new for key, new in replaced.items() if key not in tensors.where}
    for name, file in tensors.files.items():
        own = {
            key: new
            for key, new in replaced.items()
            if tensors.where[new.origin if key in added else key] == name
        }
        if own or not merged.keys().isdisjoint(file.tensors):
            _write_file(plan, file, own, merged, folder / name)
        else:
            try:
                os.link(file.path.resolve(), folder / name)
            except OSError:  # another file system, or one that gives no second names
                shutil.copyfile(file.path, folder / name)
    _write_index(plan, added, folder)


def _replacements(plan: PatchPlan) -> dict[str, _Replacement]:
    layout = plan.checkpoint.layout
    inputs, outputs = list(layout.input_names), list(layout.output_names)
    biases = dict(layout.bias_names)
    if plan.untie:
        inputs, outputs = inputs or [layout.input_key], outputs or [layout.head_key]
        inputs += [name for name in layout.untied_inputs if name not in inputs]
        biases |= dict.fromkeys(layout.untied_biases, 0)
    known = plan.checkpoint.tensors.where
    replaced = {}
    for names, rows, copied in (
        (inputs, plan.input_rows, plan.copied_input),
        (outputs, plan.output_rows, plan.copied_output),
    ):
        for name in names:
            origin = name if name in known else layout.rows_key
            replaced[name] = _Replacement(origin, rows, copied)
    if plan.output_bias is not None:
        bias = plan.output_bias[:, None]
        for name, axis in biases.items():
            origin = name if name in known else layout.bias_names[0][0]
            replaced[name] = _Replacement(origin, bias, plan.copied_output, axis)
    return replaced


def _write_file(
    plan: PatchPlan,
    file: TensorFile,
    replaced: dict[str, _Replacement],
    merged: dict[str, str],
    path: Path,
) -> None:
    """Write one weight file with some tensors replaced, and new ones after their origin.

    `merged` names the update's weight of a file key.
    """
    order: list[str] = []
    for info in file.in_data_order():
        order.append(info.name)
        order += [
            name
            for name, new in replaced.items()
            if name not in file.tensors and new.origin == info.name
        ]
    infos: dict[str, TensorInfo] = {}
    offset = 0
    for name in order:
        info = _new_info(plan, file, name, replaced.get(name), offset)
        infos[name] = info
        offset = info.end
    with path.open("xb") as target:
        header = _header(file, infos)
        target.write(struct.pack("<Q", len(header)))
        target.write(header)
        for name in order:
            if name in replaced:
                _write_rows(plan, file, name, replaced[name], target)
            elif name in merged:
                _write_merged(plan, name, merged[name], target)
            else:
                for chunk in file.chunks(name):
                    target.write(chunk)


def _new_info(
    plan: PatchPlan, file: TensorFile, name: str, new: _Replacement | None, offset: int
) -> TensorInfo:
    old = file.tensors[name if new is None else new.origin]
    if new is None:
        return TensorInfo(name, old.dtype, old.shape, offset, offset + old.n_bytes)
    shape = (*old.shape[: new.axis], plan.n_new, *old.shape[new.axis + 1 :])
    per_id = old.n_bytes // old.shape[new.axis]
    return TensorInfo(name, old.dtype, shape, offset, offset + plan.n_new * per_id)


def _header(file: TensorFile, infos: dict[str, TensorInfo]) -> bytes:
    if infos == file.tensors:
        return file.header
    names = [*file.tensors, *(name for name in infos if name not in file.tensors)]
    table: dict[str, Any] = {} if file.metadata is None else {"__metadata__": file.metadata}
    for name in names:
        info = infos[name]
        table[name] = {
            "dtype": info.dtype,
            "shape": list(info.shape),
            "data_offsets": [info.begin, info.end],
        }
    text = json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    return text + b" " * (-len(text) % 8)


def _write_rows(
    plan: PatchPlan, file: TensorFile, name: str, new: _Replacement, target: BinaryIO
) -> None:
    """Write rows in blocks: copied rows as stored, the others rounded to the file's dtype."""
    info = file.tensors[new.origin]
    per_id = info.n_bytes // info.shape[new.axis]
    source = file.raw_rows(new.origin).reshape(-1, per_id)
    for part in blocks(len(new.copied), CHUNK // per_id):
        copied = new.copied[part]
        is_copy = copied >= 0
        raw = np.empty((len(copied), per_id), dtype=np.uint8)
        raw[is_copy] = source[copied[is_copy]]
        if not is_copy.all():
            raw[~is_copy] = rows_to_raw(new.rows[part][~is_copy], info.dtype)
        refused = ~np.isfinite(rows_to_float32(raw, info.dtype)).all(axis=1)
        if plan.allow_nonfinite:
            refused &= ~is_copy
        if refused.any():
            at = int(refused.argmax())
            raise UnsafeCheckpointError(
                f"the row of id {part.start + at} in {name} is not finite; "
                + (
                    "give --allow-nonfinite to keep it"
                    if is_copy[at]
                    else "choose another method with --init"
                )
            )
        target.write(raw.tobytes())


def _write_merged(plan: PatchPlan, key: str, name: str, target: BinaryIO) -> None:
    """Write a weight of the body with its change, in the file's dtype."""
    assert plan.body is not None
    raw = rows_to_raw(
        plan.body.merged(name, plan.checkpoint.read(key)), plan.checkpoint.tensors.info(key).dtype
    )
    if not np.isfinite(rows_to_float32(raw, plan.checkpoint.tensors.info(key).dtype)).all():
        raise UnsafeCheckpointError(
            f"{key} is not finite once the update of the body is merged into it: leave out "
            "--heal-body"
        )
    target.write(raw.tobytes())


def _write_index(plan: PatchPlan, added: dict[str, _Replacement], folder: Path) -> None:
    """Write the index, if there is one: as it was, with new tensors and sizes."""
    tensors = plan.checkpoint.tensors
    if tensors.index is None:
        return
    layout = plan.checkpoint.layout
    if plan.n_new == layout.n_rows and not added:
        shutil.copyfile(plan.checkpoint.path / INDEX, folder / INDEX)
        return
    index = dict(tensors.index)
    where = dict(tensors.where)
    for name, new in added.items():
        where[name] = where[new.origin]
    index["weight_map"] = dict(sorted(where.items()))
    more_bytes = more_values = 0
    for name in (*layout.names, *added):
        old = tensors.info(added[name].origin if name in added else name)
        rows = plan.n_new - (0 if name in added else layout.n_rows)
        more_bytes += rows * old.n_bytes // layout.n_rows
        more_values += rows * int(np.prod(old.shape, dtype=np.int64)) // layout.n_rows
    metadata = dict(index.get("metadata") or {})
    metadata["total_size"] = plan.checkpoint.n_bytes + more_bytes
    if isinstance(metadata.get("total_parameters"), int):
        metadata["total_parameters"] += more_values
    index["metadata"] = metadata
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
