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

SHORTLIST = 128
"""Atoms that stay in the running between two searches of the whole dictionary."""

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
    per_search: int = 1,
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
    per_search : int
        Most atoms chosen after one search of the whole dictionary: the first is the best of all,
        the others come from the best `SHORTLIST` of that search. 1 is the exact greedy choice,
        and so is any number where there are at most 32 times `SHORTLIST` atoms.
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
        tile = _tile(len(atoms), atoms.shape[1], k, per_search, memory_budget)
        for start in range(0, n, tile):
            stop = min(start + tile, n)
            x = torch.from_numpy(np.ascontiguousarray(targets[start:stop])).to(dictionary.device)
            given = None if forced is None else torch.from_numpy(forced[start:stop])
            chosen = _choose(dictionary, x, k, tolerance, per_search, given)
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


def _tile(n_atoms: int, width: int, k: int, per_search: int, memory_budget: int) -> int:
    """Return how many targets fit in what the budget leaves beside the dictionary."""
    per_target = 4 * n_atoms + 4 * width * (k + 8) + 8 * (3 * k * k + 2 * k * width)
    if per_search > 1:
        per_target += 8 * n_atoms + 4 * SHORTLIST * (2 * width + SHORTLIST + k + per_search)
    room = memory_budget - 8 * n_atoms * width
    return int(np.clip(room // per_target, 1, 256))


def _choose(
    dictionary: _Dictionary,
    x: torch.Tensor,
    k: int,
    tolerance: float,
    per_search: int,
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
    small = dictionary.unit.shape[0] <= 32 * SHORTLIST  # a search costs no more than a short list
    ahead: list[torch.Tensor] = []
    for j in range(k):
        if not bool(active.any()):
            break
        if not ahead:
            scores = dictionary.correlate(residual)
            if j:
                scores.scatter_(1, tried[:, :j], -1.0)
            # The first atoms change everything (they take out what all rows have in common), so
            # a search is trusted for as many atoms as were chosen before it.
            several = 1 if j < n_forced or small else min(per_search, k - j, max(1, j))
            if several > 1:
                ahead = _shortlisted(dictionary, scores, residual, basis[:, :j], several)
            else:
                ahead = [scores.argmax(dim=1)]
        atom = ahead.pop(0)
        if forced is not None and j < n_forced:
            wanted = forced[:, j].to(device)
            atom = torch.where(wanted >= 0, wanted, atom)
        direction = dictionary.unit[atom]
        if j:
            _orthogonalise(direction, basis[:, :j])
        length = torch.linalg.vector_norm(direction, dim=1)
        good = active & (length > _INDEPENDENT)
        direction *= torch.where(good, 1.0 / length.clamp_min(1e-30), 0.0)[:, None]
        residual -= (residual * direction).sum(dim=1, keepdim=True) * direction
        basis[:, j] = direction
        tried[:, j] = atom
        taken[:, j] = good
        active &= torch.linalg.vector_norm(residual, dim=1) > floor
    return torch.where(taken, tried, -1)


def _shortlisted(
    dictionary: _Dictionary,
    scores: torch.Tensor,
    residual: torch.Tensor,
    basis: torch.Tensor,
    count: int,
) -> list[torch.Tensor]:
    """Return the next `count` greedy choices among the best `SHORTLIST` of a search.

    The short list's atoms, less what the basis spans, have a small Gram matrix; in it a choice
    costs a row, not a product with the dictionary.
    """
    import torch

    ids = scores.topk(min(SHORTLIST, scores.shape[1]), dim=1).indices
    gram = torch.empty(*ids.shape, ids.shape[1], device=ids.device)
    fits = torch.empty_like(gram[:, 0])
    on_cpu = ids.device.type == "cpu"
    block = max(1, 4 * _CACHED // (ids.shape[1] * residual.shape[1])) if on_cpu else len(ids)
    for start in range(0, len(ids), block):
        part = slice(start, start + block)
        near = dictionary.unit[ids[part]]
        torch.bmm(near, near.transpose(1, 2), out=gram[part])
        fits[part] = torch.bmm(residual[part, None], near.transpose(1, 2))[:, 0]
        if basis.shape[1]:
            inside = torch.bmm(near, basis[part].transpose(1, 2))
            gram[part] -= torch.bmm(inside, inside.transpose(1, 2))
    left = gram.diagonal(dim1=1, dim2=2).clone()
    weights = 1.0 if dictionary.weights is None else dictionary.weights[ids]
    rows = torch.arange(len(ids), device=ids.device)
    past: list[torch.Tensor] = []
    chosen: list[torch.Tensor] = []
    open_ = torch.ones_like(left, dtype=torch.bool)
    for _ in range(count):
        usable = open_ & (left > _INDEPENDENT**2)
        place = torch.where(usable, fits.abs() * weights, -open_.logical_not().float()).argmax(1)
        chosen.append(ids[rows, place])
        open_[rows, place] = False
        component = gram[rows, place].clone()
        for each in past:
            component -= each[rows, place][:, None] * each
        component /= left[rows, place].clamp_min(_INDEPENDENT**2).sqrt()[:, None]
        fits -= (fits[rows, place] / left[rows, place].clamp_min(_INDEPENDENT**2).sqrt())[
            :, None
        ] * component
        left -= component**2
        past.append(component)
    return chosen


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
