"""Quieten new rows: together they draw as much mass as new tokens have of the text."""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from tokensurgeon.arrays import Float32
from tokensurgeon.calibration.contract import Candidate, Candidates, Cost, Stage
from tokensurgeon.calibration.data import CalibrationData, TextSizes
from tokensurgeon.calibration.matrices import Matrices
from tokensurgeon.calibration.stages.directions import even_direction, shifted

MOST_STATES = 1_000
"""That the mass is measured on: the share of new tokens in a text is not known better either."""
MOST_ROUNDS = 4
"""A shift is exact for one row; where tied rows are input rows too, states follow it."""
CLOSE = 0.05
"""Nats to which a round may still move the rows for it to be the last."""
LEAST_SEEN = 0.5
"""Occurrences that new tokens count for where the text shows none, so that the shift is finite."""


class Quiet(Stage):
    """u_t ← u_t − c·b for all new rows, c such that their mean mass is their share of the text.

    One number is fitted, so a thousand tokens of text are enough. Means of pieces draw much more
    than the tokens that they stand for: 88,690 of them took 36 % of SmolLM2-135M's mass.
    """

    name = "quiet"

    def propose(self, data: CalibrationData, matrices: Matrices) -> Candidates:
        """Yield the whole shift, and half of it where that does not help."""
        if not len(data.new):
            return "no gain: there are no new rows"
        chunks = data.first(data.texts.fit, MOST_STATES)
        states, tokens = data.before_tokens(matrices, chunks)
        follow = np.isin(tokens, data.new)
        goal = max(float(follow.sum()), LEAST_SEEN) / max(1, len(tokens))
        direction, total, moved = even_direction(states), 0.0, matrices
        for _ in range(MOST_ROUNDS):
            mass = _mass_of(data, moved, states)
            amount = float(np.log(goal / (1 - goal)) - np.log(mass / (1 - mass)))
            total += amount
            amounts = np.full(len(data.new), total)
            moved = shifted(matrices, data.new, amounts, direction, data.model.logit_scale)
            if abs(amount) < CLOSE:
                break
            if moved.tied:
                states, _ = data.before_tokens(moved, chunks)
        for share in (1.0, 0.5):
            amounts = np.full(len(data.new), share * total)
            rows = shifted(matrices, data.new, amounts, direction, data.model.logit_scale)
            if (yield Candidate.of({"nats": round(share * total, 3)}, rows)):
                break
        return None

    def cost(self, sizes: TextSizes) -> Cost:
        """A run over some of the text, again after each round where rows are tied, and the mass."""
        few = min(2 * MOST_STATES, sizes.fit)
        return Cost(MOST_ROUNDS * few, passes=2, scored=MOST_ROUNDS * few)


def _mass_of(data: CalibrationData, matrices: Matrices, states: Float32) -> float:
    """Return the mean probability of all new tokens together."""
    mass = expit(data.head(matrices).log_odds(states, data.new)).mean()
    return float(np.clip(mass, 1e-9, 1 - 1e-9))
