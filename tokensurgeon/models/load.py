"""A checkpoint loaded for forward passes, after its folder has been checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokensurgeon.checkpoint import transformers_internals as internals
from tokensurgeon.checkpoint.checkpoint import Checkpoint
from tokensurgeon.checkpoint.fit import GIVE_OTHER
from tokensurgeon.checkpoint.layout import Layout
from tokensurgeon.errors import CheckpointError, reason
from tokensurgeon.models.device_map import (
    AUTO_DEVICE_MAP,
    check_device,
    device_map_options,
    rows_to_main_device,
)
from tokensurgeon.models.language_model import LanguageModel
from tokensurgeon.models.other_kinds import CLASSES


def load_model(
    path: str | Path,
    *,
    device: str = "cpu",
    dtype: str = "float32",
    trust_remote_code: bool = False,
) -> LanguageModel:
    """Load a checkpoint for forward passes.

    The folder is opened and checked as `Checkpoint.open` does before transformers reads it.

    Parameters
    ----------
    path : str or Path
    device : str
        A torch device, or ``"auto"``: blocks lie on all devices, in memory and on disk.
    dtype : str
        Of the forward passes, whatever the file's.
    trust_remote_code : bool

    Raises
    ------
    CheckpointError
        As `Checkpoint.open`, and where the weights do not fit the model exactly.
    """
    import torch

    check_device(device)
    checkpoint = Checkpoint.open(path, trust_remote_code=trust_remote_code)
    options = device_map_options() if device == AUTO_DEVICE_MAP else {}
    model = load_checked(
        checkpoint.path, dtype=dtype, trust_remote_code=trust_remote_code, **options
    )
    if options:
        rows_to_main_device(model, checkpoint, options["offload_folder"])
    else:
        model = model.to(torch.device(device))
    return as_model(model, checkpoint.layout)


def as_model(model: Any, layout: Layout) -> LanguageModel:
    """Wrap a loaded transformers model by its kind."""
    kind = CLASSES[layout.kind]
    return kind(model, logit_scale=layout.logit_scale, softcap=layout.softcap)


def load_checked(
    folder: Path, *, dtype: str, trust_remote_code: bool = False, **options: Any
) -> Any:
    """Load a folder through transformers; no tensor may be missing or misshapen.

    Names of tensors that the model has no use for are in its `unexpected_tensors`. `options` are
    for transformers.

    Raises
    ------
    CheckpointError
        Naming the first tensor that does not fit.
    """
    import torch

    try:
        config = internals.load_config(folder, trust_remote_code=trust_remote_code)
        with internals.quiet():
            model, info = internals.model_class(config).from_pretrained(
                folder,
                dtype=getattr(torch, dtype),
                output_loading_info=True,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=trust_remote_code,
                **options,
            )
    except MemoryError:
        raise
    except Exception as error:
        raise CheckpointError(
            f"transformers cannot load {folder}: {reason(error)}; mend what it names, or "
            "download the checkpoint again"
        ) from error
    for what in ("missing_keys", "mismatched_keys"):
        names = sorted(map(str, info[what]))
        if names:
            raise CheckpointError(
                f"{len(names)} tensors of {folder} are {what.split('_')[0]}, such as {names[0]}; "
                f"{GIVE_OTHER}"
            )
    model.unexpected_tensors = tuple(sorted(map(str, info["unexpected_keys"])))
    return model.eval()
