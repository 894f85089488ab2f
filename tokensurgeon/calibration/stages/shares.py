"""How much of the probability new rows, and misused shared ones, draw at each state."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import logsumexp

from tokensurgeon.arrays import Float32, Float64, Ids
from tokensurgeon.calibration.contract import Candidate, Candidates, Cost, Stage
from tokensurgeon.calibration.data import CalibrationData, TextSizes
from tokensurgeon.calibration.matrices import Matrices
from tokensurgeon.calibration.stages.directions import whitener
from tokensurgeon.calibration.stages.taught import usable_chunks
from tokensurgeon.models import OutputHead

MOST_STATES, MOST_LESSONS = 3_000, 4_000
"""Of the text, and of what the source writes besides. Twice as many of the text would win 0.001
more on articles, and take the training before it 20 seconds."""
HELD, HELD_TIED = (1.0, 256.0), (10.0, 64.0)
"""What holds the shifts: a ridge in units of the states' mean variance, and how many states it
counts for. Without the ridge a shift is long where states vary little, and tied rows are input
rows too. SmolLM2-135M onto gpt2's tokens, after `distil` and `refit`, new rows alone; change in
bits per byte of the first 24, 12 and 6 kB, by the output rows alone and tied:

                  articles         Shakespeare      Python           length of the shift
    0.001, 256    -0.005           -0.002           -0.016           1.76
    0.001, 1024   -0.007, +0.003   -0.003, -0.003   -0.012, -0.009   0.95
    0.1, 256      -0.007, +0.008   -0.002, -0.003   -0.017, -0.014   1.19
    1, 256        -0.007, -0.002   -0.002, -0.003   -0.016, -0.016   0.47
    10, 64        -0.006, -0.004   -0.002, -0.003   -0.016, -0.016   0.30
"""
MOST_SHARED, LEAST_EXCESS = 4, 40.0
"""Shared tokens that are shifted too, and nats that the shift of each must promise beyond chance.
gpt2's tokens, as above; the single space, which spells indents there, promised 58 nats on 1,546
states that the source had written and 1,001 on 7,850. No other token was worth it:

    shared tokens   articles   Shakespeare   Python
    0               -0.003     -0.001        -0.002
    1, the space    -0.003     -0.001        -0.042
    8               -0.003     -0.001        -0.042
    32              -0.004     +0.001        -0.042
"""
LOOKED_AT = 256
"""Shared tokens that follow most often: rarer ones promise too little."""
STAY = frozenset({"newlines"})
"""Kinds of shared tokens that are not shifted: how often a line ends is a matter of the kind of
text. Punctuation may have another office than it had: Gemma writes "'s" as two tokens, SmolLM2 as
one, and of the gap that was left onto Gemma's tokens a fifth was the apostrophe."""


class Shares(Stage):
    """u_t ← u_t + v_g for all rows of a group: each draws at each state what it should there.

    The new rows are one group, and each shared token that draws most wrongly is one of its own. The
    v_g are a multinomial logistic regression of "of which group is the next token" on the final
    state, with what the rows draw as they are for its offset: argmin of Σ −log p(group) +
    λ/2·Σ v'Gv over states of the text and of other text that the source writes. Within a group,
    and among the other tokens, probabilities keep their proportions. A training on a text teaches
    new rows how often that text has new tokens, and never teaches a space to follow a space; text
    of other kinds loses by it.
    """

    name = "shares"
    changes_shared = True
    after_training = True

    def propose(self, data: CalibrationData, matrices: Matrices) -> Candidates:
        """Yield the shifts."""
        states, follow = _read(data, matrices)
        shared = np.setdiff1d(data.shared_but(STAY), data.new)
        common = most_common(follow, shared, LOOKED_AT)
        drawn = Drawn.at(data.head(matrices), states, data.new, common)
        ridge, strength = HELD_TIED if matrices.tied else HELD
        white = whitener(states, ridge)
        flat = states @ white
        misused = drawn.misused(follow, flat, strength)
        groups = ([data.new] if len(data.new) else []) + [np.array([i]) for i in misused]
        if not groups:
            return "no gain: there are no new rows, and no shared one draws too much or too little"
        if sum(map(len, groups)) == len(matrices.output):
            return "no gain: new rows draw all that there is"
        masses = drawn.of_groups(misused)
        of_group = np.full(len(matrices.output), len(groups))
        for number, ids in enumerate(groups):
            of_group[ids] = number
        shifts = fit_shifts(flat, masses, of_group[follow], strength) @ white.T
        rows = matrices.output.copy()
        for ids, shift in zip(groups, shifts / data.model.logit_scale, strict=True):
            rows[ids] += shift.astype(np.float32)
        length = round(float(np.linalg.norm(shifts, axis=1).max()), 3)
        settings = {"length": length, **({"shared": misused} if misused else {})}
        yield Candidate.of(settings, matrices.with_output(rows))
        return None

    def cost(self, sizes: TextSizes) -> Cost:
        """A run over some of either text, whose states are scored, and a look at the shifts."""
        few = min(MOST_STATES, sizes.fit) + MOST_LESSONS
        return Cost(few, passes=1, scored=few, writing=sizes.writing)


