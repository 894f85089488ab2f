"""The loss of an output matrix on some states, and its gradients, in bounded memory.

They are written out rather than left to autograd, which would keep the logits four times.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tokensurgeon.arrays import blocks
from tokensurgeon.models.early_exit import states_before
from tokensurgeon.models.head import LOSS_LOGITS, shape_logits

if TYPE_CHECKING:
    import torch

    from tokensurgeon.models.language_model import LanguageModel


@dataclass(frozen=True)
class HeadGradients:
    """The summed loss of some states, and its gradients.

    Attributes
    ----------
    loss : float
        Nats, summed over the states.
    states : float32 (n, width)
    rows : float32 (n_rows, width)
    bias : float32 (n_rows,) or None
    """

    loss: float
    states: torch.Tensor
    rows: torch.Tensor
    bias: torch.Tensor | None


def head_gradients(
    states: torch.Tensor,
    rows: torch.Tensor,
    targets: torch.Tensor,
    *,
    bias: torch.Tensor | None = None,
    scale: float = 1.0,
    softcap: float | None = None,
) -> HeadGradients:
    """Return the cross-entropy of states under output rows with its gradients.

    Logits are those of `OutputHead`, made in blocks bounded in memory. No tensor is changed.

    Parameters
    ----------
    states : float32 (n, width)
    rows : float32 (n_rows, width)
    targets : int64 (n,)
    bias : float32 (n_rows,) or None
    scale, softcap : float, float or None
    """
    import torch

    to_states, to_rows = torch.empty_like(states), torch.zeros_like(rows)
    to_bias = None if bias is None else torch.zeros_like(bias)
    total = torch.zeros((), dtype=torch.float64, device=states.device)
    for block in blocks(len(states), LOSS_LOGITS // len(rows)):
        part, goal = states[block], targets[block, None]
        scores = part @ rows.T if bias is None else torch.addmm(bias, part, rows.T)
        scores, slope = shape_logits(scores, scale, None), None
        if softcap is not None:
            scores = scores.div_(softcap).tanh_()
            slope = 1 - scores**2
            scores *= softcap
        # From here on in place: the logits become the softmax, then the gradient.
        scores -= scores.amax(1, keepdim=True)
        at_goal = scores.gather(1, goal).squeeze(1)
        sums = scores.exp_().sum(1)
        total += (sums.log() - at_goal).double().sum()
        scores /= sums[:, None]
        scores.scatter_add_(1, goal, torch.full_like(goal, -1, dtype=scores.dtype))
        if slope is not None:
            scores *= slope
        if scale != 1.0:
            scores *= scale
        to_states[block] = scores @ rows
        to_rows.addmm_(scores.T, part)
        if to_bias is not None:
            to_bias += scores.sum(0)
    return HeadGradients(float(total), to_states, to_rows, to_bias)


def backward_from_head(
    model: LanguageModel, batch: torch.Tensor, scored: torch.Tensor
) -> HeadGradients:
    """Take the gradients of a batch's mean loss; the model's logits must be a plain product.

    Those of output rows and bias are returned. All others are added to ``grad`` of whatever
    requires one.

    Parameters
    ----------
    model : LanguageModel
    batch : int64 (n, length)
    scored : bool (n, length - 1)
        Which ids count, the first of each sequence aside.

    Returns
    -------
    HeadGradients
        The mean loss and its gradients; of the states at the scored positions.
    """
    import torch

    outer = model.model.get_output_embeddings()
    states = states_before(
        outer,
        lambda: model.model(input_ids=batch, use_cache=False),
        f"the output matrix of {type(model.model).__name__}",
    )
    goals = batch[:, 1:][scored]
    bias = getattr(outer, "bias", None)
    head = head_gradients(
        states.detach()[:, :-1][scored].float(),
        outer.weight.detach().float(),
        goals,
        bias=None if bias is None else bias.detach().float(),
        scale=model.logit_scale,
        softcap=model.softcap,
    )
    n = len(goals)
    to_states = head.states / n
    if states.requires_grad:
        back = torch.zeros_like(states)
        back[:, :-1][scored] = to_states.to(states.dtype)
        states.backward(back)  # type: ignore[no-untyped-call]
    to_bias = None if head.bias is None else head.bias / n
    return HeadGradients(head.loss / n, to_states, head.rows.div_(n), to_bias)
