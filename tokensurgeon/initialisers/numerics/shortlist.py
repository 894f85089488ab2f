"""The fast choice of `omp`: few searches of the dictionary, more atoms than asked, the worst out.

Exact greedy pursuit searches the whole dictionary for every atom. Here a search leaves a short
list, from which atoms are chosen as long as they score above what the search left out; a few more
than k are taken, and the ones that matter least are dropped again (backward elimination), which
greedy choice cannot do. The Gram matrices of the short list and of the chosen atoms are small,
and a choice in them costs a row (pivoted Cholesky; Rubinstein 2008, "Batch-OMP", for the idea of
choosing in the Gram matrix).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from tokensurgeon.initialisers.numerics.dictionary import Dictionary

INDEPENDENT = 1e-2
"""Least sine of the angle between a new unit atom and the span of those chosen before it: nearer
ones get coefficients that explode."""

NOISE = 1e-5
"""A residual below this share of the target is rounding error: Gram matrices in float32 lose more
digits than an orthonormal basis does."""

_AT_ONCE = 8
"""Pivots after which a Gram matrix is brought up to date: one product in the place of eight."""

_FLOATS = 1 << 23
"""Floats of short-listed atoms that one group of targets may take: 32 MB."""


def shortlist_size(k: int) -> int:
    """Return how many atoms of a search stay in the running."""
    return int(np.clip(2 * k, 64, 96))


@dataclass(frozen=True)
class Pace:
    """How far one search is trusted.

    Attributes
    ----------
    trust : float
        A short list is used while its best score is this share of the best that it left out.
    growth : int
        So many atoms chosen before allow one that is not trusted.
    rounds : int
        How often more than k atoms are taken and the worst dropped again.
    """

    trust: float
    growth: int
    rounds: int


def group_of(n_atoms: int, x: torch.Tensor) -> int:
    """Return how many targets to treat at once, with so many atoms gathered for each."""
    if x.device.type != "cpu":
        return max(1, len(x))
    return max(1, _FLOATS // (n_atoms * x.shape[1]))


def shortlist_choice(
    dictionary: Dictionary,
    x: torch.Tensor,
    k: int,
    tolerance: float,
    forced: torch.Tensor | None,
) -> torch.Tensor:
    """Return the chosen atoms of a tile of targets, int64 (tile, k), -1 where none."""
    n, device = len(x), x.device
    room = k + int(np.clip(k // 2, 4, 24))  # more than k are taken, and the worst dropped
    size = torch.linalg.vector_norm(x, dim=1)
    stop_at = max(tolerance, NOISE) * size
    support = torch.full((n, room), -1, dtype=torch.int64, device=device)
    count = torch.zeros(n, dtype=torch.int64, device=device)
    if forced is not None and forced.shape[1]:
        first = independent(dictionary, forced.to(device))
        support[:, : first.shape[1]] = first
        count = (first >= 0).sum(dim=1)
    fixed = count.clone()
    group = group_of(shortlist_size(k), x)
    # The pace that leaves no more than the greedy choice. Among atoms of many lengths, that leaves
    # much to gain. Unit atoms, and so many that they nearly span the space, leave little.
    little = dictionary.normalise or 4 * k > x.shape[1]
    pace = Pace(1.2, 16, 2) if little else Pace(0.8, 3, 1)
    rounds = torch.full_like(count, pace.rounds)
    searching = ((size > 0) & (fixed < k)).nonzero()[:, 0]
    while len(searching):
        used = int(count[searching].max())
        parts = [
            _residual(dictionary, x[part], support[part, :used])
            for part in torch.split(searching, group)
        ]
        left, factor = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        open_ = torch.linalg.vector_norm(left, dim=1) > stop_at[searching]
        if not bool(open_.all()):
            searching, left, factor = searching[open_], left[open_], factor[open_]
            if not len(searching):
                break
        ids, scores = dictionary.search(left, support[searching, :used], shortlist_size(k))
        stuck = []
        for at in torch.split(torch.arange(len(searching), device=device), group):
            part = searching[at]
            chosen, taken = _forward(
                dictionary,
                left[at],
                (support[part, :used], factor[at]),
                (ids[at], scores[at]),
                (count[part], k, room, stop_at[part]),
                pace,
            )
            support[part], count[part] = _append(support[part], count[part], chosen, taken)
            stuck.append(taken == 0)
            full = part[count[part] > k]
            if len(full):
                support[full] = _eliminate(dictionary, x[full], support[full], fixed[full], k)
                count[full] = k
            rounds[part[count[part] == k]] -= 1
        searching = searching[~torch.cat(stuck) & (rounds[searching] > 0)]
    return support[:, :k]


def independent(dictionary: Dictionary, wanted: torch.Tensor) -> torch.Tensor:
    """Return `wanted` (tile, m) without the atoms that depend on those before them.

    What stays moves to the front, in order; -1 fills the rest.
    """
    n, m = wanted.shape
    basis = torch.zeros(n, m, dictionary.rows.shape[1], device=wanted.device)
    kept = torch.full_like(wanted, -1)
    count = torch.zeros(n, dtype=torch.int64, device=wanted.device)
    target = torch.arange(n, device=wanted.device)
    for j in range(m):
        atom = wanted[:, j]
        direction = dictionary.unit(atom.clamp_min(0))
        for _ in range(2):
            inside = torch.bmm(basis[:, :j], direction[:, :, None])
            direction = direction - torch.bmm(inside.transpose(1, 2), basis[:, :j])[:, 0]
        length = torch.linalg.vector_norm(direction, dim=1)
        good = (atom >= 0) & (length > INDEPENDENT)
        basis[good, j] = direction[good] / length[good, None]
        kept[target[good], count[good]] = atom[good]
        count += good
    return kept


def _atoms(dictionary: Dictionary, support: torch.Tensor) -> torch.Tensor:
    """Return unit atoms (tile, m, width), zero where `support` is -1."""
    atoms = dictionary.unit(support.clamp_min(0))
    atoms *= (support >= 0)[:, :, None]
    return atoms


def _gram(atoms: torch.Tensor, support: torch.Tensor) -> torch.Tensor:
    """Return their Gram matrix, with 1 on the diagonal where there is none."""
    gram = torch.bmm(atoms, atoms.transpose(1, 2))
    gram.diagonal(dim1=1, dim2=2).add_((support < 0).float() + 1e-7)
    return gram


def _residual(
    dictionary: Dictionary, x: torch.Tensor, support: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what the chosen atoms leave of each target, and the Cholesky factor of their Gram."""
    if not support.shape[1]:
        return x, torch.zeros(len(x), 0, 0, device=x.device)
    atoms = _atoms(dictionary, support)
    factor = torch.linalg.cholesky(_gram(atoms, support))
    left = x
    for _ in range(2):  # the second time takes out what rounding left
        right = torch.bmm(atoms, left[:, :, None])
        solved = torch.cholesky_solve(right, factor)
        left = left - torch.bmm(solved.transpose(1, 2), atoms)[:, 0]
    return left, factor


