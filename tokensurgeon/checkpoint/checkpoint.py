"""A checkpoint opened for surgery: its configuration, layout and vocabulary rows.

The model is not loaded; rows are read from their byte ranges. `models.load_model` runs it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tokensurgeon.arrays import ITEM_BYTES, Float32, blocks
from tokensurgeon.checkpoint import transformers_internals as internals
from tokensurgeon.checkpoint.files import (
    TensorFolder,
    find_folder,
    open_tensors,
    read_json,
    read_optional_json,
)
from tokensurgeon.checkpoint.fit import GIVE_OTHER
from tokensurgeon.checkpoint.layout import Layout, find_layout
from tokensurgeon.checkpoint.tensor_file import CHUNK, FLOAT_DTYPES
from tokensurgeon.errors import MisfitError, UnsupportedCheckpointError, reading


def rows_to_float32(raw: npt.NDArray[np.uint8], dtype: str) -> Float32:
    """Read raw rows (n, bytes per row) of a file dtype such as ``"BF16"`` as float32 (n, width)."""
    raw = np.ascontiguousarray(raw)
    if dtype == "BF16":  # a bfloat16 is the upper half of a float32
        return (raw.view("<u2").astype(np.uint32) << 16).view(np.float32)
    numpy_dtype = {"F32": "<f4", "F16": "<f2", "F64": "<f8"}[dtype]
    with np.errstate(over="ignore"):
        return raw.view(numpy_dtype).astype(np.float32)


def rows_to_raw(rows: Float32, dtype: str) -> npt.NDArray[np.uint8]:
    """Round float32 rows (n, width) to a file dtype, as raw rows (n, bytes per row)."""
    import torch

    tensor = torch.tensor(np.ascontiguousarray(rows, dtype=np.float32))
    tensor = tensor.to(getattr(torch, FLOAT_DTYPES[dtype]))
    raw: npt.NDArray[np.uint8] = tensor.contiguous().view(torch.uint8).numpy()
    return raw.reshape(rows.shape[0], -1)


def round_rows(rows: Float32, dtype: str) -> Float32:
    """Return float32 rows as they will be after a trip through a file of torch dtype `dtype`.

    `dtype` is a `Checkpoint.dtype`, such as ``"bfloat16"``.
    """
    if not rows.size:
        return rows.copy()
    name = next(name for name, torch_name in FLOAT_DTYPES.items() if torch_name == dtype)
    return rows_to_float32(rows_to_raw(rows, name), name).reshape(rows.shape)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint folder that has been checked, without its model loaded.

    Attributes
    ----------
    path : Path
        The folder.
    config : dict
        config.json as stored.
    generation_config : dict or None
        generation_config.json as stored.
    layout : Layout
        Which tensors are vocabulary-shaped.
    dtype : str
        torch's name of the dtype in which the rows are stored.
    max_positions : int or None
        The longest sequence the model can take, where it says so.
    n_layers, hidden_width : int
        Blocks of the model, and the width of the states that they pass on.
    tensors : TensorFolder
        Headers of the weight files.
    """

    path: Path
    config: dict[str, Any]
    generation_config: dict[str, Any] | None
    layout: Layout
    dtype: str
    max_positions: int | None
    n_layers: int
    hidden_width: int
    tensors: TensorFolder
    trust_remote_code: bool = False

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        trust_remote_code: bool = False,
        partial: bool = False,
    ) -> Checkpoint:
        """Open and check a checkpoint folder, or a model id of the hub (local cache first).

        With `partial` the folder may hold the vocabulary's tensors only (a donor).

        Raises
        ------
        UnsafeCheckpointError
            Pickle only, escaping names or links, broken headers.
        UnsupportedCheckpointError
            Adapters, quantised tensors, unknown families, tensors that are not understood.
        CheckpointError
            What is missing or contradicts itself.
        """
        folder = find_folder(path)
        tensors = open_tensors(folder)
        config = read_json(folder, "config.json")
        _refuse_quantised(folder, config, tensors)
        built = internals.load_config(folder, trust_remote_code=trust_remote_code)
        generation_config = read_optional_json(folder, "generation_config.json")
        with reading(f"{folder}/config.json", GIVE_OTHER):
            try:
                layout = find_layout(
                    built, tensors, trust_remote_code=trust_remote_code, partial=partial
                )
            except MisfitError as error:  # of two checkpoints, say which
                raise type(error)(f"{folder}: {error}") from error
            return cls(
                path=folder,
                config=config,
                generation_config=generation_config,
                layout=layout,
                dtype=FLOAT_DTYPES[tensors.info(layout.rows_key).dtype],
                max_positions=max_positions(built, layout.position_offset),
                n_layers=int(built.get_text_config().num_hidden_layers),
                hidden_width=int(built.get_text_config().hidden_size),
                tensors=tensors,
                trust_remote_code=trust_remote_code,
            )

    @property
    def n_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(self.tensors.info(name).n_bytes for name in self.tensors.where)

    def input_rows(self) -> Float32:
        """Return the input rows, float32 (n_rows, width), raw: without the model's multiplier.

        Rows that are not finite are returned as they are; the writer refuses them.
        """
        return self.read((self.layout.input_names or self.layout.output_names)[0])

    def output_rows(self) -> Float32:
        """Return the output rows, float32 (n_rows, width); equal to the input rows when tied."""
        return self.read((self.layout.output_names or self.layout.input_names)[0])

    def output_bias(self) -> Float32 | None:
        """Return the output bias, float32 (n_rows,), or None where the model has none."""
        if not self.layout.bias_names:
            return None
        return self.read(self.layout.bias_names[0][0]).reshape(-1)

    @cached_property
    def fingerprint(self) -> str:
        """A sha256 over the configuration, every header, and the bytes of the rows."""
        digest = hashlib.sha256((self.path / "config.json").read_bytes())
        for name in sorted(self.tensors.files):
            digest.update(self.tensors.files[name].header)
        for name in self.layout.names:
            for chunk in self.tensors.file_of(name).chunks(name):
                digest.update(chunk)
        return digest.hexdigest()

    def read(self, name: str) -> Float32:
        """Return a tensor of the files as float32 (n, values of each), n along its first axis."""
        file = self.tensors.file_of(name)
        info = file.tensors[name]
        raw = file.raw_rows(name)
        width = info.row_bytes // ITEM_BYTES[FLOAT_DTYPES[info.dtype]]
        rows = np.empty((info.shape[0], width), dtype=np.float32)
        for part in blocks(len(rows), CHUNK // info.row_bytes):
            rows[part] = rows_to_float32(raw[part], info.dtype)
        return rows


def _refuse_quantised(folder: Path, config: dict[str, Any], tensors: TensorFolder) -> None:
    """Refuse a configuration that says at any level how the weights are quantised."""
    for level in (config, *(value for value in config.values() if isinstance(value, dict))):
        for key in ("quantization_config", "compression_config"):
            if not level.get(key):
                continue
            dtypes = {tensors.info(name).dtype for name in tensors.where}
            if dtypes <= set(FLOAT_DTYPES):
                raise UnsupportedCheckpointError(
                    f"{folder}/config.json has a {key}, and all weights are plain "
                    f"{', '.join(sorted(dtypes))}, so they would be quantised whenever they are "
                    f"loaded; remove {key} from config.json"
                )
            raise UnsupportedCheckpointError(
                f"{folder}/config.json has a {key}: the checkpoint is quantised; patch the "
                "unquantised one"
            )


def max_positions(config: Any, offset: int = 0) -> int | None:
    """Return the number of positions that a transformers configuration allows, or None.

    `offset` of them are given to no token (see `embeddings.position_offset`).
    """
    text = config.get_text_config()
    names = (
        "max_position_embeddings",
        "max_encoder_position_embeddings",
        "max_decoder_position_embeddings",
        "max_target_positions",
    )
    values = [getattr(text, name, None) for name in names]
    return min((n - offset for n in values if isinstance(n, int) and n > 0), default=None)
