"""A model spread over all devices, memory and disk, by accelerate's device map.

Its blocks lie where there is room and are fetched when they run. The vocabulary's rows stay on the
first device, as plain tensors: they are what a surgery exchanges.
"""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np

from tokensurgeon.checkpoint.checkpoint import Checkpoint, Rows
from tokensurgeon.checkpoint.embeddings import FINAL_BIAS
from tokensurgeon.errors import MissingExtraError, UsageError
from tokensurgeon.models.row_replacement import replace_rows

if TYPE_CHECKING:
    import torch

SPREAD = "auto"


def check_device(device: str) -> None:
    """Refuse a device that is not here, before anything is read.

    Raises
    ------
    UsageError
        If torch has no such device.
    MissingExtraError
        If the model is to be spread and accelerate is not installed.
    """
    if device == SPREAD:
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
    if device != SPREAD:
        return device
    import torch

    return "cuda:0" if torch.cuda.is_available() else "cpu"


def spread_options(max_memory: dict[Any, Any] | None = None) -> dict[str, Any]:
    """Return what transformers is to be told; the folder for what goes to disk is new."""
    options = {"device_map": SPREAD, "offload_folder": tempfile.mkdtemp(prefix="tokensurgeon-")}
    return options | ({} if max_memory is None else {"max_memory": max_memory})


def bring_rows_home(model: Any, checkpoint: Checkpoint, folder: str) -> None:
    """Put the vocabulary's rows of a model that is spread on its first device; it is changed.

    Parameters
    ----------
    folder : str
        Where blocks lie on disk; it goes when the model goes.
    """
    import torch
    from accelerate.hooks import remove_hook_from_module

    weakref.finalize(model, shutil.rmtree, folder, ignore_errors=True)
    device = torch.device(main_device(SPREAD))
    inner, outer = model.get_input_embeddings(), model.get_output_embeddings()
    for module in (inner, outer):
        if module is not None:
            remove_hook_from_module(module)
    dtype = model.dtype

    def parameter(rows: Rows | None) -> torch.nn.Parameter | None:
        if rows is None:
            return None
        values = torch.from_numpy(np.ascontiguousarray(rows)).to(device, dtype)
        return torch.nn.Parameter(values, requires_grad=False)

    inputs = parameter(checkpoint.input_rows())
    outputs = inputs if checkpoint.layout.tied else parameter(checkpoint.output_rows())
    replace_rows(model, inputs, outputs, parameter(checkpoint.output_bias()))
    if hasattr(model, FINAL_BIAS):
        setattr(model, FINAL_BIAS, getattr(model, FINAL_BIAS).to(device))
    if outer is not None:
        outer.register_forward_pre_hook(_here)


def _here(module: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Bring states to the output rows."""
    return tuple(each.to(module.weight.device) for each in args)


def shared_with_copies(model: Any) -> dict[int, Any]:
    """Return what copies of a model share besides its parameters: blocks that lie elsewhere."""
    hooks = [getattr(module, "_hf_hook", None) for module in model.modules()]
    places = [getattr(hook, "weights_map", None) for hook in hooks]
    return {id(place): place for place in places if place is not None}
