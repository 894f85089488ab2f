"""The arithmetic of healing: the loss of an output matrix in bounded memory, and steps on rows.

Both are written out rather than left to autograd: the loss needs its logits once, not four times,
and a row that a batch did not touch must not move by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

BIAS_SCALE = 1.0
"""What the learning rate of an output bias is relative to, in nats."""

LOGIT_BYTES = 32 << 20
"""Bound of one block of float32 logits."""


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

    Logits are ``softcap(scale * (states @ rows.T + bias))``, made in blocks bounded in memory.

    Parameters
    ----------
    states : float32 (n, width)
    rows : float32 (n_rows, width)
    targets : int64 (n,)
    bias : float32 (n_rows,) or None
    """
    import torch

    n, n_rows = states.shape[0], rows.shape[0]
    to_states, to_rows = torch.empty_like(states), torch.zeros_like(rows)
    to_bias = None if bias is None else torch.zeros_like(bias)
    total = torch.zeros((), dtype=torch.float64, device=states.device)
    step = max(1, LOGIT_BYTES // (4 * n_rows))
    for start in range(0, n, step):
        part, goal = states[start : start + step], targets[start : start + step, None]
        scores = part @ rows.T if bias is None else torch.addmm(bias, part, rows.T)
        scores *= scale
        slope = None
        if softcap is not None:
            scores = torch.tanh(scores.div_(softcap))
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
        to_states[start : start + step] = scores @ rows
        to_rows.addmm_(scores.T, part)
        if to_bias is not None:
            to_bias += scores.sum(0)
    return HeadGradients(float(total), to_states, to_rows, to_bias)


class RowAdam:
    """Adam on the rows of a matrix; rows that a step does not name keep still, state and all.

    A rare row's moments would otherwise fade between its uses, and move it where no text asked.

    Parameters
    ----------
    rows : float32 (n_rows, width) or (n_rows,)
        Changed in place.
    """

    def __init__(self, rows: torch.Tensor, betas: tuple[float, float] = (0.9, 0.98)) -> None:
        import torch

        self.rows, self.betas = rows, betas
        self._first, self._second = torch.zeros_like(rows), torch.zeros_like(rows)
        self._uses = torch.zeros((len(rows), *[1] * (rows.ndim - 1)), device=rows.device)

    def step(self, ids: torch.Tensor | slice, gradient: torch.Tensor, rate: float) -> None:
        """Move the rows `ids`, each named once, against their gradient."""
        first, second = self.betas
        self._uses[ids] += 1
        uses = self._uses[ids]
        mean = self._first[ids].mul_(first).add_(gradient, alpha=1 - first)
        square = self._second[ids].mul_(second).addcmul_(gradient, gradient, value=1 - second)
        self._first[ids], self._second[ids] = mean, square
        # The bound under the root keeps a row still whose gradient was zero all along.
        root = (square / (1 - second**uses)).sqrt_().add_(1e-20)
        self.rows[ids] -= rate * (mean / (1 - first**uses)) / root


class TrainedRows:
    """The rows of one matrix that a mask names, in float32, and how they are moved.

    A row is its start, plus what is its own, plus a linear map of its start that all trained rows
    share. The map learns from every token, and so moves rows that the text hardly shows the way
    the others went.

    Parameters
    ----------
    weight : torch.nn.Parameter (n_rows, width) or (n_rows,)
        Rows in the mask are written to it, in its dtype; others are never touched.
    mask : bool (n_rows,)
    shared_map : bool
        Without it, rows move on their own only. Vectors (a bias) have none.
    """

    def __init__(
        self, weight: torch.Tensor, mask: npt.NDArray[np.bool_], *, shared_map: bool
    ) -> None:
        import torch

        device = weight.device
        self.weight = weight
        self._ids = torch.from_numpy(np.flatnonzero(mask)).to(device)
        self._all = bool(mask.all())
        self._place = torch.full((len(mask),), -1, dtype=torch.int64, device=device)
        self._place[self._ids] = torch.arange(len(self._ids), device=device)
        if weight.ndim == 1:
            self._scale = BIAS_SCALE
        else:
            self._scale = float(weight.detach().float().pow(2).mean().sqrt())
        self._has_map = shared_map and weight.ndim == 2
        self.restart()

    def restart(self) -> None:
        """Take the rows as they are now for the start, and forget all steps."""
        import torch

        self._start = self.weight.detach()[self._ids].float()
        self._own = torch.zeros_like(self._start)
        self._own_steps = RowAdam(self._own)
        self._map = self._map_steps = None
        if self._has_map:
            self._map = torch.zeros((self._start.shape[1],) * 2, device=self._start.device)
            self._map_steps = RowAdam(self._map)

    def step_some(self, ids: torch.Tensor, gradient: torch.Tensor, rate: float) -> None:
        """Move by the gradient of some rows, each named once; see `write`."""
        place = self._place[ids]
        here = place >= 0
        self._step(place[here], gradient[here], rate)

    def step_all(self, gradient: torch.Tensor, rate: float) -> None:
        """Move by the gradient of the whole matrix, and write."""
        self._step(slice(None), gradient if self._all else gradient[self._ids], rate)
        self.write()

    def _step(self, place: torch.Tensor | slice, gradient: torch.Tensor, rate: float) -> None:
        self._own_steps.step(place, gradient, rate * self._scale)
        if self._map is not None and self._map_steps is not None:
            to_map = self._start[place].T @ gradient
            width = self._map.shape[0]
            # A row is moved by `width` entries of the map: so each moves by less.
            self._map_steps.step(slice(None), to_map, rate / width**0.5)

    def write(self, ids: torch.Tensor | None = None) -> None:
        """Bring the rows `ids`, or all, to the model."""
        place: torch.Tensor | slice = slice(None)
        if ids is None:
            ids = self._ids
        else:
            ids = ids[self._place[ids] >= 0]
            place = self._place[ids]
        rows = self._start[place] + self._own[place]
        if self._map is not None:
            rows += self._start[place] @ self._map
        self.weight.data[ids] = rows.to(self.weight.dtype)
