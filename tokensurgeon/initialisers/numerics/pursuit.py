"""Orthogonal matching pursuit over many targets at once: the arithmetic of `omp`.

One dictionary, tiles of targets, the same code on CPU and CUDA. Correlations are float32 matrix
products; the basis of each target's chosen atoms is kept orthonormal (Gram-Schmidt, twice), so
a residual costs one product; the coefficients are solved once at the end in float64. It knows
nothing of tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tokensurgeon.initialisers.numerics.shortlist import (
    INDEPENDENT,
    group_of,
    refined_choice,
    shortlist_size,
)

if TYPE_CHECKING:
    import torch

Floats = npt.NDArray[np.float32]

_BLOCK = 32
"""Scores per block of the two-step top-k."""

_CACHED = 1 << 18
"""Floats that a core's cache is trusted to keep."""

_NOISE = 1e-6
"""A residual that correlates less than this, relative to the target, is rounding error."""


@dataclass(frozen=True)
class Pursuit:
    """What was chosen for each target.

    Attributes
    ----------
    support : int64 (n, k)
        Atoms in the order in which they were chosen; -1 where a slot stayed empty.
    coefficients : float64 (n, k)
        Of the atoms as they were given, 0 in empty slots.
    residual : float64 (n,)
        ‖x − coefficients · atoms‖ / ‖x‖.
    """

    support: npt.NDArray[np.int64]
    coefficients: npt.NDArray[np.float64]
    residual: npt.NDArray[np.float64]


