"""Find new rows that would disturb a model: too loud, or a sum with large weights.

A row can be harmless in the donor that it was copied from, or computed from, and draw probability
in the source everywhere ("breaker tokens", arXiv 2601.00065). Its norm does not show that; the
states of the source do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

Rows = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]

LOUD_SHARE = 1e-3
"""Mean probability below which a row disturbs nothing."""

LOUD_FACTOR = 10.0
"""How far above its frequency in the text a token's mean probability has to be."""

LOUD_UNCOUNTED = 1e-2
"""Mean probability that is loud where nobody counted how often the token occurs."""

HEAVY_NORM = 2.0
HEAVY_FACTOR = 3.0
"""Weights are heavy above this norm and this many times the median: a copied row's norm is 1."""

_LOGIT_BYTES = 1 << 27


@dataclass(frozen=True)
class LoudRow:
    """A new output row that states prefer far more than the text has its token.

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


def loud_rows(
    output_rows: Rows,
    bias: Rows | None,
    states: Rows,
    new: Ids,
    counts: Ids | None,
    softcap: float | None = None,
    scale: float = 1.0,
) -> list[LoudRow]:
    """Return the new rows whose mean probability is far above the frequency of their token.

    Loud is a mean probability of a thousandth and ten times the frequency; without counts, of a
    hundredth; and ten times an even share in any case. The loudest come first.

    Parameters
    ----------
    output_rows : float32 (n_rows, width)
        The patched output matrix.
    bias : float32 (n_rows,) or None
    states : float32 (n, width)
        Final states on some text; those that are not finite are left out.
    new : int64 (m,)
        Target ids of the new rows.
    counts : int64 (n_rows,) or None
        How often each id occurs in the same text.
    softcap, scale
        Logits are softcap · tanh(scale · (H Wᵀ + b) / softcap).
    """
    states = states[np.isfinite(states).all(axis=1)]
    if not len(states) or not len(new):
        return []
    mean = np.zeros(len(new))
    first = np.zeros(len(new))
    reach = np.full(len(new), -np.inf)
    step = max(1, _LOGIT_BYTES // (8 * len(output_rows)))
    for start in range(0, len(states), step):
        logits = states[start : start + step] @ output_rows.T
        if bias is not None:
            logits += bias
        logits *= np.float32(scale)
        if softcap is not None:
            logits = np.float32(softcap) * np.tanh(logits / np.float32(softcap))
        logits[~np.isfinite(logits)] = -np.inf
        two = np.partition(logits, -2, axis=1)[:, -2:] if logits.shape[1] > 1 else None
        top = logits.max(axis=1)
        own = logits[:, new]
        leads = own == top[:, None]
        rival = np.where(leads, (two[:, 0] if two is not None else top)[:, None], top[:, None])
        with np.errstate(invalid="ignore"):
            reach = np.fmax(reach, (own - rival).max(axis=0))
        first += leads.sum(axis=0)
        np.exp(logits - top[:, None], out=logits)
        mean += (logits[:, new] / logits.sum(axis=1, dtype=np.float64)[:, None]).sum(axis=0)
    mean, first = mean / len(states), first / len(states)
    frequency, even = None, LOUD_FACTOR / len(output_rows)
    if counts is not None and counts.sum() > 0:
        frequency = counts[new] / counts.sum()
        loud = (mean >= max(LOUD_SHARE, even)) & (mean >= LOUD_FACTOR * frequency)
    else:
        loud = mean >= max(LOUD_UNCOUNTED, even)
    order = np.argsort(-mean, kind="stable")
    return [
        LoudRow(
            id=int(new[i]),
            probability=float(mean[i]),
            frequency=None if frequency is None else float(frequency[i]),
            first=float(first[i]),
            reach=float(reach[i]),
        )
        for i in order[loud[order]]
    ]


def weight_norms(weights: sp.csr_array, new: Ids) -> npt.NDArray[np.float64]:
    """Return the Euclidean norm of each new row's weights over source rows, (m,).

    NaN where a row is no sum of source rows.
    """
    chosen = sp.csr_array(weights[new])
    norms = np.sqrt(np.asarray(chosen.multiply(chosen).sum(axis=1), dtype=np.float64)).ravel()
    norms[np.diff(chosen.indptr) == 0] = np.nan
    return norms


def heavy_rows(norms: npt.NDArray[np.float64]) -> Ids:
    """Return the places of the norms that are far above the others, the largest first."""
    finite = np.isfinite(norms)
    if not finite.any():
        return np.zeros(0, dtype=np.int64)
    limit = max(HEAVY_NORM, HEAVY_FACTOR * float(np.median(norms[finite])))
    size = np.where(finite, norms, 0.0)
    order = np.argsort(-size, kind="stable")
    return np.asarray(order[size[order] > limit], dtype=np.int64)
