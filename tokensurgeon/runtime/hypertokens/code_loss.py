"""What a model with hypertokens pays for a sequence of codes, with or without gradients."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.functional import cross_entropy

from tokensurgeon.arrays import Float64, blocks
from tokensurgeon.errors import EvaluationError
from tokensurgeon.models.early_exit import states_before
from tokensurgeon.models.head import LOSS_LOGITS
from tokensurgeon.runtime.hypertokens.hyper_model import HyperModel


def code_losses(hyper: HyperModel, codes: Sequence[int]) -> torch.Tensor:
    """Return the loss of each code but the first, given those before it, float32 (length - 1,).

    At each place the model chooses among the ids and the hypertokens that there are by then. Other
    codes spell the same text too, so the sum is an upper bound of what the text costs. Gradients
    flow to the composer where they are on.

    Raises
    ------
    EvaluationError
        If the sequence has more codes than the model has positions.
    """
    model = hyper.model
    if model.max_positions is not None and len(codes) > model.max_positions:
        raise EvaluationError(
            f"a sequence of {len(codes):,} codes is given to a model of {model.max_positions:,} "
            "positions; cut the text shorter"
        )
    plain = model.plain_head  # tried without hypertokens
    batch = torch.tensor([list(codes)], device=model.device)
    with hyper.attached() as network:
        outer = network.get_output_embeddings()

        def run() -> object:
            return network(input_ids=batch, use_cache=False)

        if not plain:
            logits = run().logits[0, :-1].float()  # type: ignore[attr-defined]
            return cross_entropy(logits, batch[0, 1:], reduction="none")
        states = states_before(outer, run, f"the output rows of {type(network).__name__}")
        tables = hyper.tables
        assert tables is not None
        parts = []
        for part in blocks(len(codes) - 1, LOSS_LOGITS // hyper.limits.n_ids):
            raw = model.logit_scale * outer(states[:, part]).float()
            if model.softcap is not None:
                raw = model.softcap * torch.tanh(raw / model.softcap)
            places = torch.arange(part.start, part.stop, device=raw.device)
            n_ids = raw.shape[-1] - tables.n_hyper
            there = torch.nn.functional.pad(tables.exists(places), (n_ids, 0), value=True)
            logits = raw.masked_fill(~there, float("-inf"))[0]
            goals = batch[0, part.start + 1 : part.stop + 1]
            parts.append(cross_entropy(logits, goals, reduction="none"))
    return torch.cat(parts) if parts else torch.zeros(0, device=batch.device)


def code_nll(hyper: HyperModel, codes: Sequence[int]) -> Float64:
    """Return `code_losses` as numbers, float64 (length - 1,)."""
    with torch.no_grad():
        losses: Float64 = code_losses(hyper, codes).double().cpu().numpy()
    return losses