def pursue(
    atoms: Floats,
    targets: Floats,
    k: int,
    *,
    normalise: bool = True,
    ridge: float = 0.0,
    tolerance: float = 0.0,
    exact: bool = False,
    forced: npt.NDArray[np.int64] | None = None,
    device: str = "cpu",
    memory_budget: int = 2 << 30,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Pursuit:
    """Write each target as a sum of at most `k` atoms, chosen greedily.

    Parameters
    ----------
    atoms : float32 (n_atoms, width)
        Finite. Zero atoms are never chosen; an atom that depends on those chosen before is
        skipped and its slot stays empty, so coefficients cannot explode.
    targets : float32 (n, width)
    k : int
        Slots per target, at most `n_atoms`.
    normalise : bool
        Choose by the correlation with unit atoms; else with the atoms as given, where long
        atoms win.
    ridge : float
        λ in min ‖x − c·A‖² + λ·s·‖c‖², s the mean squared norm of the atoms.
    tolerance : float
        Stop where ‖residual‖ ≤ tolerance·‖x‖.
    exact : bool
        The greedy choice, with a search of all atoms for each. Else that of `refined`: few
        searches, and atoms that turn out to matter least dropped again.
    forced : int64 (n, m), optional
        Atoms that take the first slots; -1 leaves a slot to the search.

    Returns
    -------
    Pursuit
    """
    import torch

    n = len(targets)
    support = np.full((n, k), -1, dtype=np.int64)
    coefficients = np.zeros((n, k))
    residual = np.zeros(n)
    if not n:
        return Pursuit(support, coefficients, residual)
    choose = greedy_choice if exact else refined_choice
    with torch.no_grad():
        dictionary = Dictionary(atoms, torch.device(device), normalise)
        tile = _tile(len(atoms), atoms.shape[1], k, device, memory_budget)
        for start in range(0, n, tile):
            stop = min(start + tile, n)
            x = torch.from_numpy(np.ascontiguousarray(targets[start:stop])).to(dictionary.device)
            given = None if forced is None else torch.from_numpy(forced[start:stop])
            chosen = choose(dictionary, x, k, tolerance, given)
            support[start:stop] = chosen.cpu().numpy()
            group = group_of(4 * k, x)  # in float64: smaller groups stay in cache
            for at in range(0, len(x), group):
                part = slice(at, at + group)
                solved, left = _solve(dictionary, x[part], chosen[part], ridge)
                coefficients[start:stop][part] = solved.cpu().numpy()
                residual[start:stop][part] = left.cpu().numpy()
            progress(stop, n)
    return Pursuit(support, coefficients, residual)


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

    def __init__(self, atoms: Floats, device: torch.device, normalise: bool) -> None:
        import torch

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
        import torch

        n_atoms = len(self.rows)
        shape = (len(residual), width or n_atoms)
        if self._scores.numel() < shape[0] * shape[1]:
            self._scores = torch.empty(shape[0] * shape[1], device=self.device)
        scores = self._scores[: shape[0] * shape[1]].view(shape)
        scores[:, n_atoms:] = 0.0
        found = scores[:, :n_atoms]
        torch.mm(residual, self.rows.T, out=found)
        found.abs_()
        found *= self.inverse if self.normalise else (self.inverse > 0)
        return scores

    def search(
        self, residual: torch.Tensor, support: torch.Tensor, size: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the `size` best atoms and their scores, descending.

        Those in `support` (-1: none) score -1, and so does what fills a list that is too short.
        """
        import torch

        n_atoms = len(self.rows)
        size = min(size, n_atoms)
        n_blocks = -(-n_atoms // _BLOCK)
        scores = self.correlate(residual, n_blocks * _BLOCK)
        scores[:, n_atoms:] = -1.0
        for each in support.T:
            rows = (each >= 0).nonzero()[:, 0]
            scores[rows, each[rows]] = -1.0
        # The best are in the blocks with the best maxima: one pass, then two short sorts.
        blocks = scores.view(len(scores), n_blocks, _BLOCK)
        where = blocks.amax(dim=2).topk(min(size, n_blocks), dim=1).indices
        near = torch.gather(blocks, 1, where[:, :, None].expand(-1, -1, _BLOCK)).flatten(1)
        best = near.topk(size, dim=1)
        ids = torch.gather(where, 1, best.indices // _BLOCK) * _BLOCK + best.indices % _BLOCK
        return ids.clamp_max(n_atoms - 1), best.values


def _tile(n_atoms: int, width: int, k: int, device: str, memory_budget: int) -> int:
    """Return how many targets fit in the budget; on a device the dictionary has to, too."""
    on_cpu = device == "cpu"
    # Scores and their blocks; the basis of the greedy choice or the supports of the other.
    per_target = 5 * n_atoms + 16 * width * (k + 8) + 32 * k * (k + 32)
    if not on_cpu:  # the whole tile at once: short lists with their Gram matrices
        per_target += 8 * shortlist_size(k) * (width + shortlist_size(k))
    room = memory_budget - (0 if on_cpu else 4 * n_atoms * width)
    return int(np.clip(room // per_target, 1, 512 if on_cpu else 2048))


def greedy_choice(
    dictionary: Dictionary,
    x: torch.Tensor,
    k: int,
    tolerance: float,
    forced: torch.Tensor | None,
) -> torch.Tensor:
    """Return the chosen atoms of a tile of targets, int64 (tile, k), -1 where none."""
    import torch

    n, width = x.shape
    device = dictionary.device
    floor = max(tolerance, _NOISE) * torch.linalg.vector_norm(x, dim=1).clamp_min(1e-30)
    residual = x.clone()
    basis = torch.zeros(n, k, width, device=device)
    tried = torch.zeros(n, k, dtype=torch.int64, device=device)
    taken = torch.zeros(n, k, dtype=torch.bool, device=device)
    active = torch.linalg.vector_norm(residual, dim=1) > floor
    n_forced = 0 if forced is None else forced.shape[1]
    for j in range(k):
        if not bool(active.any()):
            break
        scores = dictionary.correlate(residual)
        if j:
            scores.scatter_(1, tried[:, :j], -1.0)
        atom = scores.argmax(dim=1)
        if forced is not None and j < n_forced:
            wanted = forced[:, j].to(device)
            atom = torch.where(wanted >= 0, wanted, atom)
        direction = dictionary.unit(atom)
        if j:
            _orthogonalise(direction, basis[:, :j])
        length = torch.linalg.vector_norm(direction, dim=1)
        good = active & (length > INDEPENDENT)
        direction *= torch.where(good, 1.0 / length.clamp_min(1e-30), 0.0)[:, None]
        residual -= (residual * direction).sum(dim=1, keepdim=True) * direction
        basis[:, j] = direction
        tried[:, j] = atom
        taken[:, j] = good
        active &= torch.linalg.vector_norm(residual, dim=1) > floor
    return torch.where(taken, tried, -1)


def _orthogonalise(direction: torch.Tensor, basis: torch.Tensor) -> None:
    """Take the span of each `basis` (tile, j, width) out of each `direction`, in place."""
    import torch

    # Blocks whose bases stay in cache: they are read four times. Rows times matrix, because the
    # batched product of a matrix and a column is several times slower on CPU.
    cached = _CACHED // (basis.shape[1] * basis.shape[2])
    block = len(direction) if direction.device.type != "cpu" else max(1, cached)
    for start in range(0, len(direction), block):
        rows, axes = direction[start : start + block, None], basis[start : start + block]
        for _ in range(2):
            rows -= torch.bmm(torch.bmm(rows, axes.transpose(1, 2)), axes)


def _solve(
    dictionary: Dictionary, x: torch.Tensor, chosen: torch.Tensor, ridge: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the coefficients of the chosen atoms as given, and the relative residual norms."""
    import torch

    if dictionary.device.type == "mps":  # has no float64
        x, chosen = x.cpu(), chosen.cpu()
    taken = chosen >= 0
    index = chosen.clamp_min(0).to(dictionary.device)
    atoms = dictionary.rows[index].to(x.device).double()
    norms = torch.where(taken, dictionary.norms[index].to(x.device).double(), 1.0)
    atoms *= (taken / norms)[:, :, None]
    target = x.double()
    gram = torch.bmm(atoms, atoms.transpose(1, 2))
    right = torch.bmm(atoms, target[:, :, None])
    # In units of the given atoms the penalty is λ·s·‖c‖²; in unit atoms it is divided by norm².
    penalty = (ridge * dictionary.mean_square / norms**2).clamp_min(1e-12)
    gram.diagonal(dim1=1, dim2=2).add_(torch.where(taken, penalty, 1.0))
    solved = torch.cholesky_solve(right, torch.linalg.cholesky(gram))
    fitted = torch.bmm(solved.transpose(1, 2), atoms)[:, 0]
    size = torch.linalg.vector_norm(target, dim=1).clamp_min(1e-30)
    left = torch.linalg.vector_norm(target - fitted, dim=1) / size
    return torch.where(taken, solved[:, :, 0] / norms, 0.0), left
