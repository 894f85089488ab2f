"""A model whose blocks lie on several devices, in memory and on disk, by accelerate's device map.

A block is fetched when it runs. The vocabulary's rows stay on the first device, as plain tensors:
they are what a surgery exchanges.
"""

from __future__ import annotations

import atexit
import importlib.util
import shutil
import tempfile
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np

from tokensurgeon.arrays import Float32
from tokensurgeon.checkpoint.checkpoint import Checkpoint
from tokensurgeon.checkpoint.embeddings import FINAL_BIAS
from tokensurgeon.errors import MissingExtraError, UsageError
from tokensurgeon.models.row_replacement import replace_rows

if TYPE_CHECKING:
    import torch

AUTO_DEVICE_MAP = "auto"
"""The device that stands for all of them; accelerate's own word."""


def check_device(device: str) -> None:
    """Refuse a device that is not here, before anything is read.

    Raises
    ------
    UsageError
        If torch has no such device.
    MissingExtraError
        If a device map is asked for and accelerate is not installed.
    """
    if device == AUTO_DEVICE_MAP:
        if importlib.util.find_spec("accelerate") is None:
            raise MissingExtraError("--device auto needs accelerate; run: pip install accelerate")
        return
    if device == "cpu":
        return
    import torch

    try:
        torch.empty(0, device=device).cpu()  # "meta" has no values to give
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UsageError(
            f"torch has no device {device!r} here; give cpu, cuda:0 or the like, or auto"
        ) from error


def main_device(device: str) -> str:
    """Return the device on which rows are computed: of "auto" the first GPU, or the CPU."""
    if device != AUTO_DEVICE_MAP:
        return device
    import torch

    return "cuda:0" if torch.cuda.is_available() else "cpu"


def device_map_options(max_memory: dict[Any, Any] | None = None) -> dict[str, Any]:
    """Return what transformers is to be told, with a new folder for blocks that go to disk."""
    folder = tempfile.mkdtemp(prefix="tokensurgeon-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)  # where no model is made of it
    options = {"device_map": AUTO_DEVICE_MAP, "offload_folder": folder}
    return options | ({} if max_memory is None else {"max_memory": max_memory})


def rows_to_main_device(model: Any, checkpoint: Checkpoint, folder: str) -> None:
    """Put the vocabulary's rows of a model with a device map on its first device, in place.

    `folder`, where blocks lie on disk, is removed with the model.
    """
    import torch
    from accelerate.hooks import remove_hook_from_module

    weakref.finalize(model, shutil.rmtree, folder, ignore_errors=True)
    device = torch.device(main_device(AUTO_DEVICE_MAP))
    inner, outer = model.get_input_embeddings(), model.get_output_embeddings()
    for module in (inner, outer):
        if module is not None:
            remove_hook_from_module(module)

    def parameter(rows: Float32 | None) -> torch.nn.Parameter | None:
        if rows is None:
            return None
        values = torch.from_numpy(np.ascontiguousarray(rows)).to(device, model.dtype)
        return torch.nn.Parameter(values, requires_grad=False)

    inputs = parameter(checkpoint.input_rows())
    outputs = inputs if checkpoint.layout.tied else parameter(checkpoint.output_rows())
    replace_rows(model, inputs, outputs, parameter(checkpoint.output_bias()))
    if hasattr(model, FINAL_BIAS):
        setattr(model, FINAL_BIAS, getattr(model, FINAL_BIAS).to(device))
    if outer is not None:
        outer.register_forward_pre_hook(
            lambda module, args: tuple(states.to(module.weight.device) for states in args)
        )


def offloaded_weights(model: Any) -> dict[int, Any]:
    """Return, by ``id``, the tables of blocks on disk, which copies of a model share."""
    hooks = [getattr(module, "_hf_hook", None) for module in model.modules()]
    tables = [getattr(hook, "weights_map", None) for hook in hooks]
    return {id(table): table for table in tables if table is not None}
