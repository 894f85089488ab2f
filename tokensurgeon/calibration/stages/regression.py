"""A regression of the next token on the final state: iteratively reweighted least squares.

Given the final states of a model, its output rows are a multinomial logistic regression of the
next token on the state, each row held to where it was by a ridge. A round solves one small system
per token and weakens the ridge; the objective is concave in the rows, nothing is differentiated
through the model's body, and its states are computed once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tokensurgeon.arrays import Float32, Ids
from tokensurgeon.calibration.data import TextSizes
from tokensurgeon.calibration.matrices import Matrices
from tokensurgeon.calibration.stages.directions import whitener
from tokensurgeon.calibration.stages.follows import Followers
from tokensurgeon.models.head import LOGITS_AT_ONCE, OutputHead

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
LEAST_COUNT = 0.1
"""Occurrences of a token, observed or expected over all states, for its row to take part: the
others would hardly move, and they are nine tenths of a vocabulary."""
EXPECTED_ON = 512
"""States on which the model's expectation is looked at."""
LEAST_SHARE = 0.01
"""A token's states where its probability is above this enter its system one by one; the rest of
its mass as if it lay on states like all others."""
OFTEN = 64
"""Occurrences of a token in the thinned states, from which observations are taken from them too:
what is observed and what is expected then err alike."""
STEPS = (1.0, 0.5, 0.25, 0.125)
"""Of a round, tried on states of the same text."""
TRIED_ON = 4_000
"""States on which the length of a step is chosen, at most, and fewer where their logits would be
more than a round's: four lengths then cost no more than the round."""
TOKENS_AT_ONCE = 128
"""Whose systems are solved together: larger batches gain nothing on two cores."""


