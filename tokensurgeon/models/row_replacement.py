"""A model in memory is given other vocabulary matrices, under every name that they have.

Weights of its body are changed in the same way: by other tensors, never in place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tokensurgeon.arrays import to_float32
from tokensurgeon.checkpoint.body_update import BodyUpdate
from tokensurgeon.checkpoint.embeddings import FINAL_BIAS
from tokensurgeon.errors import CheckpointError

if TYPE_CHECKING:
    import torch


def replace_rows(model: Any, inputs: Any, outputs: Any, bias: Any) -> None:
    """Give a model other matrices (parameters), under every name that they have; it is changed.

    `outputs` and `bias` are None where the model has no such.
    """
    inner, outer = model.get_input_embeddings(), model.get_output_embeddings()
    old_input = inner.weight
    if outer is not None:
        old_output, old_bias = outer.weight, getattr(outer, "bias", None)
        outer.weight = outputs  # first: where the sides were one, the others are input rows
        if old_output is not old_input:
            _swap(model, old_output, outputs)
        if old_bias is not None:
            _swap(model, old_bias, bias)
        elif bias is not None:
            setattr(model, FINAL_BIAS, bias.detach()[None])
        outer.out_features = len(outputs)
    _swap(model, old_input, inputs)


def _swap(model: Any, old: Any, new: Any) -> None:
    from torch import nn

    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter is old:
                setattr(module, name, new)
                if isinstance(module, nn.Embedding):
                    module.num_embeddings = len(new)
                    module.padding_idx = None  # of the old vocabulary; it matters to gradients only


def replace_body(model: Any, update: BodyUpdate) -> None:
    """Give a model the merged weights of an update, as tensors of their own; it is changed.

    Raises
    ------
    CheckpointError
        If the model has no such linear weight, or one of another shape.
    """
    import torch

    for name in update.names:
        try:
            module = model.get_submodule(name.removesuffix(".weight"))
        except AttributeError:
            module = None
        if not isinstance(module, torch.nn.Linear) or not name.endswith(".weight"):
            raise CheckpointError(
                f"the update changes {name}, and {type(model).__name__} has no such linear weight"
            )
        old = module.weight
        new = torch.from_numpy(update.merged(name, to_float32(old)))
        _swap(model, old, torch.nn.Parameter(new.to(old.device, old.dtype), requires_grad=False))


def output_bias_of(model: Any) -> torch.Tensor | None:
    """Return what is added to the logits by id, (n_rows,); None where nothing is."""
    outer = model.get_output_embeddings()
    if outer is None:
        return None
    bias: torch.Tensor | None = getattr(outer, "bias", None)
    final = getattr(model, FINAL_BIAS, None)
    return final[0] if bias is None and final is not None else bias
