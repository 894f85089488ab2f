"""Refit all output rows to a text: iteratively reweighted least squares on cached states.

Given the final states of the patched model, its output rows are a multinomial logistic regression
of the next token on the state. A round solves one small ridge system per token; the likelihood is
concave in the rows, nothing is differentiated through the model's body, and its states are computed
once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from tokensurgeon.calibration.contract import Candidate, Candidates, Ids, Matrices, Rows, blocks
from tokensurgeon.calibration.output_rows import whitener
from tokensurgeon.calibration.workbench import LOGITS, Workbench

if TYPE_CHECKING:
    import torch

MOST_ROUNDS = 8
RIDGE = 128.0
"""λ: as if a token had been seen so often where its row is right already. 32 wins less on text of
the same kind and loses on other text; 512 wins less on both."""
MOST_LOGITS = 1 << 30
"""In one round: where states times rows are more, expectations are taken over evenly spaced
states."""
LEAST_SHARE = 0.01
"""A token's places where its probability is above this enter its system one by one; the rest of
its mass as if it lay on states like all others."""
MOST_PLACES = 128
"""Of one token; its likeliest."""
OFTEN = 64
"""Of a token that the thinned states show so often, observations are taken from them too: what is
observed and what is expected then err alike."""
STEPS = (1.0, 0.5, 0.25, 0.125)
"""Of a round, tried on states of the same text."""
TRIED_ON = 4_000
"""States."""
TOKENS_AT_ONCE = 128


@dataclass(frozen=True)
class Follows:
    """Which tokens follow states, and how surely; the weights of one state sum to one.

    Attributes
    ----------
    places : int64 (m,)
        States, ascending.
    tokens : int64 (m,)
    weights : float32 (m,)
    """

    places: Ids
    tokens: Ids
    weights: npt.NDArray[np.float32]

    @classmethod
    def of_text(cls, tokens: Ids) -> Follows:
        """Return that one token follows each state, as a text has it."""
        return cls(np.arange(len(tokens)), tokens, np.ones(len(tokens), dtype=np.float32))

    def thinned(self, step: int) -> Follows:
        """Return what follows every `step`-th state, those numbered anew."""
        kept = self.places % step == 0
        return Follows(self.places[kept] // step, self.tokens[kept], self.weights[kept])

    def sums(self, flat: torch.Tensor, n_rows: int) -> torch.Tensor:
        """Return the weighted sum of the states before each token, float32 (n_rows, width)."""
        import torch

        total = torch.zeros((n_rows, flat.shape[1]), device=flat.device)
        for part in blocks(len(self.places), max(1, LOGITS // flat.shape[1])):
            place, token, weight = (
                torch.from_numpy(each[part]).to(flat.device)
                for each in (self.places, self.tokens, self.weights)
            )
            total.index_add_(0, token, flat[place] * weight[:, None])
        return total


class Refit:
    """U ← argmax of the text's log-likelihood − λ/2·‖U − U₀‖²_G, a few rounds of it.

    For each token t, with h the patched model's state before a token and p its probability of t,
    u_t ← u_t + α(Σ p(1 − p)hhᵀ + λG)⁻¹ Σ (1[t follows] − p)h, G the mean of hhᵀ; α is the best
    of a few on states of the same text. Rows that the text hardly shows hardly move.
    """

    name: ClassVar[str] = "refit"
    changes_shared: ClassVar[bool] = True
    two_matrices: ClassVar[bool] = False

    def __call__(self, bench: Workbench, matrices: Matrices) -> Candidates:
        """Yield rounds over all rows for as long as they help; if none does, of the new rows."""
        states, after_each = bench.next_tokens(matrices)
        follows = Follows.of_text(after_each)
        for which, ids in (("all", np.union1d(bench.new, bench.shared)), ("new", bench.new)):
            after = matrices
            for rounds in range(1, MOST_ROUNDS + 1):
                after = refit_once(bench, after, states, follows, ids)
                settings = {"rows": which, "rounds": rounds, "ridge": RIDGE}
                if (yield Candidate(settings, after)) is False:
                    break
            if rounds > 1:
                break


def refit_once(
    bench: Workbench,
    matrices: Matrices,
    states: Rows,
    follows: Follows,
    ids: Ids,
    ridge: float = RIDGE,
) -> Matrices:
    """Return the matrices after one round.

    Parameters
    ----------
    states : float32 (n, width)
        Of the patched model.
    follows : Follows
        What comes after each.
    ids : int64
        Rows that may change.
    ridge : float
        λ.
    """
    import torch

    device, n_rows = bench.context.device, len(matrices.output)
    whiten = torch.from_numpy(whitener(states).astype(np.float32)).to(device)
    thin = max(1, -(-len(states) * n_rows // MOST_LOGITS))
    thinned, after = np.ascontiguousarray(states[::thin]), follows.thinned(thin)
    flat = torch.from_numpy(thinned).to(device) @ whiten
    found = _expect(bench, matrices, thinned, flat)
    observed = after.sums(flat, n_rows)
    if thin > 1:
        counts = np.bincount(after.tokens, after.weights, minlength=n_rows)
        rare = torch.from_numpy(counts < OFTEN).to(device)
        whole = follows.sums(torch.from_numpy(states).to(device) @ whiten, n_rows)
        observed = torch.where(rare[:, None], whole, observed * thin)
    gap = observed - found.states * thin
    step = torch.zeros_like(gap)
    # Tokens with about as many places share a batch of systems of that size; most have none.
    every = torch.from_numpy(ids).to(device)
    every = every[torch.argsort(found.starts[every + 1] - found.starts[every], stable=True)]
    for part in blocks(len(ids), TOKENS_AT_ONCE):
        at = every[part]
        step[at] = _solve(found, flat, at, gap[at], ridge, thin)
    direction = (step @ whiten.T / bench.model.logit_scale).cpu().numpy()
    return _best_step(bench, matrices, direction, states, follows)


@dataclass(frozen=True)
class _Expected:
    """What the model expects over some states.

    Attributes
    ----------
    states : float32 (n_rows, width)
        Sum of p·h, h in white coordinates.
    mass : float32 (n_rows,)
        Sum of p.
    places, shares : (n_pairs,)
        States at which a token's p is large, and that p, by token.
    starts : int64 (n_rows + 1,)
        Where each token's pairs begin.
    """

    states: torch.Tensor
    mass: torch.Tensor
    places: torch.Tensor
    shares: torch.Tensor
    starts: torch.Tensor


def _expect(bench: Workbench, matrices: Matrices, states: Rows, flat: torch.Tensor) -> _Expected:
    import torch

    n_rows = len(matrices.output)
    sums, mass = torch.zeros((n_rows, flat.shape[1]), device=flat.device), None
    places, tokens, shares = [], [], []
    for part in blocks(len(states), max(1, LOGITS // n_rows)):
        p = bench.log_softmax(states[part], matrices.output, matrices.bias).exp_()
        sums.addmm_(p.T, flat[part])
        mass = p.sum(0) if mass is None else mass + p.sum(0)
        where = (p > LEAST_SHARE).nonzero()
        places.append(where[:, 0] + part.start)
        tokens.append(where[:, 1])
        shares.append(p[where[:, 0], where[:, 1]])
    assert mass is not None
    place, token, share = torch.cat(places), torch.cat(tokens), torch.cat(shares)
    order = torch.argsort(share, descending=True)
    order = order[torch.argsort(token[order], stable=True)]
    starts = torch.searchsorted(
        token[order].contiguous(), torch.arange(n_rows + 1, device=flat.device)
    )
    return _Expected(sums, mass, place[order], share[order], starts)


def _solve(
    found: _Expected,
    flat: torch.Tensor,
    ids: torch.Tensor,
    gap: torch.Tensor,
    ridge: float,
    thin: int,
) -> torch.Tensor:
    """Return (X'X + rI)⁻¹ gap for each token, X its likeliest states times √(p(1 − p)).

    In white coordinates G is the identity, so r is λ and the mass that X leaves out.
    """
    import torch

    first, last = found.starts[ids], found.starts[ids + 1]
    n_places = min(MOST_PLACES, int((last - first).max()))
    if n_places == 0:
        return gap / (found.mass[ids] * thin + ridge)[:, None]
    at = first[:, None] + torch.arange(n_places, device=flat.device)
    here = at < last[:, None]
    at = at.clamp_max(len(found.places) - 1)
    share = torch.where(here, found.shares[at], 0.0)
    rest = (found.mass[ids] - share.sum(1)).clamp_min(0.0) * thin + ridge
    scaled = flat[found.places[at]] * (share * (1 - share) * thin).sqrt()[..., None]
    plain = gap / rest[:, None]
    # Woodbury: as many unknowns as places.
    inner = scaled @ scaled.transpose(1, 2) / rest[:, None, None]
    inner += torch.eye(n_places, device=flat.device)
    seen = scaled @ plain[..., None]
    back: torch.Tensor = scaled.transpose(1, 2) @ torch.linalg.solve(inner, seen)
    return plain - back[..., 0] / rest[:, None]


def _best_step(
    bench: Workbench, matrices: Matrices, direction: Rows, states: Rows, follows: Follows
) -> Matrices:
    """Return the matrices a step along `direction`, as long as serves some states best."""
    thin = max(1, len(states) // TRIED_ON)
    some, after = np.ascontiguousarray(states[::thin]), follows.thinned(thin)
    best: tuple[float, Matrices] | None = None
    for length in STEPS:
        moved = matrices.with_output(matrices.output + np.float32(length) * direction)
        loss = 0.0
        for part in blocks(len(some), max(1, LOGITS // len(moved.output))):
            scores = bench.log_softmax(some[part], moved.output, moved.bias).cpu().numpy()
            first, last = np.searchsorted(after.places, (part.start, part.stop))
            at, token = after.places[first:last] - part.start, after.tokens[first:last]
            loss -= float(scores[at, token] @ after.weights[first:last])
        if best is None or loss < best[0]:
            best = (loss, moved)
    assert best is not None
    return best[1]