def scored_states(sizes: TextSizes) -> int:
    """Return at how many states a round scores the vocabulary, about.

    Expectations cost twice what scores alone do; steps are tried on some states.
    """
    n = sizes.fit + sizes.more
    tried = min(n, _tried_on(sizes.n_rows))
    return 2 * min(n, MOST_LOGITS // max(1, sizes.n_rows)) + len(STEPS) * tried


def _tried_on(n_rows: int) -> int:
    return max(1, min(TRIED_ON, MOST_LOGITS // len(STEPS) // max(1, n_rows)))


def rows_that_matter(head: OutputHead, states: Float32, follows: Followers) -> Ids | None:
    """Return the rows for a regression to move, int64 (n,); None for all, where there are few."""
    n, n_rows = len(states), len(head.rows)
    if n * n_rows <= MOST_LOGITS // 4:
        return None
    step = max(1, n // EXPECTED_ON)
    few = np.ascontiguousarray(states[::step])
    counts = head.expected_counts(few) * (n / len(few)) + follows.counts(n_rows)
    return np.flatnonzero(counts > LEAST_COUNT)


class Regression:
    """A regression of what follows states on them, which goes on from where it is.

    Parameters
    ----------
    head : OutputHead
        The model's output side, for its scale, softcap and device.
    matrices : Matrices
        The rows to start from, and to hold to; not changed.
    states : float32 (n, width)
        Of the patched model.
    follows : Followers
        What comes after each, with tokens numbered among `active` where that is given.
    ids : int64
        Rows that may change.
    active : int64, optional
        Ascending; rows outside it stay, and their share of the mass is worked out once: a round
        then costs what these rows cost. All rows if None.
    """

    def __init__(
        self,
        head: OutputHead,
        matrices: Matrices,
        states: Float32,
        follows: Followers,
        ids: Ids,
        active: Ids | None = None,
    ) -> None:
        import torch

        self._whole, self._active, rest = matrices, active, None
        if active is not None:
            rest = _rest(head, matrices, states, active)
            ids = np.flatnonzero(np.isin(active, ids))
            rows = matrices.output[active]
            bias = None if matrices.bias is None else matrices.bias[active]
            matrices = Matrices(rows, rows, bias)
        self.matrices, self.ids, self._head = matrices, ids, head
        device, n_rows = head.device, len(matrices.output)
        self._whiten = torch.from_numpy(whitener(states).astype(np.float32)).to(device)
        self._thin = thin = max(1, -(-len(states) * n_rows // MOST_LOGITS))
        self._states, after = np.ascontiguousarray(states[::thin]), follows.thinned(thin)
        self._rest = None if rest is None else rest[::thin]
        self._flat = torch.from_numpy(self._states).to(device) @ self._whiten
        self._observed = after.sums(self._flat, n_rows) * thin
        if thin > 1:
            rare = torch.from_numpy(after.counts(n_rows) < OFTEN).to(device)
            whole = follows.sums(torch.from_numpy(states), n_rows).to(device) @ self._whiten
            self._observed = torch.where(rare[:, None], whole, self._observed)
        # How far each row has come, in white coordinates: there G is the identity.
        self._moved = torch.zeros_like(self._observed)
        few = max(1, len(states) // _tried_on(n_rows))
        self._tried_on = np.ascontiguousarray(states[::few]), follows.thinned(few)
        self._rest_of_tried = None if rest is None else rest[::few]

    def advance(self, ridge: float) -> Matrices:
        """Do one round, and return the matrices after it.

        Parameters
        ----------
        ridge : float
            λ.
        """
        import torch

        head = self._head.with_rows(self.matrices.output, self.matrices.bias)
        expected = _expect(head, self._states, self._flat, self._rest)
        gap = torch.sub(self._observed, expected.states, alpha=self._thin)
        gap.sub_(self._moved, alpha=ridge)
        ids = torch.from_numpy(self.ids).to(gap.device)
        step = torch.zeros_like(gap)
        step[ids] = _solve(expected, self._flat, ids, gap[ids], ridge, self._thin)
        step *= (MOST_CHANGE / step.norm(dim=1, keepdim=True).clamp_min(1e-9)).clamp_max(1.0)
        direction = (step @ self._whiten.T / self._head.scale).cpu().numpy()
        length, self.matrices = self._best_step(direction)
        self._moved += length * step
        if self._active is None:
            return self.matrices
        rows = self._whole.output.copy()
        rows[self._active] = self.matrices.output
        return self._whole.with_output(rows)

    def _best_step(self, direction: Float32) -> tuple[float, Matrices]:
        """Return how long a step along `direction` serves some states best, and where it leads."""
        states, after = self._tried_on
        losses = np.zeros(len(STEPS))
        head = self._head.with_rows(self.matrices.output, self.matrices.bias)
        for part in head.blocks(len(states)):
            rest = None if self._rest_of_tried is None else self._rest_of_tried[part]
            along = head.logits_along(states[part], direction, STEPS)
            losses -= after.scores((_log_probs(logits, rest) for logits in along), part)
        length = np.float32(STEPS[int(losses.argmin())])
        return float(length), self.matrices.with_output(self.matrices.output + length * direction)


@dataclass(frozen=True)
class _Expected:
    """What the model expects over some states.

    Attributes
    ----------
    states : float32 (n_rows, width)
        Sum of p·h, h in white coordinates.
    mass : float32 (n_rows,)
        Sum of p.
    likely, shares : (n_pairs,)
        States at which a token's p is large, and that p, by token.
    starts : int64 (n_rows + 1,)
        Where each token's pairs begin.
    """

    states: torch.Tensor
    mass: torch.Tensor
    likely: torch.Tensor
    shares: torch.Tensor
    starts: torch.Tensor


def _rest(head: OutputHead, matrices: Matrices, states: Float32, active: Ids) -> Float32:
    """Return the logsumexp of the logits of all other rows at each state, float32 (n_states,)."""
    import torch

    whole = head.with_rows(matrices.output, matrices.bias)
    others = torch.ones(len(matrices.output), dtype=torch.bool)
    others[torch.from_numpy(active)] = False
    sums = np.empty(len(states), dtype=np.float32)
    for part in whole.blocks(len(states)):
        logits = whole.logits(states[part])[:, others.to(head.device)]
        sums[part] = logits.logsumexp(1).cpu().numpy()
    return sums


def _log_probs(logits: torch.Tensor, rest: Float32 | None) -> torch.Tensor:
    """Return log-probabilities at some states; with `rest`, a column more for all other rows.

    The last column is that of a token with a logit of 0: rows that stay differ from it by a
    constant. `logits` may be changed.
    """
    import torch

    if rest is None:
        return logits.sub_(logits.logsumexp(1, keepdim=True))
    logits = torch.cat([logits, torch.zeros_like(logits[:, :1])], dim=1)
    outside = torch.from_numpy(rest).to(logits.device)
    logits -= torch.logaddexp(logits[:, :-1].logsumexp(1), outside)[:, None]
    return logits


def _expect(
    head: OutputHead, states: Float32, flat: torch.Tensor, rest: Float32 | None
) -> _Expected:
    import torch

    n_rows = len(head.rows)
    sums, mass = torch.zeros((n_rows, flat.shape[1]), device=flat.device), None
    likely, tokens, shares = [], [], []
    for part in head.blocks(len(states)):
        outside = None if rest is None else rest[part]
        p = _log_probs(head.logits(states[part]), outside)[:, :n_rows].exp_()
        sums.addmm_(p.T, flat[part])
        mass = p.sum(0) if mass is None else mass + p.sum(0)
        where = (p > LEAST_SHARE).nonzero()
        likely.append(where[:, 0] + part.start)
        tokens.append(where[:, 1])
        shares.append(p[where[:, 0], where[:, 1]])
    assert mass is not None
    state, token, share = torch.cat(likely), torch.cat(tokens), torch.cat(shares)
    order = torch.argsort(token, stable=True)
    starts = torch.searchsorted(
        token[order].contiguous(), torch.arange(n_rows + 1, device=flat.device)
    )
    return _Expected(sums, mass, state[order], share[order], starts)


def _solve(
    expected: _Expected,
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

    step = gap / (expected.mass[ids] * thin + ridge)[:, None]  # right where X is empty
    n_likely, width = expected.starts[ids + 1] - expected.starts[ids], flat.shape[1]
    # Tokens with about as many likely states share a batch of systems of that size; most have none.
    order = torch.argsort(n_likely, stable=True)
    counts = n_likely[order].tolist()
    start = int(np.searchsorted(counts, 0, side="right"))
    while start < len(counts):
        stop = min(len(counts), start + TOKENS_AT_ONCE)
        stop = max(start + 1, min(stop, start + LOGITS_AT_ONCE // (counts[stop - 1] * width)))
        at = order[start:stop]
        step[at] = _solve_batch(expected, flat, ids[at], gap[at], ridge, thin, counts[stop - 1])
        start = stop
    return step


def _solve_batch(
    expected: _Expected,
    flat: torch.Tensor,
    ids: torch.Tensor,
    gap: torch.Tensor,
    ridge: float,
    thin: int,
    n_likely: int,
) -> torch.Tensor:
    """Return the same for tokens with one to `n_likely` likely states."""
    import torch

    first, last = expected.starts[ids], expected.starts[ids + 1]
    at = first[:, None] + torch.arange(n_likely, device=flat.device)
    own = at < last[:, None]
    at = at.clamp_max(len(expected.likely) - 1)
    share = torch.where(own, expected.shares[at], 0.0)
    rest = (expected.mass[ids] - share.sum(1)).clamp_min(0.0) * thin + ridge
    scaled = flat[expected.likely[at]] * (share * (1 - share) * thin).sqrt()[..., None]
    if n_likely > flat.shape[1]:
        system = scaled.transpose(1, 2) @ scaled
        system.diagonal(dim1=1, dim2=2).add_(rest[:, None])
        dense: torch.Tensor = torch.linalg.solve(system, gap[..., None])
        return dense[..., 0]
    # Woodbury: as many unknowns as likely states.
    plain = gap / rest[:, None]
    inner = scaled @ scaled.transpose(1, 2) / rest[:, None, None]
    inner += torch.eye(n_likely, device=flat.device)
    seen = scaled @ plain[..., None]
    back: torch.Tensor = scaled.transpose(1, 2) @ torch.linalg.solve(inner, seen)
    return plain - back[..., 0] / rest[:, None]
