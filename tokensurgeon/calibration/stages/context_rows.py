"""Input rows of shared tokens that the target puts where the source has other tokens.

A lone space of an indentation, a digit of a number, a letter of a cut word: their rows were trained
in other contexts. The source's token that covers the same byte is what the body knows there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tokensurgeon.arrays import Float32, Float64, Ids, blocks
from tokensurgeon.calibration.contract import Candidate, Candidates, Cost, Stage
from tokensurgeon.calibration.data import CalibrationData, TextSizes
from tokensurgeon.calibration.matrices import Matrices

DAMPING = 4.0
"""Occurrences that a token's own row is worth beside those that the text shows."""
AT_ONCE = 1 << 15
"""Positions whose rows are gathered together."""


@dataclass(frozen=True)
class Covers:
    """Which tokens of the source stand where a target token ends.

    Attributes
    ----------
    tokens, covers : int64 (n,)
        A target token, and the source token that holds its last byte.
    """

    tokens: Ids
    covers: Ids

    @classmethod
    def of(cls, data: CalibrationData) -> Covers:
        """Read them off the text that stages are fitted to."""
        source, target = data.source_positions, data.target_positions
        # Of several that end at one offset the last counts, as for states.
        index = np.searchsorted(source.ends, target.ends, side="left")
        covered = (index < len(source.ends)) & (target.ends > target.starts)
        return cls(target.ids[covered], source.ids[index[covered]])

    def means(self, rows: Float32, own: Float32) -> Float64:
        """Return the damped mean of the covers' rows by target token, float64 (n_rows, width)."""
        total = DAMPING * own.astype(np.float64)
        for part in blocks(len(self.tokens), AT_ONCE):
            np.add.at(total, self.tokens[part], rows[self.covers[part]])
        count = np.bincount(self.tokens, minlength=len(own)) + DAMPING
        return np.asarray(total / count[:, None])


class ContextRows(Stage):
    """e_t ← (1 − α)·e_t + α·mean of E over the source tokens that hold the last byte of t."""

    name = "context-rows"
    changes_shared = True
    shared_alone = True
    adapts_to_text = True
    one_side = True
    validation_passes = 3 + len(Stage.parts)

    def least(self, sizes: TextSizes) -> Cost:
        """One look."""
        return Cost()

    def propose(self, data: CalibrationData, matrices: Matrices) -> Candidates:
        """Yield α = 0.25, 0.5 and 1."""
        means, ids = Covers.of(data).means(data.context.input_rows, matrices.input), data.shared
        for share in (0.25, 0.5, 1.0):
            rows = matrices.input.copy()
            rows[ids] = (1 - share) * rows[ids] + share * means[ids]
            yield Candidate.of({"share": share}, matrices.with_input(rows))
        return None
