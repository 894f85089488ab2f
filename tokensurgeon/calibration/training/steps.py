"""The arithmetic of healing: steps on rows.

They are written out rather than left to an optimiser of torch: a row that a batch did not touch
must not move by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tokensurgeon.arrays import Mask

if TYPE_CHECKING:
    import torch

BIAS_SCALE = 1.0
"""What the learning rate of an output bias is relative to, in nats."""


def rows_of_gradient(gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the ids of a sparse gradient, and their rows in float32."""
    gradient = gradient.coalesce()
    return gradient.indices()[0], gradient.values().float()


class RowAdam:
    """Adam on the rows of a matrix; rows that a step does not name keep still, state and all.

    A rare row's moments would otherwise fade between its uses, and move it where no text asked.

    Parameters
    ----------
    rows : float32 (n_rows, width) or (n_rows,)
        Changed in place.
    betas : tuple of float
    even : bool
        Gradients count by how large they are beside those of the other rows: a row with next to
        none hardly moves, where Adam alone would move it as far as any.
    """

    def __init__(
        self,
        rows: torch.Tensor,
        betas: tuple[float, float] = (0.9, 0.98),
        *,
        even: bool = False,
    ) -> None:
        import torch

        self.rows, self.betas, self.even = rows, betas, even
        self._first, self._second = torch.zeros_like(rows), torch.zeros_like(rows)
        self._uses = torch.zeros((len(rows), *[1] * (rows.ndim - 1)), device=rows.device)

    def step(
        self, ids: torch.Tensor | slice, gradient: torch.Tensor, rate: float | torch.Tensor
    ) -> None:
        """Move the rows `ids`, each named once, against their gradient.

        `rate` is one for all, or of shape (n_ids, 1).
        """
        first, second = self.betas
        self._uses[ids] += 1
        uses = self._uses[ids]
        mean = self._first[ids].mul_(first).add_(gradient, alpha=1 - first)
        square = self._second[ids].mul_(second).addcmul_(gradient, gradient, value=1 - second)
        self._first[ids], self._second[ids] = mean, square
        square = square / (1 - second**uses)
        if self.even:
            square += square.mean()
        # The bound under the root keeps a row still whose gradient was zero all along.
        root = square.sqrt_().add_(1e-20)
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

    def __init__(self, weight: torch.Tensor, mask: Mask, *, shared_map: bool) -> None:
        import torch

        device = weight.device
        self.weight = weight
        self._ids = torch.from_numpy(np.flatnonzero(mask)).to(device)
        self._all = bool(mask.all())
        self._index = torch.full((len(mask),), -1, dtype=torch.int64, device=device)
        self._index[self._ids] = torch.arange(len(self._ids), device=device)
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
        index = self._index[ids]
        trained = index >= 0
        self._step(index[trained], gradient[trained], rate)

    def step_all(self, gradient: torch.Tensor, rate: float) -> None:
        """Move by the gradient of the whole matrix, and write."""
        self._step(slice(None), gradient if self._all else gradient[self._ids], rate)
        self.write()

    def _step(self, index: torch.Tensor | slice, gradient: torch.Tensor, rate: float) -> None:
        self._own_steps.step(index, gradient, rate * self._scale)
        if self._map is not None and self._map_steps is not None:
            to_map = self._start[index].T @ gradient
            width = self._map.shape[0]
            # A row is moved by `width` entries of the map: so each moves by less.
            self._map_steps.step(slice(None), to_map, rate / width**0.5)

    def write(self, ids: torch.Tensor | None = None) -> None:
        """Bring the rows `ids`, or all, to the model."""
        index: torch.Tensor | slice = slice(None)
        if ids is None:
            ids = self._ids
        else:
            ids = ids[self._index[ids] >= 0]
            index = self._index[ids]
        rows = self._start[index] + self._own[index]
        if self._map is not None:
            rows += self._start[index] @ self._map
        self.weight.data[ids] = rows.to(self.weight.dtype)
