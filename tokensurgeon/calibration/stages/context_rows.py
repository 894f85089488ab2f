"""Input rows of shared tokens that the target puts where the source has other tokens.

A lone space of an indentation, a digit of a number, a letter of a cut word: their rows were trained
in other contexts. The source's token that covers the same byte is what the body knows there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tokensurgeon.calibration.contract import (
    Candidate,
    Candidates,
    Doubles,
    Ids,
    Matrices,
    Rows,
    blocks,
)
from tokensurgeon.calibration.data import Workbench

DAMPING = 4.0
"""Places that a row is worth beside those that the text shows."""


@dataclass(frozen=True)
class Covers:
    """Which tokens of the source stand where a target token ends.

    Attributes
    ----------
    tokens, covers : int64 (n_places,)
        A target token, and the source token that holds its last byte.
    """

    tokens: Ids
    covers: Ids

    @classmethod
    def of(cls, bench: Workbench) -> Covers:
        """Read them off the text that stages are fitted to."""
        source, target = bench.source_track, bench.target_track
        # Of several that end at one offset the last counts, as for states.
        place = np.searchsorted(source.ends, target.ends, side="left")
        here = (place < len(source.ends)) & (target.ends > target.starts)
        return cls(target.ids[here], source.ids[place[here]])

    def means(self, rows: Rows, own: Rows) -> Doubles:
        """Return the damped mean of the covers' rows by target token, float64 (n_rows, width)."""
        total = DAMPING * own.astype(np.float64)
        for part in blocks(len(self.tokens), 1 << 15):
            np.add.at(total, self.tokens[part], rows[self.covers[part]])
        count = np.bincount(self.tokens, minlength=len(own)) + DAMPING
        return np.asarray(total / count[:, None])


class StandIn:
    """e_t ← (1 − α)·e_t + α·mean of E over the source tokens that hold the last byte of t."""

    name: ClassVar[str] = "stand-in"
    changes_shared: ClassVar[bool] = True
    two_matrices: ClassVar[bool] = True

    def __call__(self, bench: Workbench, matrices: Matrices) -> Candidates:
        """Yield α = 0.25, 0.5 and 1."""
        means, ids = Covers.of(bench).means(bench.context.input_rows, matrices.input), bench.shared
        for share in (0.25, 0.5, 1.0):
            rows = matrices.input.copy()
            rows[ids] = (1 - share) * rows[ids] + share * means[ids]
            yield Candidate({"share": share}, matrices.with_input(rows))
