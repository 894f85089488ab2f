"""The atoms of a pursuit on a device, and searches among them."""

from __future__ import annotations

import numpy as np
import torch

from tokensurgeon.arrays import Float32

_BLOCK = 32
"""Scores per block of the two-step top-k: few enough to sort, many enough to leave few maxima."""


class Dictionary:
    """The atoms as given, on the device, with their norms.

    Attributes
    ----------
    rows : float32 (n_atoms, width)
    norms, inverse : float32 (n_atoms,)
        Norms and what makes unit atoms of the rows; `inverse` is 0 for a zero atom.
    normalise : bool
        Whether scores are correlations with unit atoms, or with the atoms as given.
    """

    def __init__(self, atoms: Float32, device: torch.device, normalise: bool) -> None:
        self.device, self.normalise = device, normalise
        self.rows = torch.from_numpy(np.ascontiguousarray(atoms)).to(device)
        self.norms = torch.linalg.vector_norm(self.rows, dim=1)
        usable = self.norms > 1e-12 * self.norms.max().clamp_min(1e-30)
        self.norms = torch.where(usable, self.norms, torch.ones_like(self.norms))
        self.inverse = torch.where(usable, 1.0 / self.norms, 0.0)
        self.mean_square = float((self.norms[usable].double() ** 2).mean()) if usable.any() else 1.0
        self._scores = torch.empty(0, device=device)

    def unit(self, ids: torch.Tensor) -> torch.Tensor:
        """Return unit atoms, (*ids.shape, width), a new tensor."""
        return self.gather(ids).mul_(self.inverse[ids][..., None])

    def gather(self, ids: torch.Tensor) -> torch.Tensor:
        """Return atoms as given, (*ids.shape, width), a new tensor."""
        return self.rows.index_select(0, ids.flatten()).view(*ids.shape, -1)

    def correlate(self, residual: torch.Tensor, width: int | None = None) -> torch.Tensor:
        """Return how well each atom fits each residual, (tile, n_atoms) ≥ 0.

        The memory is used again by the next call. `width` adds columns of zeros.
        """
        n_atoms = len(self.rows)
        shape = (len(residual), width or n_atoms)
        if self._scores.numel() < shape[0] * shape[1]:
            self._scores = torch.empty(shape[0] * shape[1], device=self.device)
        scores = self._scores[: shape[0] * shape[1]].view(shape)
        scores[:, n_atoms:] = 0.0
        fit = scores[:, :n_atoms]
        torch.mm(residual, self.rows.T, out=fit)
        fit.abs_()
        fit *= self.inverse if self.normalise else (self.inverse > 0)
        return scores

    def search(
        self, residual: torch.Tensor, support: torch.Tensor, size: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the `size` best atoms and their scores, descending.

        Those in `support` (-1: none) score -1, and so does what fills a list that is too short.
        """
        n_atoms = len(self.rows)
        size = min(size, n_atoms)
        n_blocks = -(-n_atoms // _BLOCK)
        scores = self.correlate(residual, n_blocks * _BLOCK)
        scores[:, n_atoms:] = -1.0
        for atoms in support.T:
            rows = (atoms >= 0).nonzero()[:, 0]
            scores[rows, atoms[rows]] = -1.0
        # The best are in the blocks with the best maxima: one pass, then two short sorts.
        parts = scores.view(len(scores), n_blocks, _BLOCK)
        where = parts.amax(dim=2).topk(min(size, n_blocks), dim=1).indices
        near = torch.gather(parts, 1, where[:, :, None].expand(-1, -1, _BLOCK)).flatten(1)
        best = near.topk(size, dim=1)
        ids = torch.gather(where, 1, best.indices // _BLOCK) * _BLOCK + best.indices % _BLOCK
        return ids.clamp_max(n_atoms - 1), best.values
