"""Whether the files hold the model that the configuration describes: no less, and no more.

transformers fills what is missing with random numbers, and leaves out what it has no place for.
Either way another model runs than the one that was trained, so both are refused here, before
anything is computed. What stands beside the model changes nothing that it computes: a pooler, a
second head, a tower for images, a block that predicts further tokens. It is named, not refused.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from tokensurgeon.checkpoint import transformers_internals as internals
from tokensurgeon.checkpoint.files import TensorFolder
from tokensurgeon.checkpoint.tensor_file import FLOAT_DTYPES
from tokensurgeon.errors import MisfitError, UnsupportedCheckpointError

if TYPE_CHECKING:
    from torch import nn

_BESIDE = re.compile(
    r"pool|visual|vision|image|video|audio|speech|projector|mtp|nextn|talker", re.IGNORECASE
)
"""What parts of a body are called that the model can do without."""
_FURTHER_BLOCK = re.compile(r"^(eh_proj|enorm|hnorm|embed_tokens|shared_head)\b")
"""Parts that only a block has which predicts further tokens (DeepSeek-V3, GLM-4)."""
_CONSTANT = re.compile(
    r"(^|\.)(\w*inv_freq|(cos|sin)_cached|(position|token_type)_ids|masked_bias|version)$"
)
"""Buffers that older releases stored, and that models work out themselves."""

GIVE_OTHER = "give the config.json that was saved with these weights"
"""The next step where both do not fit."""


def check_fit(
    model: nn.Module,
    tensors: TensorFolder,
    names: internals.LoadedNames,
    claimed: Collection[str],
) -> tuple[str, ...]:
    """Hold the files against a model without memory.

    Parameters
    ----------
    model : nn.Module
        Of the configuration, on the meta device.
    tensors : TensorFolder
    names : LoadedNames
        Which parameters the files' keys are loaded into.
    claimed : collection of str
        File keys that are understood already, such as copies of vocabulary rows.

    Returns
    -------
    tuple of str
        File keys that the model does not use and can do without.

    Raises
    ------
    MisfitError
        Where tensors are missing, have another shape, or are more than the configuration says.
    UnsupportedCheckpointError
        Where weights are stored as whole numbers or in 8 bits.
    """
    parameters = dict(model.state_dict())
    _refuse_dtypes(tensors, names.one, parameters)
    _refuse_missing(model, names, parameters)
    for key, name in names.unconverted.items():
        if name in parameters and tensors.info(key).shape != tuple(parameters[name].shape):
            raise MisfitError(
                f"{key} has the shape {list(tensors.info(key).shape)}, and by config.json it is "
                f"{list(parameters[name].shape)}; {GIVE_OTHER}"
            )
    unused = {
        key: name
        for key, name in names.one.items()
        if name not in parameters and key not in claimed
    }
    return _beside(model, tensors, unused)


def _refuse_dtypes(
    tensors: TensorFolder, names: Mapping[str, str], parameters: Mapping[str, Any]
) -> None:
    for key, name in names.items():
        dtype = tensors.info(key).dtype
        parameter = parameters.get(name)
        if parameter is not None and parameter.is_floating_point() and dtype not in FLOAT_DTYPES:
            raise UnsupportedCheckpointError(
                f"{key} is stored as {dtype}, and its model computes with plain floats; it is "
                "quantised, or damaged: give the unquantised checkpoint"
            )


def _refuse_missing(
    model: nn.Module, names: internals.LoadedNames, parameters: Mapping[str, Any]
) -> None:
    missing = internals.missing_names(model, names.every)
    if not missing:
        return
    if _are_vocabulary_rows(model, set(parameters).difference(missing)):
        raise MisfitError(
            "the files hold rows of a vocabulary and no model, as a donor's may; give the whole "
            "checkpoint where the model itself is run"
        )
    counted = _numbered(model, parameters, names.every)
    if counted is not None:
        raise MisfitError(counted)
    raise MisfitError(
        f"the files lack {len(missing)} of the {len(parameters)} tensors that config.json asks "
        f"for, such as {missing[0]}; download them again, or {GIVE_OTHER}"
    )


def _are_vocabulary_rows(model: Any, stored: Collection[str]) -> bool:
    """Tell whether what is stored of a model are its input and output rows and nothing else."""
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    rows = {id(getattr(end, "weight", None)) for end in ends}
    named = dict(model.named_parameters(remove_duplicate=False))
    return bool(stored) and all(name in named and id(named[name]) in rows for name in stored)


def _numbered(model: nn.Module, *names: Collection[str]) -> str | None:
    """Return a message where a list of modules has another length in the files."""
    from torch import nn

    for path, module in model.named_modules():
        if not isinstance(module, nn.ModuleList) or not path:
            continue
        said, stored = (_length(path, one) for one in names)
        if said != stored and stored:
            return (
                f"config.json describes {said} of {path}, and the files hold {stored}; {GIVE_OTHER}"
            )
    return None


def _length(path: str, names: Collection[str]) -> int:
    """Return how many members of a list some names are of."""
    start = f"{path}."
    numbers = (name[len(start) :].partition(".")[0] for name in names if name.startswith(start))
    return max((int(number) + 1 for number in numbers if number.isdecimal()), default=0)


def _beside(model: nn.Module, tensors: TensorFolder, unused: Mapping[str, str]) -> tuple[str, ...]:
    """Return which unused tensors the model can do without; refuse if there are others."""
    ignored = internals.ignored_by_transformers(model)
    modules = dict(model.named_modules())
    body = str(getattr(model, "base_model_prefix", "") or "")
    body = body if body in modules else ""
    buffers = {name for name, _ in model.named_buffers()}
    beside, inside = [], {}
    for key, name in unused.items():
        if name in buffers or _CONSTANT.search(name) or _is_mask(tensors.info(key).shape):
            continue
        if ignored(name) or _stands_beside(name, modules, body, unused.values()):
            beside.append(key)
        else:
            inside[key] = name
    if inside:
        known = set(model.state_dict())
        counted = _numbered(model, known, known | set(inside.values()))
        raise MisfitError(
            counted
            or f"{next(iter(inside))}, one of {len(inside)} in the files, has no place in "
            f"{type(model).__name__} as config.json describes it, which would compute something "
            f"else without; {GIVE_OTHER}"
        )
    return tuple(beside)


def _is_mask(shape: tuple[int, ...]) -> bool:
    """Tell a stored causal mask, (1, 1, n, n)."""
    return len(shape) == 4 and shape[:2] == (1, 1) and shape[2] == shape[3]


def _stands_beside(
    name: str, modules: Mapping[str, nn.Module], body: str, unused: Collection[str]
) -> bool:
    """Say whether a tensor is of a part that the layers of the model do not hold.

    `body` is the path of what is below the heads, or empty where the model has no head.
    """
    parts = name.split(".")
    paths = (".".join(parts[:n]) for n in reversed(range(len(parts))))
    owner = next(path for path in paths if path in modules)
    child, *rest = name.removeprefix(f"{owner}." if owner else "").split(".")
    if not owner:
        return bool(rest)  # another head, or a tower
    if owner == body:
        return bool(_BESIDE.search(child))
    if body and not owner.startswith(f"{body}."):  # in a head: another beside it, if none of it
        return next(modules[owner].parameters(recurse=False), None) is None
    start = f"{owner}.{child}."
    others = (other.removeprefix(start) for other in unused if other.startswith(start))
    return child.isdecimal() and any(map(_FURTHER_BLOCK.search, others))
