"""How much of the probability new rows draw together, at each state."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from tokensurgeon.arrays import Float32, Float64, Mask
from tokensurgeon.calibration.contract import Candidate, Candidates, Cost, Stage
from tokensurgeon.calibration.data import CalibrationData, TextSizes
from tokensurgeon.calibration.matrices import Matrices
from tokensurgeon.calibration.stages.directions import whitener
from tokensurgeon.calibration.stages.taught import usable_chunks

MOST_STATES = 6_000
"""Of the text, and as many of what the source writes besides."""
HELD = ((1.0, 256.0), (10.0, 64.0))
"""What holds the shift: a ridge in units of the states' mean variance, and how many states it
counts for. Without the ridge the shift is long where states vary little, and tied rows are input
rows too. SmolLM2-135M onto gpt2's tokens, after `distil` and `refit`; change in bits per byte of
the first 24, 12 and 6 kB, by the output rows alone and tied:

                  articles         Shakespeare      Python           length of the shift
    0.001, 256    -0.005           -0.002           -0.016           1.76
    0.001, 1024   -0.007, +0.003   -0.003, -0.003   -0.012, -0.009   0.95
    0.1, 256      -0.007, +0.008   -0.002, -0.003   -0.017, -0.014   1.19
    1, 256        -0.007, -0.002   -0.002, -0.003   -0.016, -0.016   0.47
    10, 64        -0.006, -0.004   -0.002, -0.003   -0.016, -0.016   0.30
"""


class NewShare(Stage):
    """u_t ← u_t + v for all new rows: at each state new tokens draw as much as they should there.

    v is a logistic regression of "a new token follows" on the final state, with what the rows
    draw as they are for its offset: argmin of Σ −log p(new or not) + λ/2·v'Gv over states of the
    text and of other text that the source writes. Among new tokens, and among the others,
    probabilities keep their proportions. A training on a text teaches new rows how often that text
    has new tokens; other text, which has fewer of them, loses by it.
    """

    name = "new-share"
    after_training = True

    def propose(self, data: CalibrationData, matrices: Matrices) -> Candidates:
        """Yield the shift as each of `HELD` holds it."""
        if not len(data.new):
            return "no gain: there are no new rows"
        states, follow = _read(data, matrices)
        odds = data.head(matrices).log_odds(states, data.new)
        if not np.isfinite(odds).all():
            return "no gain: new rows draw all that there is, or nothing"
        for ridge, strength in HELD:
            shift = fit_shift(states, odds, follow, ridge, strength) / data.model.logit_scale
            rows = matrices.output.copy()
            rows[data.new] += shift.astype(np.float32)
            length = round(float(np.linalg.norm(shift)), 3)
            settings = {"ridge": ridge, "strength": strength, "length": length}
            yield Candidate.of(settings, matrices.with_output(rows))
        return None

    def cost(self, sizes: TextSizes) -> Cost:
        """A run over some of either text, whose states are scored."""
        return self._of(len(HELD), sizes)

    def least(self, sizes: TextSizes) -> Cost:
        """The same, and a look at the first shift."""
        return self._of(1, sizes)

    def _of(self, passes: int, sizes: TextSizes) -> Cost:
        few = MOST_STATES + min(MOST_STATES, sizes.fit)
        return Cost(few, passes=passes, scored=few)


def _read(data: CalibrationData, matrices: Matrices) -> tuple[Float32, Mask]:
    """Return final states of both texts, and whether a new token follows each."""
    parts = [data.part_of_fit(MOST_STATES)]
    if written := usable_chunks(data, data.lessons):
        parts.append(tuple(written))
    read = [data.before_tokens(matrices, part) for part in parts]
    states = np.concatenate([one[:MOST_STATES] for one, _ in read])
    tokens = np.concatenate([two[:MOST_STATES] for _, two in read])
    return states, np.isin(tokens, data.new)


def fit_shift(
    states: Float32, odds: Float64, follow: Mask, ridge: float, strength: float
) -> Float64:
    """Return what is to be added to rows so that their log-odds are right, float64 (width,).

    Parameters
    ----------
    states : float32 (n_states, width)
    odds : float64 (n_states,)
        Log-odds of the rows as they are; finite.
    follow : bool (n_states,)
        Whether one of the rows' tokens follows.
    ridge, strength : float
        The shift is held to 0 in coordinates in which G = HᵀH/n + ε is the identity, with ε `ridge`
        times the mean of the diagonal, as if so many states had no need of it.
    """
    white = whitener(states, ridge)
    flat = states @ white

    def loss(x: Float64) -> tuple[float, Float64]:
        moved = odds + flat @ x
        value = np.logaddexp(0, moved).sum() - moved[follow].sum() + strength / 2 * x @ x
        return float(value), flat.T @ (expit(moved) - follow) + strength * x

    start = np.zeros(flat.shape[1])
    return np.asarray(white @ minimize(loss, start, jac=True, method="L-BFGS-B").x)
