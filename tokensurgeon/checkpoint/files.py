"""A checkpoint folder, found and checked before any library opens it.

It refuses what could harm (pickle, names that leave the folder, links out of it) and what is not a
plain float checkpoint (adapters, quantised tensors). It does not know what the tensors mean.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from tokensurgeon.checkpoint.tensor_file import TensorFile, TensorInfo, read_tensor_file
from tokensurgeon.errors import (
    CheckpointError,
    UnsafeCheckpointError,
    UnsupportedCheckpointError,
    reason,
)
from tokensurgeon.vocabulary.hub import is_name, snapshot, split_revision

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
MODULES = "modules.json"
"""How sentence-transformers says of which modules a model consists."""
LICENCES = ("LICENSE*", "LICENCE*", "COPYING*", "NOTICE*", "USE_POLICY*")
MAX_JSON = 256 << 20
"""Bytes; the largest tokenizer.json of a released model has a few dozen MiB."""

MAX_DEPTH = 100
"""Of JSON in JSON: no file of a model nests half as deep, and what walks it would fall over."""

_QUANTISED = ("qweight", "qzeros", "scales", "g_idx", "weight_scale_inv", "weight_scale", "absmax",
              "SCB", "weight_packed", "quant_map", "weight_blocks", "weight_scales")  # fmt: skip
"""How names of tensors end in the checkpoints of GPTQ, AWQ, bitsandbytes, FP8, MXFP4 and others."""


@dataclass(frozen=True)
class TensorFolder:
    """The safetensors files of a checkpoint, with their headers.

    Attributes
    ----------
    files : dict of TensorFile
        By file name; one file, or the shards in the order of the index.
    where : dict of str
        Tensor name → file name.
    index : dict or None
        The content of the index file, if there is one.
    """

    files: Mapping[str, TensorFile]
    where: Mapping[str, str]
    index: dict[str, Any] | None

    def info(self, name: str) -> TensorInfo:
        """Return what the header says of a tensor."""
        return self.files[self.where[name]].tensors[name]

    def file_of(self, name: str) -> TensorFile:
        """Return the file that holds a tensor."""
        return self.files[self.where[name]]

    def same(self, a: str, b: str) -> bool:
        """Tell whether two tensors have one dtype, one shape and the same bytes."""
        first, second = self.info(a), self.info(b)
        if (first.dtype, first.shape) != (second.dtype, second.shape):
            return False
        pairs = zip(self.file_of(a).chunks(a), self.file_of(b).chunks(b), strict=True)
        return all(x == y for x, y in pairs)


def find_folder(path: str | Path) -> Path:
    """Return the folder of a checkpoint: a local one, or the snapshot of a model id.

    A model id, with a revision as in ``org/model@v2`` or without, is taken from the local hub
    cache, else downloaded (no pickle, no code).

    Raises
    ------
    CheckpointError
        Where there is neither a folder nor such a model.
    """
    if not str(path).strip():
        raise CheckpointError("the checkpoint has an empty name; give its folder or its model id")
    folder = Path(path).expanduser()
    if folder.is_dir():
        return folder
    if folder.is_file():
        raise CheckpointError(f"{path} is a file; give a checkpoint's folder in this place")
    name = str(path)
    model, _ = split_revision(name)
    if folder.exists() or not is_name(name) or model.count("/") != 1:
        raise CheckpointError(f"{path} is no folder and no model id; give a checkpoint's folder")
    suffixes = ("json", "safetensors", "jinja", "txt", "model", "spm", "tiktoken")
    patterns = [*(f"*.{suffix}" for suffix in suffixes), *LICENCES]
    try:
        return snapshot(name, patterns, local_only=True)
    except (OSError, ValueError):
        try:
            return snapshot(name, patterns, local_only=False)
        except Exception as error:
            raise CheckpointError(
                f"{name} is neither a folder nor a model that can be fetched: {reason(error)}; "
                "give the checkpoint's folder"
            ) from error


def check_inside(folder: Path, name: str) -> Path:
    """Return `folder / name`, after checking that it is a plain file of the folder.

    Raises
    ------
    UnsafeCheckpointError
        If the name is absolute or climbs, or a link leaves the folder, other than the hub
        cache's links from a snapshot to its blobs.
    CheckpointError
        If there is no such file.
    """
    pure = PurePosixPath(name)
    if not name or pure.is_absolute() or ".." in pure.parts or set(name) & set("\\\0:"):
        raise UnsafeCheckpointError(
            f"the checkpoint names the file {name[:120]!r}, which may leave its folder; refused"
        )
    path = folder / name
    try:
        exists = path.is_file()
    except OSError:  # a name longer than file systems have
        exists = False
    if not exists:
        raise CheckpointError(f"{folder} lacks {name[:120]}; download the checkpoint again")
    real, root = path.resolve(), folder.resolve()
    blobs = root.parent.parent / "blobs"
    in_cache = root.parent.name == "snapshots" and real.is_relative_to(blobs)
    if not real.is_relative_to(root) and not in_cache:
        raise UnsafeCheckpointError(
            f"{name[:120]} is a link out of the checkpoint's folder, to {real}; copy the file"
        )
    return path


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """Read a JSON object of the folder, bounded in size and depth.

    Raises
    ------
    UnsafeCheckpointError
        If it is too large, too deep, or no JSON object.
    """
    data = _read_value(folder, name)
    if not isinstance(data, dict):
        raise UnsafeCheckpointError(f"{folder.name}/{name} holds no JSON object; restore the file")
    return data


def _read_value(folder: Path, name: str) -> Any:
    path = check_inside(folder, name)
    size = path.stat().st_size
    if size > MAX_JSON:
        raise UnsafeCheckpointError(f"{name} has {size} bytes, more than {MAX_JSON}; refused")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UnsafeCheckpointError(
            f"{folder.name}/{name} is not plain JSON ({reason(error)}); restore the file"
        ) from error
    level = [data] if isinstance(data, (dict, list)) else []
    for _ in range(MAX_DEPTH):
        inner = [item.values() if isinstance(item, dict) else item for item in level]
        level = [item for items in inner for item in items if isinstance(item, (dict, list))]
        if not level:
            return data
    raise UnsafeCheckpointError(f"{folder.name}/{name} nests more than {MAX_DEPTH} deep; refused")


def read_modules(folder: Path) -> list[tuple[str, str]]:
    """Return the folder and the class of each module of sentence-transformers, in their order.

    The folder is a relative path, empty where the module lies beside `MODULES` itself; the list is
    empty where there is no such file.

    Raises
    ------
    UnsafeCheckpointError
        If it is no list of modules, or a path may leave the folder.
    """
    if not (folder / MODULES).exists():
        return []
    modules: list[tuple[str, str]] = []
    data = _read_value(folder, MODULES)
    for module in data if isinstance(data, list) else [None]:
        path = module.get("path") if isinstance(module, dict) else None
        kind = module.get("type") if isinstance(module, dict) else None
        if not isinstance(path, str) or not isinstance(kind, str):
            raise UnsafeCheckpointError(
                f"{folder.name}/{MODULES} is no list of modules with path and type; save the model "
                "with sentence-transformers again"
            )
        pure = PurePosixPath(path)
        if pure.is_absolute() or ".." in pure.parts or set(path) & set("\\\0:"):
            raise UnsafeCheckpointError(
                f"{folder.name}/{MODULES} names the folder {path[:120]!r}, which may leave it; "
                "refused"
            )
        modules.append(("/".join(pure.parts), kind))
    return modules


def read_optional_json(folder: Path, name: str) -> dict[str, Any] | None:
    """Read a JSON object of the folder if the file exists."""
    return read_json(folder, name) if (folder / name).exists() else None


def open_tensors(folder: Path) -> TensorFolder:
    """Find the safetensors files of a folder and check them all.

    Raises
    ------
    UnsafeCheckpointError
        On pickle-only folders, escaping names, broken headers, an index that disagrees.
    UnsupportedCheckpointError
        On adapters and quantised tensors.
    CheckpointError
        On missing files.
    """
    _refuse_adapters(folder)
    if (folder / SINGLE).exists():
        file = read_tensor_file(check_inside(folder, SINGLE))
        tensors = TensorFolder({SINGLE: file}, dict.fromkeys(file.tensors, SINGLE), None)
    elif (folder / INDEX).exists():
        tensors = _open_sharded(folder)
    else:
        raise _nothing_to_open(folder)
    for name in tensors.where:
        if name.rsplit(".", 1)[-1] in _QUANTISED:
            raise UnsupportedCheckpointError(
                f"the checkpoint is quantised (tensor {name[:120]}); patch the unquantised one"
            )
    return tensors


def _open_sharded(folder: Path) -> TensorFolder:
    index = read_json(folder, INDEX)
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise UnsafeCheckpointError(
            f"{folder}/{INDEX} has no weight_map that names files; download it again"
        )
    if not isinstance(index.get("metadata"), dict):
        raise UnsafeCheckpointError(
            f'{folder}/{INDEX} has no "metadata", without which transformers does not load it; '
            'add "metadata": {}'
        )
    for name in weight_map.values():
        if not isinstance(name, str) or not name.endswith(".safetensors"):
            raise UnsafeCheckpointError(
                f"{INDEX} names {str(name)[:120]!r}, which is no safetensors file; refused"
            )
        if "/" in name:  # transformers joins these names to the folder as they are
            raise UnsafeCheckpointError(
                f"{INDEX} names {name[:120]!r}, which is not directly in its folder; refused"
            )
    files = {
        name: read_tensor_file(check_inside(folder, name))
        for name in dict.fromkeys(weight_map.values())
    }
    for tensor, name in weight_map.items():
        if tensor not in files[name].tensors:
            raise UnsafeCheckpointError(
                f"{INDEX} says that {tensor[:120]} is in {name}, which lacks it; download both "
                "again"
            )
    for name, file in files.items():
        extra = [tensor for tensor in file.tensors if weight_map.get(tensor) != name]
        if extra:
            raise UnsafeCheckpointError(
                f"{name} holds {len(extra)} tensors that {INDEX} does not name there, "
                f"such as {extra[0][:120]}; download both again"
            )
    return TensorFolder(files, dict(weight_map), index)


def _refuse_adapters(folder: Path) -> None:
    has_weights = (folder / SINGLE).exists() or (folder / INDEX).exists()
    if has_weights and (folder / "adapter_config.json").exists():
        raise UnsupportedCheckpointError(
            f"{folder} holds an adapter (adapter_config.json) beside a model, and loaders take the "
            "adapter's base model for it; merge the two (peft: merge_and_unload), or move the "
            "adapter out of the folder"
        )
    for name in ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"):
        if (folder / name).exists() and not has_weights:
            raise UnsupportedCheckpointError(
                f"{folder} holds an adapter ({name}); merge it into its base model first "
                "(peft: merge_and_unload), then give the merged checkpoint"
            )


def _nothing_to_open(folder: Path) -> CheckpointError:
    modules = [path for path, kind in read_modules(folder) if kind.endswith(".Transformer")]
    models = [path for path in modules if (folder / path / SINGLE).exists()]
    if models:
        return CheckpointError(
            f"{folder} keeps its transformer in {models[0]}/, as {MODULES} says: give "
            f"{folder / models[0]}, and put the result in its place in a copy of {folder}"
        )
    pickles = sorted(p.name for p in folder.iterdir() if p.suffix in (".bin", ".pt", ".pth"))
    if pickles:
        return UnsafeCheckpointError(
            f"{folder} has its weights as pickle only ({pickles[0]}), which can run code; convert "
            "it where you trust it: AutoModelForCausalLM.from_pretrained(...).save_pretrained(...)"
        )
    others = sorted(p.name for p in folder.glob("*.safetensors"))
    if others:
        return CheckpointError(
            f"{folder} has {others[0]} but neither {SINGLE} nor {INDEX}; rename it or add the index"
        )
    return CheckpointError(f"{folder} has no {SINGLE}; give a checkpoint's folder")