def _forward(
    dictionary: Dictionary,
    residual: torch.Tensor,
    before: tuple[torch.Tensor, torch.Tensor],
    shortlist: tuple[torch.Tensor, torch.Tensor],
    limits: tuple[torch.Tensor, int, int, torch.Tensor],
    pace: Pace,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Choose greedily in the short list of one search; the first `taken` of each row count.

    `before` is the support (n, m) and the Cholesky factor of its Gram matrix, `shortlist` ids
    (n, s) and their scores, descending, below 0 for those not to be had. `limits` are the atoms
    so far (n,), k, the most atoms, and the residual norm to stop at (n,).
    """
    support, factor = before
    ids, scores = shortlist
    least = scores[:, -1]
    count, k, room, stop_at = limits
    n, s = ids.shape
    target = torch.arange(n, device=ids.device)
    near = dictionary.gather(ids)
    scale = dictionary.inverse[ids]
    gram = torch.bmm(near, near.transpose(1, 2))
    gram *= scale[:, :, None]
    gram *= scale[:, None, :]
    fit = torch.bmm(residual[:, None], near.transpose(1, 2))[:, 0] * scale
    if support.shape[1]:
        cross = torch.bmm(_atoms(dictionary, support), near.transpose(1, 2))
        cross *= scale[:, None, :]
        inside = torch.linalg.solve_triangular(factor, cross, upper=False)
        gram -= torch.bmm(inside.transpose(1, 2), inside)
    weight = None if dictionary.normalise else dictionary.norms[ids]
    rest = gram.diagonal(dim1=1, dim2=2).clone()  # squared sines to the span of what is chosen
    rest = torch.where(scores >= 0, rest, -1.0)
    square = (residual**2).sum(dim=1)
    steps = int(min(room - int(count.min()), s))
    past = torch.empty(n, _AT_ONCE, s, device=ids.device)
    chosen = torch.zeros(n, steps, dtype=torch.int64, device=ids.device)
    taken = torch.zeros_like(count)
    going = torch.ones(n, dtype=torch.bool, device=ids.device)
    for step in range(steps):
        score = fit.abs() if weight is None else fit.abs() * weight
        score = torch.where(rest > INDEPENDENT**2, score, -1.0)
        best, pick = score.max(dim=1)
        total = count + taken
        # The first of a search is the best of all; what may be dropped again needs no trust.
        trusted = (best >= pace.trust * least) | (taken <= count // pace.growth) | (total >= k)
        going &= (best > 0) & trusted & (total < room) & (square > stop_at**2)
        if not bool(going.any()):
            break
        pivot = rest[target, pick].clamp_min(INDEPENDENT**2)
        component = _row(gram, past[:, : step % _AT_ONCE], target, pick)
        component *= (going / pivot.sqrt())[:, None]
        gain = fit[target, pick] / pivot.sqrt()
        fit -= gain[:, None] * component
        rest -= component**2
        rest[target, pick] = torch.where(going, -1.0, rest[target, pick])
        square -= torch.where(going, gain**2, 0.0)
        past[:, step % _AT_ONCE] = component
        if (step + 1) % _AT_ONCE == 0:
            gram.baddbmm_(past.transpose(1, 2), past, alpha=-1)
        chosen[:, step] = ids[target, pick]
        taken += going
    return chosen, taken


def _row(
    gram: torch.Tensor, past: torch.Tensor, target: torch.Tensor, pick: torch.Tensor
) -> torch.Tensor:
    """Return row `pick` of each Gram matrix, less what the pivots of `past` took from it."""
    row = gram[target, pick]
    if past.shape[1]:
        share = torch.gather(past, 2, pick[:, None, None].expand(-1, past.shape[1], 1))
        row -= (share * past).sum(dim=1)
    return row


def _append(
    support: torch.Tensor, count: torch.Tensor, chosen: torch.Tensor, taken: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Put the first `taken` of `chosen` behind the first `count` of `support`."""
    slots = torch.arange(chosen.shape[1], device=chosen.device)[None]
    valid = slots < taken[:, None]
    row = torch.arange(len(support), device=chosen.device)[:, None].expand_as(valid)
    support = support.clone()
    support[row[valid], (count[:, None] + slots)[valid]] = chosen[valid]
    return support, count + taken


def _eliminate(
    dictionary: Dictionary, x: torch.Tensor, support: torch.Tensor, fixed: torch.Tensor, k: int
) -> torch.Tensor:
    """Drop the atoms whose loss costs least, one by one, until `k` are left; -1 fills the rest."""
    n, m = support.shape
    target = torch.arange(n, device=x.device)
    atoms = _atoms(dictionary, support)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(_gram(atoms, support)))
    fit = torch.bmm(inverse, torch.bmm(atoms, x[:, :, None]))[:, :, 0]
    rest = inverse.diagonal(dim1=1, dim2=2).clone()
    gone = support < 0
    keep = gone | (torch.arange(m, device=x.device)[None] < fixed[:, None])
    number = (support >= 0).sum(dim=1) - k
    steps = int(number.max())
    past = torch.empty(n, _AT_ONCE, m, device=x.device)
    for step in range(steps):
        # Without atom i the squared residual grows by c_i² / (G⁻¹)_ii.
        cost = torch.where(keep, torch.inf, fit**2 / rest.clamp_min(1e-12))
        pick = cost.argmin(dim=1)
        going = number > step
        pivot = rest[target, pick].clamp_min(1e-12)
        component = _row(inverse, past[:, : step % _AT_ONCE], target, pick)
        component *= (going / pivot.sqrt())[:, None]
        fit -= (fit[target, pick] / pivot.sqrt())[:, None] * component
        rest -= component**2
        gone[target, pick] |= going
        keep[target, pick] |= going
        past[:, step % _AT_ONCE] = component
        if (step + 1) % _AT_ONCE == 0:
            inverse.baddbmm_(past.transpose(1, 2), past, alpha=-1)
    order = gone.to(torch.int8).argsort(dim=1, stable=True)
    kept = torch.where(gone, -1, support)
    return torch.gather(kept, 1, order)
