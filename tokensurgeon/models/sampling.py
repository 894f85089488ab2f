"""Seeded sampling from a causal model with its key–value cache; nothing about losses."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def sample(
    model: Any,
    batch: torch.Tensor,
    max_new_tokens: int,
    seed: int | Sequence[int],
    stop: Collection[int] = (),
    temperature: float = 1.0,
    top_k: int | None = None,
    until: Callable[[], bool] | None = None,
    cache: Any = None,
    each: Callable[[list[int]], None] | None = None,
    position: torch.Tensor | None = None,
) -> list[list[int]]:
    """Continue each row of `batch` (n, length); see `LanguageModel.generate`.

    Draws are made on the CPU in float64, so that the device does not choose the random numbers.
    With a seed for each row, a row's draws do not depend on the others. A `cache` of what stands
    before the batch is changed. `each` is given every step's tokens. `position` (n,) is that of the
    first id, where it is not the number of ids before it.
    """
    import torch

    seeds = [seed] if isinstance(seed, int) else list(seed)
    generators = [torch.Generator().manual_seed(one) for one in seeds]
    samples: list[list[int]] = [[] for _ in range(batch.shape[0])]
    running = [True] * len(samples)
    step, last = batch, keeps_last(model, 1)
    with torch.inference_mode():
        for _ in range(max(0, max_new_tokens)):
            told = {}
            if position is not None:
                steps = torch.arange(step.shape[1], device=position.device)
                told = {"position_ids": position[:, None] + steps}
                position = position + step.shape[1]
            output = model(input_ids=step, past_key_values=cache, use_cache=True, **last, **told)
            cache = output.past_key_values
            scores = output.logits[:, -1].double().cpu()
            if top_k is not None and top_k < scores.shape[1]:
                least = scores.topk(top_k, dim=1).values[:, -1:]
                scores = scores.masked_fill(scores < least, float("-inf"))
            if temperature <= 0:
                chosen = scores.argmax(dim=1, keepdim=True)
            else:
                chances = torch.softmax(scores / temperature, dim=1)
                parts = [chances] if isinstance(seed, int) else list(chances[:, None])
                drawn = zip(parts, generators, strict=True)
                chosen = torch.cat([torch.multinomial(p, 1, generator=g) for p, g in drawn])
            for row, token in enumerate(chosen[:, 0].tolist()):
                if running[row]:
                    samples[row].append(token)
                    running[row] = token not in stop
            if each is not None:
                each(chosen[:, 0].tolist())
            if not any(running) or (until is not None and until()):
                break
            step = chosen.to(batch.device)
    return samples


def keeps_last(model: Any, n: int) -> dict[str, int]:
    """Return the argument by which a model computes the logits of the last `n` positions alone.

    Of a long text and a large vocabulary, the others are most of the work. Empty where it cannot.
    """
    takes = inspect.signature(model.forward).parameters
    return {"logits_to_keep": n} if "logits_to_keep" in takes else {}
