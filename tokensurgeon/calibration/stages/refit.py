"""Refit all output rows to a text: iteratively reweighted least squares on cached states.

Given the final states of the patched model, its output rows are a multinomial logistic regression
of the next token on the state, each row held to where it was by a ridge. A round solves one small
system per token and weakens the ridge; the objective is concave in the rows, nothing is
differentiated through the model's body, and its states are computed once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from tokensurgeon.calibration.contract import Candidate, Candidates, Ids, Matrices, Rows, blocks
from tokensurgeon.calibration.data import LOGITS, Workbench
from tokensurgeon.calibration.stages.output_rows import whitener
from tokensurgeon.progress import Progress, no_progress

if TYPE_CHECKING:
    import torch

RIDGES = (2048.0, 1024.0, 512.0, 256.0, 128.0, 64.0, 32.0, 16.0)
"""λ, one a round: as if a token had been seen so often where its row is right already. Each round
goes on from the last, so that one is enough to come next to the optimum of its λ, and the text that
judges the rounds says which λ is right for how much text there is."""
MOST_CHANGE = 1.0
"""Of a token's logit in a round, root mean square over the states: further off the quadratic that
a round solves says nothing. A token that fills one document and has a small probability before it
would else be moved by eight."""
MOST_LOGITS = 1 << 30
"""In one round: where states times rows are more, expectations are taken over evenly spaced
states."""
LEAST_SHARE = 0.01
"""A token's places where its probability is above this enter its system one by one; the rest of
its mass as if it lay on states like all others."""
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
    """U ← argmax of the text's log-likelihood − λ/2·‖U − U₀‖²_G, for one λ after another.

    For each token t, with h the patched model's state before a token and p its probability of t,
    u_t ← u_t + α(Σ p(1 − p)hhᵀ + λG)⁻¹ (Σ (1[t follows] − p)h − λG(u_t − u⁰_t)), G the mean of
    hhᵀ; α is the best of a few on states of the same text. Rows that the text hardly shows hardly
    move.
    """

    name: ClassVar[str] = "refit"
    changes_shared: ClassVar[bool] = True
    two_matrices: ClassVar[bool] = False

    def __call__(self, bench: Workbench, matrices: Matrices) -> Candidates:
        """Yield rounds over all rows for as long as they help; if none does, of the new rows."""
        states, after_each = bench.next_tokens(matrices, more=True)
        follows = Follows.of_text(after_each)
        for which, ids in (("all", bench.new_and_shared), ("new", bench.new)):
            regression = Regression(bench, matrices, states, follows, ids)
            for rounds, ridge in enumerate(RIDGES, 1):
                settings = {"rows": which, "rounds": rounds, "ridge": ridge}
                if (yield Candidate(settings, regression.advance(ridge))) is False:
                    break
            if rounds > 1:
                break


class Regression:
    """A regression of what follows states on them, which goes on from where it is.

    Parameters
    ----------
    bench : Workbench
    matrices : Matrices
        The rows to start from, and to hold to; not changed.
    states : float32 (n, width)
        Of the patched model.
    follows : Follows
        What comes after each.
    ids : int64
        Rows that may change.
    """

    def __init__(
        self, bench: Workbench, matrices: Matrices, states: Rows, follows: Follows, ids: Ids
    ) -> None:
        import torch

        self.bench, self.matrices, self.ids = bench, matrices, ids
        device, n_rows = bench.context.device, len(matrices.output)
        self._whiten = torch.from_numpy(whitener(states).astype(np.float32)).to(device)
        self._thin = thin = max(1, -(-len(states) * n_rows // MOST_LOGITS))
        self._states, after = np.ascontiguousarray(states[::thin]), follows.thinned(thin)
        self._flat = torch.from_numpy(self._states).to(device) @ self._whiten
        self._observed = after.sums(self._flat, n_rows) * thin
        if thin > 1:
            counts = np.bincount(after.tokens, after.weights, minlength=n_rows)
            rare = torch.from_numpy(counts < OFTEN).to(device)
            whole = follows.sums(torch.from_numpy(states), n_rows).to(device) @ self._whiten
            self._observed = torch.where(rare[:, None], whole, self._observed)
        # How far each row has come, in white coordinates: there G is the identity.
        self._moved = torch.zeros_like(self._observed)
        few = max(1, len(states) // TRIED_ON)
        self._tried_on = np.ascontiguousarray(states[::few]), follows.thinned(few)

    def advance(self, ridge: float) -> Matrices:
        """Do one round, and return the matrices after it.

        Parameters
        ----------
        ridge : float
            λ.
        """
        import torch

        found = _expect(self.bench, self.matrices, self._states, self._flat)
        gap = torch.sub(self._observed, found.states, alpha=self._thin)
        gap.sub_(self._moved, alpha=ridge)
        ids = torch.from_numpy(self.ids).to(gap.device)
        step = torch.zeros_like(gap)
        step[ids] = _solve(found, self._flat, ids, gap[ids], ridge, self._thin)
        step *= (MOST_CHANGE / step.norm(dim=1, keepdim=True).clamp_min(1e-9)).clamp_max(1.0)
        direction = (step @ self._whiten.T / self.bench.model.logit_scale).cpu().numpy()
        length, self.matrices = self._best_step(direction)
        self._moved += length * step
        return self.matrices

    def best(
        self,
        loss: Callable[[Matrices], float],
        least: float = 0.0,
        *,
        what: str = "refitting",
        progress: Progress = no_progress,
    ) -> tuple[Matrices, list[float]]:
        """Go down the path for as long as a round lowers `loss` by more than `least`.

        Returns the best matrices, and the loss of the start and of each round that was kept.
        """
        best, losses = self.matrices, [loss(self.matrices)]
        for number, ridge in enumerate(RIDGES, 1):
            found = self.advance(ridge)
            after = loss(found)
            progress(number, len(RIDGES), what)
            if not losses[-1] - after > least:
                break
            best = found
            losses.append(after)
        return best, losses

    def _best_step(self, direction: Rows) -> tuple[float, Matrices]:
        """Return how long a step along `direction` serves some states best, and where it leads."""
        bench, (states, after) = self.bench, self._tried_on
        best: tuple[float, float, Matrices] | None = None
        for length in STEPS:
            moved = self.matrices.with_output(self.matrices.output + np.float32(length) * direction)
            loss = 0.0
            for part in blocks(len(states), max(1, LOGITS // len(moved.output))):
                scores = bench.log_softmax(states[part], moved.output, moved.bias).cpu().numpy()
                first, last = np.searchsorted(after.places, (part.start, part.stop))
                at, token = after.places[first:last] - part.start, after.tokens[first:last]
                loss -= float(scores[at, token] @ after.weights[first:last])
            if best is None or loss < best[0]:
                best = (loss, length, moved)
        assert best is not None
        return best[1:]


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
    order = torch.argsort(token, stable=True)
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
    """Return (X'X + rI)⁻¹ gap for each token, X its likely states times √(p(1 − p)).

    In white coordinates G is the identity, so r is λ and the mass that X leaves out.
    """
    import torch

    step = gap / (found.mass[ids] * thin + ridge)[:, None]  # right where X is empty
    n_places, width = found.starts[ids + 1] - found.starts[ids], flat.shape[1]
    # Tokens with about as many places share a batch of systems of that size; most have none.
    order = torch.argsort(n_places, stable=True)
    counts = n_places[order].tolist()
    start = int(np.searchsorted(counts, 0, side="right"))
    while start < len(counts):
        stop = min(len(counts), start + TOKENS_AT_ONCE)
        stop = max(start + 1, min(stop, start + LOGITS // (counts[stop - 1] * width)))
        at = order[start:stop]
        step[at] = _solve_batch(found, flat, ids[at], gap[at], ridge, thin, counts[stop - 1])
        start = stop
    return step


def _solve_batch(
    found: _Expected,
    flat: torch.Tensor,
    ids: torch.Tensor,
    gap: torch.Tensor,
    ridge: float,
    thin: int,
    n_places: int,
) -> torch.Tensor:
    """Return the same for tokens with one to `n_places` places."""
    import torch

    first, last = found.starts[ids], found.starts[ids + 1]
    at = first[:, None] + torch.arange(n_places, device=flat.device)
    here = at < last[:, None]
    at = at.clamp_max(len(found.places) - 1)
    share = torch.where(here, found.shares[at], 0.0)
    rest = (found.mass[ids] - share.sum(1)).clamp_min(0.0) * thin + ridge
    scaled = flat[found.places[at]] * (share * (1 - share) * thin).sqrt()[..., None]
    if n_places > flat.shape[1]:
        system = scaled.transpose(1, 2) @ scaled
        system.diagonal(dim1=1, dim2=2).add_(rest[:, None])
        dense: torch.Tensor = torch.linalg.solve(system, gap[..., None])
        return dense[..., 0]
    # Woodbury: as many unknowns as places.
    plain = gap / rest[:, None]
    inner = scaled @ scaled.transpose(1, 2) / rest[:, None, None]
    inner += torch.eye(n_places, device=flat.device)
    seen = scaled @ plain[..., None]
    back: torch.Tensor = scaled.transpose(1, 2) @ torch.linalg.solve(inner, seen)
    return plain - back[..., 0] / rest[:, None]
