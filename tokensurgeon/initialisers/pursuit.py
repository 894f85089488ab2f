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

if TYPE_CHECKING:
    import torch

Floats = npt.NDArray[np.float32]

_INDEPENDENT = 1e-2
"""Least sine of the angle between a new unit atom and the span of those chosen before it."""

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
    with torch.no_grad():
        dictionary = _Dictionary(atoms, torch.device(device), normalise)
        tile = _tile(len(atoms), atoms.shape[1], k, memory_budget)
        for start in range(0, n, tile):
            stop = min(start + tile, n)
            x = torch.from_numpy(np.ascontiguousarray(targets[start:stop])).to(dictionary.device)
            given = None if forced is None else torch.from_numpy(forced[start:stop])
            chosen = _choose(dictionary, x, k, tolerance, given)
            solved, left = _solve(dictionary, x, chosen, ridge)
            support[start:stop] = chosen.cpu().numpy()
            coefficients[start:stop] = solved.cpu().numpy()
            residual[start:stop] = left.cpu().numpy()
            progress(stop, n)
    return Pursuit(support, coefficients, residual)


class _Dictionary:
    """Unit atoms on the device, with their norms."""

    def __init__(self, atoms: Floats, device: torch.device, normalise: bool) -> None:
        import torch

        self.device = device
        rows = torch.from_numpy(np.ascontiguousarray(atoms)).to(device)
        self.norms = torch.linalg.vector_norm(rows, dim=1)
        usable = self.norms > 1e-12 * self.norms.max().clamp_min(1e-30)
        self.norms = torch.where(usable, self.norms, torch.ones_like(self.norms))
        self.unit = rows / self.norms[:, None]
        self.unit[~usable] = 0.0
        self.mean_square = float((self.norms[usable].double() ** 2).mean()) if usable.any() else 1.0
        self.weights = None if normalise else self.norms / self.norms.max()

    def correlate(self, residual: torch.Tensor) -> torch.Tensor:
        """Return how well each atom fits each residual, (tile, n_atoms) ≥ 0."""
        scores: torch.Tensor = (residual @ self.unit.T).abs_()
        if self.weights is not None:
            scores *= self.weights
        return scores


def _tile(n_atoms: int, width: int, k: int, memory_budget: int) -> int:
    """Return how many targets fit in what the budget leaves beside the dictionary."""
    per_target = 4 * n_atoms + 4 * width * (k + 8) + 8 * (3 * k * k + 2 * k * width)
    room = memory_budget - 8 * n_atoms * width
    return int(np.clip(room // per_target, 1, 256))


def _choose(
    dictionary: _Dictionary,
    x: torch.Tensor,
    k: int,
    tolerance: float,
    forced: torch.Tensor | None,
) -> torch.Tensor:
    """Return the chosen atoms of a tile of targets, int64 (tile, k), -1 where none."""
    import torch

    n, width = x.shape
    device = dictionary.device
    norm = torch.linalg.vector_norm(x, dim=1).clamp_min(1e-30)
    floor = max(tolerance, _NOISE) * norm
    residual = x.clone()
    basis = torch.zeros(n, k, width, device=device)
    tried = torch.zeros(n, k, dtype=torch.int64, device=device)
    taken = torch.zeros(n, k, dtype=torch.bool, device=device)
    active = torch.linalg.vector_norm(residual, dim=1) > floor
    for j in range(k):
        if not bool(active.any()):
            break
        scores = dictionary.correlate(residual)
        if j:
            scores.scatter_(1, tried[:, :j], -1.0)
        atom = scores.argmax(dim=1)
        best = scores.gather(1, atom[:, None])[:, 0]
        if forced is not None and j < forced.shape[1]:
            wanted = forced[:, j].to(device)
            atom = torch.where(wanted >= 0, wanted, atom)
            best = torch.where(wanted >= 0, norm, best)
        direction = dictionary.unit[atom]
        if j:
            _orthogonalise(direction, basis[:, :j])
        length = torch.linalg.vector_norm(direction, dim=1)
        good = active & (length > _INDEPENDENT) & (best > 0)
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
    dictionary: _Dictionary, x: torch.Tensor, chosen: torch.Tensor, ridge: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the coefficients of the chosen atoms as given, and the relative residual norms."""
    import torch

    if dictionary.device.type == "mps":  # has no float64
        x, chosen = x.cpu(), chosen.cpu()
    units, all_norms = dictionary.unit.to(x.device), dictionary.norms.to(x.device)
    taken = chosen >= 0
    index = chosen.clamp_min(0)
    atoms = units[index].double() * taken[:, :, None]
    norms = torch.where(taken, all_norms[index].double(), 1.0)
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
