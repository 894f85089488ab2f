"""Find new rows that would disturb a model: too probable, too long, or a sum of large weights.

A row can be harmless in the donor that it was copied from, or computed from, and draw probability
everywhere in the source ("breaker tokens", arXiv 2601.00065). Its norm does not show that; the
states of the source do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from tokensurgeon.arrays import Float32, Float64, Ids, blocks

if TYPE_CHECKING:
    from tokensurgeon.models.head import OutputHead

LEAST_PROBABILITY = 1e-3
"""Mean probability below which a row disturbs nothing: a thousandth of all predictions."""

OVER_FREQUENCY = 10.0
"""How many times its token's frequency in the text a mean probability has to be.

Below that, a short text cannot tell: a token that it holds once or twice may well be as frequent.
"""

LEAST_UNCOUNTED = 1e-2
"""Mean probability that is too much where nobody counted how often the token occurs.

No ordinary token but the commonest is a hundredth of a text.
"""

HEAVY_NORM, HEAVY_FACTOR = 2.0, 3.0
"""Weights are heavy above this norm and this many times the median: a copied row's norm is 1."""

_NORM_ROWS = 4096
"""Rows whose norms are taken at once: their float64 copy stays small beside the matrix."""


@dataclass(frozen=True)
class OverPredictedRow:
    """A new output row that states prefer far more often than the text has its token.

    Attributes
    ----------
    id : int
        Target id.
    probability : float
        Its mean over the states.
    frequency : float or None
        Its share of the text's tokens; None where nobody counted.
    first : float
        Share of the states that prefer it to every other row.
    reach : float
        Its largest logit less the best other logit of that state, in nats.
    """

    id: int
    probability: float
    frequency: float | None
    first: float
    reach: float


def over_predicted_rows(
    head: OutputHead, states: Float32, new: Ids, counts: Ids | None
) -> list[OverPredictedRow]:
    """Return the new rows whose mean probability is far above the frequency of their token.

    That is a mean probability of a thousandth and ten times the frequency; without counts, of a
    hundredth; and ten times an even share in any case. The most probable come first.

    Parameters
    ----------
    head : OutputHead
        Over the patched output matrix, n_target rows.
    states : float32 (n_states, width)
        Final states on some text; those that are not finite are left out.
    new : int64 (n_new,)
        Target ids of the new rows.
    counts : int64 (n_target,) or None
        How often each id occurs in the same text.
    """
    import torch

    states = states[np.isfinite(states).all(axis=1)]
    if not len(states) or not len(new):
        return []
    mean, first = np.zeros(len(new)), np.zeros(len(new))
    reach = np.full(len(new), -np.inf)
    for part in head.blocks(len(states)):
        logits = head.logits(states[part])
        logits[~logits.isfinite()] = -torch.inf
        best = logits.topk(min(2, logits.shape[1]), dim=1).values
        own = logits[:, torch.from_numpy(new)]
        leads = own == best[:, :1]
        rival = torch.where(leads, best[:, -1:], best[:, :1])
        reach = np.fmax(reach, (own - rival).amax(0).cpu().numpy())
        first += leads.sum(0).cpu().numpy()
        chances = (own - logits.logsumexp(1, keepdim=True)).exp()
        mean += chances.sum(0, dtype=torch.float64).cpu().numpy()
    mean, first = mean / len(states), first / len(states)
    frequency, even = None, OVER_FREQUENCY / len(head.rows)
    if counts is not None and counts.sum() > 0:
        frequency = counts[new] / counts.sum()
        over = (mean >= max(LEAST_PROBABILITY, even)) & (mean >= OVER_FREQUENCY * frequency)
    else:
        over = mean >= max(LEAST_UNCOUNTED, even)
    order = np.argsort(-mean, kind="stable")
    return [
        OverPredictedRow(
            id=int(new[i]),
            probability=float(mean[i]),
            frequency=None if frequency is None else float(frequency[i]),
            first=float(first[i]),
            reach=float(reach[i]),
        )
        for i in order[over[order]]
    ]


def weight_norms(weights: sp.csr_array, new: Ids) -> Float64:
    """Return the Euclidean norm of each new row's weights over source rows, (n_new,).

    NaN where a row is no sum of source rows.
    """
    chosen = sp.csr_array(weights[new])
    norms = np.sqrt(np.asarray(chosen.multiply(chosen).sum(axis=1), dtype=np.float64)).ravel()
    norms[np.diff(chosen.indptr) == 0] = np.nan
    return norms


def heavy_rows(norms: Float64) -> Ids:
    """Return the indices of the norms that are far above the others, the largest first."""
    finite = norms[np.isfinite(norms)]
    if not finite.size:
        return np.zeros(0, dtype=np.int64)
    return _above(norms, max(HEAVY_NORM, HEAVY_FACTOR * float(np.median(finite))))


def long_rows(norms: Float64, trained: Float64) -> Ids:
    """Return the indices of the norms above the longest trained row's, the longest first."""
    finite = trained[np.isfinite(trained)]
    return _above(norms, float(finite.max()) if finite.size else np.inf)


def _above(values: Float64, limit: float) -> Ids:
    """Return the indices of the finite values above a limit, the largest first."""
    size = np.where(np.isfinite(values), values, -np.inf)
    order = np.argsort(-size, kind="stable")
    return np.asarray(order[size[order] > limit], dtype=np.int64)


def row_norms(rows: Float32) -> Float64:
    """Return the norms of rows, summed in float64; NaN or Inf where a row has one."""
    norms = np.empty(len(rows))
    for part in blocks(len(rows), _NORM_ROWS):
        norms[part] = np.linalg.norm(rows[part].astype(np.float64), axis=1)
    return norms


def percentiles(values: Float64) -> dict[str, float]:
    """Return ``p1``, ``p50``, ``p99`` and ``max`` of the finite values; empty if none is."""
    values = values[np.isfinite(values)]
    if not values.size:
        return {}
    p1, p50, p99 = np.percentile(values, [1, 50, 99])
    return {"p1": float(p1), "p50": float(p50), "p99": float(p99), "max": float(values.max())}
