"""LoRA on the blocks of a model, by PEFT (extra ``peft``): the one place that imports it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tokensurgeon.errors import CheckpointError, MissingExtraError
from tokensurgeon.models import LanguageModel

if TYPE_CHECKING:
    import torch


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise MissingExtraError("LoRA needs peft; pip install 'tokensurgeon[peft]'") from error
    return peft


def add_lora(model: LanguageModel, rank: int, seed: int = 0) -> list[torch.Tensor]:
    """Put an adapter that changes nothing yet on every linear layer of the blocks, in place.

    Low-rank adaptation (Hu et al., 2021, arXiv 2106.09685), scaled by 2.

    Parameters
    ----------
    model : LanguageModel
        Its blocks' linear layers are replaced; vocabulary rows are left alone.
    rank : int
    seed : int
        Of the factors that start at random.

    Returns
    -------
    list of torch.Tensor
        What is to be trained.

    Raises
    ------
    MissingExtraError
        If peft is not installed.
    """
    import torch

    peft = _peft()
    within = {id(module) for block in model.layers for module in block.modules()}
    linear = [
        name
        for name, module in model.model.named_modules()
        if isinstance(module, torch.nn.Linear) and id(module) in within
    ]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=linear)
        peft.inject_adapter_in_model(config, model.model)
    return [p for name, p in model.model.named_parameters() if "lora_" in name]


def lora_tensors(model: LanguageModel) -> dict[str, torch.Tensor]:
    """Return the numbers of the adapter, by the names that PEFT gives them."""
    tensors: dict[str, torch.Tensor] = _peft().get_peft_model_state_dict(model.model)
    return tensors


def set_lora(model: LanguageModel, tensors: Mapping[str, torch.Tensor]) -> None:
    """Set the numbers of an adapter that was put on.

    Raises
    ------
    CheckpointError
        If they are of another model.
    """
    own = lora_tensors(model)
    if {k: v.shape for k, v in own.items()} != {k: v.shape for k, v in tensors.items()}:
        raise CheckpointError(
            f"the adapter of the composer has {len(tensors)} tensors, and this model's would have "
            f"{len(own)} or other shapes; train a composer for this checkpoint"
        )
    _peft().set_peft_model_state_dict(model.model, dict(tensors))
    model.model.requires_grad_(False)