def _read(data: CalibrationData, matrices: Matrices) -> tuple[Float32, Ids]:
    """Return final states of both texts, and which token follows each."""
    lessons = tuple(usable_chunks(data, data.lessons))
    read = [
        data.before_tokens(matrices, data.first(chunks, most))
        for chunks, most in ((data.texts.fit, MOST_STATES), (lessons, MOST_LESSONS))
        if chunks
    ]
    return np.concatenate([one for one, _ in read]), np.concatenate([two for _, two in read])


def most_common(follow: Ids, pool: Ids, most: int) -> Ids:
    """Return those of `pool` that stand most often in `follow`, ascending; at most `most`."""
    found, counts = np.unique(follow[np.isin(follow, pool)], return_counts=True)
    return np.sort(found[np.argsort(-counts, kind="stable")[:most]])


@dataclass(frozen=True)
class Drawn:
    """What rows draw at some states.

    Attributes
    ----------
    new : float64 (n_states,) or None
        Log-probability of all new tokens together; None where there are none.
    common : int64 (n_common,)
        Some shared tokens.
    log_p : float64 (n_states, n_common)
        Log-probability of each of them.
    """

    new: Float64 | None
    common: Ids
    log_p: Float64

    @classmethod
    def at(cls, head: OutputHead, states: Float32, new: Ids, common: Ids) -> Drawn:
        """Score states, once."""
        import torch

        of_new, log_p = np.empty(len(states)), np.empty((len(states), len(common)))
        columns, inside = (torch.from_numpy(ids).to(head.device) for ids in (common, new))
        for part in head.blocks(len(states)):
            logits = head.log_softmax(states[part])
            of_new[part] = logits[:, inside].logsumexp(1).double().cpu().numpy()
            log_p[part] = logits[:, columns].double().cpu().numpy()
        return cls(of_new if len(new) else None, common, log_p)

    def of_groups(self, shared: list[int]) -> Float64:
        """Return log-probabilities of the new tokens, of shared ones and of all others.

        Parameters
        ----------
        shared : list of int
            Of `common`.

        Returns
        -------
        float64 (n_states, n_groups + 1)
        """
        columns = [] if self.new is None else [self.new]
        columns += [self.log_p[:, np.searchsorted(self.common, i)] for i in shared]
        drawn = np.minimum(np.exp(np.stack(columns, 1)).sum(1), 1 - 1e-6)  # float32 rounds so
        return np.stack([*columns, np.log1p(-drawn)], axis=1)

    def misused(self, follow: Ids, flat: Float64, strength: float) -> list[int]:
        """Return the shared tokens whose shift promises most, at most `MOST_SHARED`.

        What the shift of a token promises is g'g / 2(c + λ) in white coordinates x, with g = Σ (y −
        p)x and c the mean over these of Σ p(1 − p)x². By chance g'g is c times the width.

        Parameters
        ----------
        follow : int64 (n_states,)
            The next tokens.
        flat : float64 (n_states, width)
            The states in white coordinates.
        strength : float
            λ.
        """
        p = np.exp(self.log_p)
        gradients = ((follow[:, None] == self.common) - p).T @ flat
        chance = (p * (1 - p)).T @ (flat**2).sum(1)
        curvature = chance / flat.shape[1] + strength
        excess = ((gradients**2).sum(1) - chance) / (2 * curvature)
        best = np.argsort(-excess, kind="stable")[:MOST_SHARED]
        return [int(self.common[i]) for i in best if excess[i] >= LEAST_EXCESS]


def fit_shifts(flat: Float64, masses: Float64, groups: Ids, strength: float) -> Float64:
    """Return what is to be added to the rows of groups, in white coordinates.

    Parameters
    ----------
    flat : float64 (n_states, width)
        The states in these coordinates, as `whitener` gives them.
    masses : float64 (n_states, n_groups + 1)
        Log-probabilities of each group as its rows are, and of all other tokens; finite.
    groups : int64 (n_states,)
        Which of them the next token is of.
    strength : float
        The shifts are held to 0 as if so many states had no need of them.

    Returns
    -------
    float64 (n_groups, width)
    """
    n_groups = masses.shape[1] - 1
    hits = groups[:, None] == np.arange(n_groups)

    def loss(x: Float64) -> tuple[float, Float64]:
        moved = masses.copy()
        moved[:, :-1] += flat @ x.reshape(n_groups, -1).T
        log_p = moved - logsumexp(moved, axis=1, keepdims=True)
        value = strength / 2 * x @ x - np.take_along_axis(log_p, groups[:, None], 1).sum()
        gradient = (np.exp(log_p[:, :-1]) - hits).T @ flat
        return float(value), gradient.ravel() + strength * x

    start = np.zeros(n_groups * flat.shape[1])
    found = minimize(loss, start, jac=True, method="L-BFGS-B").x
    return np.asarray(found.reshape(n_groups, -1))
