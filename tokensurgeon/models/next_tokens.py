"""What a causal model says next: ranks of given tokens, and greedy continuations of many prompts.

Prompts of unequal length are continued together: the shorter are padded on the left and hidden by
the attention mask. Whether a model reads such a batch as it reads each prompt alone is tried on the
model itself; where it does not, only prompts of one length go together.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tokensurgeon.arrays import Ids
from tokensurgeon.errors import EvaluationError
from tokensurgeon.models.batches import batches_by_length, batches_of_one_length
from tokensurgeon.models.language_model import LanguageModel
from tokensurgeon.models.sampling import keeps_last

TOKENS_TOGETHER = 2048
"""Of the prompts of one batch: their keys and values stay below some hundred megabytes."""
SAME = 1e-3
"""How far logits of a padded prompt may be from those of the prompt alone: float32 leaves a tenth
of that on models of 30 blocks, a pad token that is seen changes them by far more."""


def ranks(model: LanguageModel, ids: Sequence[Sequence[int]]) -> list[Ids]:
    """Return how many tokens a model finds likelier than each id that follows.

    Parameters
    ----------
    model : LanguageModel
    ids : sequence of sequences of int

    Returns
    -------
    list of int64 (max(len - 1, 0),)
        0 where the id is the likeliest; of equals, all count as the likeliest.
    """
    found = []
    for sequence in ids:
        logits = model.logits(sequence)[:-1]
        given = np.take_along_axis(logits, np.asarray(sequence, np.int64)[1:, None], axis=1)
        found.append((logits > given).sum(axis=1).astype(np.int64))
    return found


def greedy(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    most: int,
    ends: Callable[[list[int]], bool],
    told: Callable[[int], None] = lambda done: None,
) -> list[list[int]]:
    """Continue each prompt with the likeliest token, again and again; of equals with the first id.

    Parameters
    ----------
    model : LanguageModel
    prompts : sequence of sequences of int
        Each of at least one id.
    most : int
        New tokens of each; fewer where the model has no further position.
    ends : callable
        Given the new ids of a prompt after each; whether they are enough.
    told : callable
        Given how many prompts are done.

    Raises
    ------
    EvaluationError
        If a prompt is empty, or has an id or a position that the model does not have.
    """
    lengths = [len(prompt) for prompt in prompts]
    if 0 in lengths:
        raise EvaluationError("a model needs at least one id to continue; give a prefix")
    highest = max((max(prompt) for prompt in prompts), default=0)
    if highest >= model.n_rows:
        raise EvaluationError(
            f"id {highest} given to a model of {model.n_rows} rows; give it its own tokenizer"
        )
    longest = model.max_positions
    if longest is not None and max(lengths, default=0) > longest:
        raise EvaluationError(
            f"a prompt of {max(lengths)} tokens given to a model of {longest} positions; cut it"
        )
    if len(set(lengths)) > 1 and pads_left(model):
        batches = [np.array(own) for own in batches_by_length(lengths, TOKENS_TOGETHER)]
    else:
        batches = list(batches_of_one_length(prompts))
    written: list[list[int]] = [[] for _ in prompts]
    done = 0
    for members in batches:
        chosen = [prompts[i] for i in members]
        room = most
        if model.max_positions is not None:
            room = min(most, model.max_positions - max(map(len, chosen)))
        for i, own in zip(members, _continued(model, chosen, room, ends), strict=True):
            written[i] = own
        done += len(members)
        told(done)
    return written


def pads_left(model: LanguageModel) -> bool:
    """Return whether a model reads a prompt behind hidden padding as it reads it alone."""
    import torch

    takes = inspect.signature(model.model.forward).parameters
    if "attention_mask" not in takes or (model.max_positions or 8) < 8:
        return False
    prompt = [i % model.n_rows for i in (3, 1, 2)]
    alone = model.logits(prompt)[-1]
    with torch.inference_mode():
        output = _step(model, *_padded([[*prompt, *prompt[::-1]], prompt], model.device), None)
    padded = output.logits[1, -1].float().cpu().numpy()
    return bool(np.allclose(alone, padded, rtol=SAME, atol=SAME))


def _padded(prompts: Sequence[Sequence[int]], device: str) -> tuple[Any, Any, Any]:
    """Return ids padded on the left, the mask that hides the padding, and positions."""
    import torch

    longest = max(map(len, prompts))
    rows = [[prompt[0]] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    shown = torch.tensor(mask, device=device)
    return torch.tensor(rows, device=device), shown, (shown.cumsum(dim=1) - 1).clamp(min=0)


def _step(model: LanguageModel, ids: Any, mask: Any, positions: Any, cache: Any) -> Any:
    """Run the model over further ids of a batch; `mask` is of all so far."""
    more: dict[str, Any] = keeps_last(model.model, 1)
    takes = inspect.signature(model.model.forward).parameters
    # Of a batch without padding, most models make the two by themselves, and some take neither.
    if not bool(mask.all()):
        more["attention_mask"] = mask
        if "position_ids" in takes:
            more["position_ids"] = positions
    return model.model(input_ids=ids, past_key_values=cache, use_cache=True, **more)


def _continued(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    most: int,
    ends: Callable[[list[int]], bool],
) -> list[list[int]]:
    import torch

    ids, mask, positions = _padded(prompts, model.device)
    written: list[list[int]] = [[] for _ in prompts]
    running = [True] * len(prompts)
    cache = None
    with torch.inference_mode():
        for _ in range(most):
            output = _step(model, ids, mask, positions, cache)
            cache = output.past_key_values
            chosen = output.logits[:, -1].float().argmax(dim=1)
            for row, token in enumerate(chosen.tolist()):
                if running[row]:
                    written[row].append(token)
                    running[row] = not ends(written[row])
            if not any(running):
                break
            ids = chosen[:, None]
            mask = torch.cat([mask, torch.ones_like(ids)], dim=1)
            positions = positions[:, -1:] + 1
    return written
