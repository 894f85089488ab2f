"""A rule of few coefficients that writes all new output rows, fitted to the tokens of a text.

The logit of new token t at state h is Σ_k a_k·(U_k[t]·h) + (Σ_j c_j·F[t, j])·s(h): mixtures of rows
that are known for t, and numbers known of t that work as an output bias does. Softmax regression in
the coefficients alone is convex and has a handful of unknowns, so a page of text determines them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tokensurgeon.arrays import Float32, Float64, Ids, blocks
from tokensurgeon.models.head import LOGITS_AT_ONCE

if TYPE_CHECKING:
    import torch

MOST_ROUNDS = 20
"""Newton steps; five or six end at `CLOSE`."""
CLOSE = 1e-5
"""Nats a token; a step that wins less is the last."""


@dataclass(frozen=True)
class RuleData:
    """States of a text, and what the rule reads at them.

    Attributes
    ----------
    products : float16 tensor (n_mixtures, n_states, n_new)
        Logits under each of the known rows.
    features : float32 (n_new, n_features)
        Numbers known of each new token.
    even : float32 (n_states,)
        s(h): what a bias of one nat adds to a logit here; about 1.
    others : float64 (n_states,)
        Logsumexp of the logits of all tokens that the rule does not write.
    label : int64 (n_states,)
        The new token that follows, as an index into them; -1 where another token does.
    weights : float64 (n_states,)
        Tokens of the text that each state stands for.
    """

    products: torch.Tensor
    features: Float32
    even: Float32
    others: Float64
    label: Ids
    weights: Float64


def fit_rule(data: RuleData, start: Float64, deviation: Float64) -> Float64:
    """Return the coefficients, mixtures first, that make the text likeliest.

    Newton steps on the mean loss plus Σ ((θ − start)/deviation)²/2 over the tokens of the text; a
    step that does not lower it is halved.

    Parameters
    ----------
    data : RuleData
    start : float64 (n_mixtures + n_features,)
        Where the steps begin, and what little text leaves the coefficients at.
    deviation : float64, same shape
        How far from there a coefficient is expected, in its own unit; 0 holds it fixed.

    Returns
    -------
    float64 (n_mixtures + n_features,)
    """
    pull = 1 / float(data.weights.sum())
    best, step, lowest = np.zeros_like(start), np.zeros_like(start), np.inf  # in deviations
    for _ in range(MOST_ROUNDS):
        now = best + step
        loss, gradient, hessian = _moments(data, start + deviation * now)
        loss += pull * float(now @ now) / 2
        if not loss < lowest:
            step = step / 2
            continue
        won, best, lowest = lowest - loss, now, loss
        if won < CLOSE:
            break
        hessian = hessian * np.outer(deviation, deviation) + pull * np.eye(len(now))
        step = -np.asarray(np.linalg.solve(hessian, deviation * gradient + pull * now))
    return start + deviation * best


def _moments(data: RuleData, theta: Float64) -> tuple[float, Float64, Float64]:
    """Return the mean loss of all tokens, up to a constant, its gradient and its Hessian."""
    import torch

    n_mixed, n_states, n_new = data.products.shape
    device = data.products.device
    features = torch.from_numpy(data.features).to(device)
    bias = features @ torch.from_numpy(theta[n_mixed:].astype(np.float32)).to(device)
    n_features = features.shape[1]
    squares = (features[:, :, None] * features[:, None]).reshape(n_new, -1)
    size = n_mixed + n_features
    loss, gradient, hessian = 0.0, np.zeros(size), np.zeros((size, size))
    weights = data.weights / data.weights.sum()
    for part in blocks(n_states, LOGITS_AT_ONCE // max(1, n_new)):
        mixed = data.products[:, part].float()
        even = torch.from_numpy(data.even[part]).to(device)
        logits = even[:, None] * bias
        for k in range(n_mixed):
            logits.add_(mixed[k], alpha=float(theta[k]))
        others = torch.from_numpy(data.others[part].astype(np.float32)).to(device)
        total = torch.logaddexp(logits.logsumexp(1), others)
        label = torch.from_numpy(data.label[part]).to(device)
        rows = (label >= 0).nonzero()[:, 0]
        seen = label[rows]
        own = torch.zeros_like(total)
        own[rows] = logits[rows, seen]
        weigh = weights[part]
        loss += float(weigh @ (total - own).double().cpu().numpy())
        p = logits.sub_(total[:, None]).exp_()
        observed = torch.zeros(len(even), size, device=device)
        observed[rows, :n_mixed] = mixed[:, rows, seen].T
        observed[rows, n_mixed:] = even[rows, None] * features[seen]
        expected = torch.empty(len(even), size, device=device)
        second = torch.empty(len(even), size, size, device=device)
        second[:, n_mixed:, n_mixed:] = (p @ squares).view(len(even), n_features, n_features)
        second[:, n_mixed:, n_mixed:] *= (even**2)[:, None, None]
        expected[:, n_mixed:] = even[:, None] * (p @ features)
        for k in range(n_mixed):
            drawn = p * mixed[k]
            expected[:, k] = drawn.sum(1)
            second[:, k, n_mixed:] = second[:, n_mixed:, k] = even[:, None] * (drawn @ features)
            for j in range(k + 1):
                second[:, k, j] = second[:, j, k] = torch.einsum("st,st->s", drawn, mixed[j])
        second -= expected[:, :, None] * expected[:, None]
        gradient += weigh @ (expected - observed).double().cpu().numpy()
        hessian += np.tensordot(weigh, second.double().cpu().numpy(), 1)
    return loss, gradient, hessian
