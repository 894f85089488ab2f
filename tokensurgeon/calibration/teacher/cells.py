"""The loss of output rows against implied distributions, with its gradients, on sampled rows.

Of a large vocabulary the rows that a batch's distributions name, the rows that are likely anyway
and some others, drawn evenly, are enough: those drawn count for all that were not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tokensurgeon.arrays import Float32, Ids, blocks
from tokensurgeon.calibration.teacher.implied import Implied
from tokensurgeon.models.head import LOSS_LOGITS, shape_logits

if TYPE_CHECKING:
    import torch

LEAST_MASS = 1e-4
"""Of a cell for its token to be named among a batch's rows."""
SMALLEST = 1e-9
"""Probability that a logarithm is taken of at least."""
STEEPEST = 1e4
"""Times its probability that a cell's gradient is at most: what the model holds for impossible
would else move a row by all that it has."""


@dataclass(frozen=True)
class SampledRows:
    """The rows that a batch is scored on.

    Attributes
    ----------
    ids : int64 (n,)
    log_weights : float32 (n,)
        Logarithm of how many rows each stands for.
    place : int64 (n_rows,)
        Where each id is among them, -1 where it is not.
    group : int64 (n,)
        Where the token is for which each counts; n where that is not among them.
    """

    ids: torch.Tensor
    log_weights: torch.Tensor
    place: torch.Tensor
    group: torch.Tensor

    @classmethod
    def draw(
        cls,
        implied: Implied,
        tokens: Ids,
        likely: Ids,
        group: Ids,
        n_others: int,
        rng: np.random.Generator,
    ) -> SampledRows:
        """Draw rows for a batch.

        Parameters
        ----------
        implied : Implied
        tokens : int64
            Ids that are wanted besides.
        likely : int64
            Ids that are always taken.
        group : int64 (n_rows,)
            See `Spellings.group`.
        n_others : int
            How many of all others are drawn.
        rng : numpy.random.Generator
        """
        import torch

        n_rows = len(group)
        named = implied.ids[implied.masses > LEAST_MASS]
        named = np.where(named >= n_rows, named - n_rows, named)
        certain = np.unique(np.concatenate([named[named >= 0], tokens, likely]))
        mask = np.ones(n_rows, dtype=np.bool_)
        mask[certain] = False
        others = np.flatnonzero(mask)
        drawn = rng.choice(others, min(n_others, len(others)), replace=False)
        ids = np.concatenate([certain, drawn])
        log_weights = np.zeros(len(ids), dtype=np.float32)
        if len(drawn):
            log_weights[len(certain) :] = np.log(len(others) / len(drawn))
        place = np.full(n_rows, -1, dtype=np.int64)
        place[ids] = np.arange(len(ids))
        of_group = place[group[ids]]
        of_group[of_group < 0] = len(ids)
        return cls(*(torch.from_numpy(one) for one in (ids, log_weights, place, of_group)))


@dataclass(frozen=True)
class CellGradients:
    """A summed loss, and its gradients.

    Attributes
    ----------
    loss : float
        Nats: the divergence of the model's cells from the implied ones.
    states : float32 (n, width)
    rows : float32 (n_rows, width)
        Of the sampled rows.
    bias : float32 (n_rows,)
        Of what is added to their logits.
    """

    loss: float
    states: torch.Tensor
    rows: torch.Tensor
    bias: torch.Tensor


def cell_gradients(
    states: torch.Tensor,
    rows: torch.Tensor,
    sampled: SampledRows,
    ids: Ids,
    masses: Float32,
    *,
    bias: torch.Tensor | None = None,
    scale: float = 1.0,
    softcap: float | None = None,
) -> CellGradients:
    """Return the divergence of output rows from implied distributions, with its gradients.

    Within a cell of several tokens the model's own division stands. No tensor is changed.

    Parameters
    ----------
    states : (n, width)
        In the dtype of the products.
    rows : (n_sampled, width)
        In the same dtype.
    sampled : SampledRows
    ids, masses : (n, n_cells)
        As in `Implied`.
    bias : float32 (n_sampled,) or None
    scale, softcap : float, float or None
        As in `OutputHead`.
    """
    import torch

    to_states = torch.empty(states.shape, dtype=torch.float32, device=states.device)
    to_rows = torch.zeros(rows.shape, dtype=torch.float32, device=rows.device)
    to_bias, loss = torch.zeros(len(rows), device=rows.device), 0.0
    log_weights = sampled.log_weights.to(rows.device)
    for block in blocks(len(states), max(1, LOSS_LOGITS // len(rows))):
        given = states[block]
        logits = (given @ rows.T).float()
        if bias is not None:
            logits += bias
        logits = shape_logits(logits, scale, softcap)
        slope = None if softcap is None else 1 - (logits / softcap) ** 2
        p = (logits + log_weights).softmax(1)
        of_block, gradient = _gradient(p, sampled, ids[block], masses[block])
        loss += of_block
        if slope is not None:
            gradient *= slope
        if scale != 1.0:
            gradient *= scale
        to_bias += gradient.sum(0)
        gradient = gradient.to(rows.dtype)
        to_states[block] = (gradient @ rows).float()
        to_rows += (gradient.T @ given).float()
    return CellGradients(loss, to_states, to_rows, to_bias)


def _gradient(
    p: torch.Tensor, sampled: SampledRows, ids: Ids, masses: Float32
) -> tuple[float, torch.Tensor]:
    """Return the divergence, and its gradient of the logits: p·(1 − mass/p(cell)) in each cell."""
    import torch

    device, (n, n_sampled), n_rows = p.device, p.shape, len(sampled.place)
    group = sampled.group.to(device)
    cell = torch.from_numpy(ids).to(device)
    single = cell >= n_rows
    place = sampled.place.to(device)[torch.where(single, cell - n_rows, cell).clamp_min(0)]
    known = (cell >= 0) & (place >= 0)
    single, grouped, place = single & known, ~single & known, place.clamp_min(0)
    own = p.gather(1, place)
    in_group = torch.zeros((n, n_sampled + 1), device=device).index_add_(1, group, p)
    # A token with a cell of its own is not in its group's.
    in_group.scatter_add_(1, group[place], -torch.where(single, own, 0.0))
    held = torch.where(single, own, in_group.gather(1, place))
    held = torch.where(known, held, 0.0)
    mass = torch.where(known, torch.from_numpy(masses).to(device), 0.0)
    rest, held_rest = (1 - mass.sum(1)).clamp_min(0), (1 - held.sum(1)).clamp_min(SMALLEST)
    held = held.clamp_min(SMALLEST)
    loss = torch.special.xlogy(mass, mass / held).sum()
    loss += torch.special.xlogy(rest, rest / held_rest).sum()
    ratio = (1 - mass / held).clamp_min(-STEEPEST)
    factor = (1 - rest / held_rest).clamp_min(-STEEPEST)[:, None].repeat(1, n_sampled + 1)
    row, column = grouped.nonzero(as_tuple=True)
    factor[row, place[row, column]] = ratio[row, column]
    # A group's factor stands at the token that leads it.
    factor = factor[:, group]
    row, column = single.nonzero(as_tuple=True)
    factor[row, place[row, column]] = ratio[row, column]
    return float(loss), factor.mul_(p)
