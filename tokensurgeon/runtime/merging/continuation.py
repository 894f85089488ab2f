"""How a causal model goes on after a merged prefill: its cache, and losses of what follows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tokensurgeon.arrays import Float32, Float64
from tokensurgeon.models import LanguageModel
from tokensurgeon.models.early_exit import states_before

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Prefilled:
    """What a causal model holds after it has read a merged batch.

    Attributes
    ----------
    cache
        The key–value cache, as transformers hands it out. Whoever continues changes it.
    mask : int64 tensor (n, longest)
        Padding is on the left.
    next_position : int64 tensor (n,)
    logits : float32 (n, n_rows)
        Of the token that follows each sequence.
    """

    cache: Any
    mask: torch.Tensor
    next_position: torch.Tensor
    logits: Float32


def final_states(model: LanguageModel, run: Callable[[], Any]) -> torch.Tensor:
    """Return what the output rows are given in a forward pass, which ends there."""
    import torch

    what = f"the final states of {type(model.model).__name__}"
    with torch.inference_mode():
        return states_before(model.model.get_output_embeddings(), run, what)


def losses_after(
    model: LanguageModel,
    prefilled: Prefilled,
    continuations: Sequence[Sequence[int]],
    *,
    told: bool,
) -> list[Float64]:
    """Return the loss in nats of each id that follows a prefill; see `DynamicModel.nll_after`.

    `told` says whether the model is told positions.
    """
    import torch
    from torch.nn.functional import cross_entropy

    device, longest = prefilled.mask.device, max(map(len, continuations))
    ids = torch.zeros((len(continuations), longest), dtype=torch.int64, device=device)
    real = torch.zeros_like(ids)
    for i, own in enumerate(continuations):
        ids[i, : len(own)] = torch.tensor(list(own), device=device)
        real[i, : len(own)] = 1
    first = torch.from_numpy(prefilled.logits).to(device)
    losses = cross_entropy(first, ids[:, 0], reduction="none").double().cpu().numpy()
    if longest == 1:
        return [losses[i : i + 1] for i in range(len(losses))]
    options: dict[str, Any] = {
        "input_ids": ids[:, :-1],
        "attention_mask": torch.cat([prefilled.mask, real[:, :-1]], dim=1),
        "past_key_values": prefilled.cache,
        "use_cache": True,
    }
    if told:
        steps = torch.arange(longest - 1, device=device)
        options["position_ids"] = prefilled.next_position[:, None] + steps
    asked = real[:, 1:].bool()
    if model.plain_head:  # logits of a whole batch may not fit into memory
        states = final_states(model, lambda: model.model(**options))[asked]
        later = model.nll_after(states.float().cpu().numpy(), ids[:, 1:][asked].cpu().numpy())
    else:
        with torch.inference_mode():
            scores = model.model(**options).logits[asked].float()
        later = cross_entropy(scores, ids[:, 1:][asked], reduction="none").double().cpu().numpy()
    ends = np.cumsum([len(own) - 1 for own in continuations])
    parts = np.split(later, ends[:-1])
    return [np.concatenate([losses[i : i + 1], part]) for i, part in enumerate(parts)]
