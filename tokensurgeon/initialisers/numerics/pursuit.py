"""Orthogonal matching pursuit over many targets at once: the arithmetic of `omp`.

One dictionary, tiles of targets, the same code on CPU and CUDA. Correlations are float32 matrix
products; the basis of each target's chosen atoms is kept orthonormal (Gram-Schmidt, twice), so
a residual costs one product; the coefficients are solved once at the end in float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from tokensurgeon.arrays import Float32, Float64, Ids, blocks
from tokensurgeon.initialisers.numerics.dictionary import Dictionary
from tokensurgeon.initialisers.numerics.shortlist import (
    INDEPENDENT,
    group_of,
    shortlist_choice,
    shortlist_size,
)
from tokensurgeon.spaces.work import ON_CPU, Work

_CACHED = 1 << 18
"""Float32 that a core's cache is trusted to keep: 1 MiB."""

_NOISE = 1e-6
"""A residual below this share of the target is float32's rounding error."""


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

    support: Ids
    coefficients: Float64
    residual: Float64


def pursue(
    atoms: Float32,
    targets: Float32,
    k: int,
    *,
    normalise: bool = True,
    ridge: float = 0.0,
    tolerance: float = 0.0,
    exact: bool = False,
    forced: Ids | None = None,
    work: Work = ON_CPU,
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
        The greedy choice, with a search of all atoms for each. Else that of `shortlist`: few
        searches, and atoms that turn out to matter least dropped again.
    forced : int64 (n, m), optional
        Atoms that take the first slots; -1 leaves a slot to the search.
    work : Work
    """
    n = len(targets)
    support = np.full((n, k), -1, dtype=np.int64)
    coefficients = np.zeros((n, k))
    residual = np.zeros(n)
    if not n:
        return Pursuit(support, coefficients, residual)
    choose = greedy_choice if exact else shortlist_choice
    with torch.no_grad():
        dictionary = Dictionary(atoms, torch.device(work.device), normalise)
        tile = _tile(len(atoms), atoms.shape[1], k, work)
        for rows in blocks(n, tile):
            x = torch.from_numpy(np.ascontiguousarray(targets[rows])).to(dictionary.device)
            first = None if forced is None else torch.from_numpy(forced[rows])
            chosen = choose(dictionary, x, k, tolerance, first)
            support[rows] = chosen.cpu().numpy()
            group = group_of(4 * k, x)  # in float64: smaller groups stay in cache
            for part in blocks(len(x), group):
                solved, left = _solve(dictionary, x[part], chosen[part], ridge)
                coefficients[rows][part] = solved.cpu().numpy()
                residual[rows][part] = left.cpu().numpy()
            work.progress(rows.stop, n)
    return Pursuit(support, coefficients, residual)


def _tile(n_atoms: int, width: int, k: int, work: Work) -> int:
    """Return how many targets fit in the budget; on a device the dictionary has to, too."""
    on_cpu = work.device == "cpu"
    # Scores and their blocks; the basis of the greedy choice or the supports of the other.
    per_target = 5 * n_atoms + 16 * width * (k + 8) + 32 * k * (k + 32)
    if not on_cpu:  # the whole tile at once: short lists with their Gram matrices
        per_target += 8 * shortlist_size(k) * (width + shortlist_size(k))
    room = work.memory_budget - (0 if on_cpu else 4 * n_atoms * width)
    return int(np.clip(room // per_target, 1, 512 if on_cpu else 2048))


def greedy_choice(
    dictionary: Dictionary,
    x: torch.Tensor,
    k: int,
    tolerance: float,
    forced: torch.Tensor | None,
) -> torch.Tensor:
    """Return the chosen atoms of a tile of targets, int64 (tile, k), -1 where none."""
    n, width = x.shape
    device = dictionary.device
    stop_at = max(tolerance, _NOISE) * torch.linalg.vector_norm(x, dim=1).clamp_min(1e-30)
    residual = x.clone()
    basis = torch.zeros(n, k, width, device=device)
    tried = torch.zeros(n, k, dtype=torch.int64, device=device)
    taken = torch.zeros(n, k, dtype=torch.bool, device=device)
    active = torch.linalg.vector_norm(residual, dim=1) > stop_at
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
        active &= torch.linalg.vector_norm(residual, dim=1) > stop_at
    return torch.where(taken, tried, -1)


def _orthogonalise(direction: torch.Tensor, basis: torch.Tensor) -> None:
    """Take the span of each `basis` (tile, j, width) out of each `direction`, in place."""
    # Blocks whose bases stay in cache: they are read four times. Rows times matrix, because the
    # batched product of a matrix and a column is several times slower on CPU.
    cached = _CACHED // (basis.shape[1] * basis.shape[2])
    size = len(direction) if direction.device.type != "cpu" else cached
    for part in blocks(len(direction), size):
        rows, axes = direction[part, None], basis[part]
        for _ in range(2):
            rows -= torch.bmm(torch.bmm(rows, axes.transpose(1, 2)), axes)


def _solve(
    dictionary: Dictionary, x: torch.Tensor, chosen: torch.Tensor, ridge: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the coefficients of the chosen atoms as given, and the relative residual norms."""
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
