"""Lessons of a big model that a draft is made for: what it says, token by token."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tokensurgeon.arrays import Float32, Ids
from tokensurgeon.calibration.teacher.implied import MOST_CELLS, Implied
from tokensurgeon.calibration.teacher.lessons import Lesson
from tokensurgeon.models import LanguageModel


class BigModel:
    """Gives lessons of what another model of the same tokens says, and keeps what it ran over.

    Parameters
    ----------
    model : LanguageModel
        With a `plain_head`.
    n_rows : int
        Tokens that count, of both models.
    n_student : int
        Rows of the student.

    Attributes
    ----------
    group : int64 (n_student,)
        Each token for itself: nothing is told apart only later.
    sequences : list of tuples of int
        All that was read.
    """

    def __init__(self, model: LanguageModel, n_rows: int, n_student: int) -> None:
        self.model, self.head, self.n_rows = model, model.head, n_rows
        self.group: Ids = np.arange(n_student)
        self.sequences: list[tuple[int, ...]] = []
        self._states: list[Float32] = []

    @property
    def longest(self) -> float:
        """Most ids of a sequence."""
        return self.model.max_positions or float("inf")

    @property
    def states(self) -> Float32:
        """Final states after all that was read, float32 (n, width)."""
        if not self._states:
            return np.zeros((0, self.model.width), dtype=np.float32)
        return np.concatenate(self._states)

    def read(self, batch: Sequence[Sequence[int]]) -> Float32:
        """Run the model over some sequences of ids; return its final states."""
        states = self.model.all_states(batch, self.model.n_layers)
        self.sequences += [tuple(sequence) for sequence in batch]
        self._states.append(states)
        return states

    def lesson(self, batch: Sequence[Sequence[int]]) -> Lesson:
        """Run the model over a few sequences of ids: of each state, its likeliest tokens are named.

        Memory holds its logits a block of states at a time.
        """
        states = self.read(batch)
        ends = np.cumsum([len(sequence) for sequence in batch])
        at = np.delete(np.arange(ends[-1]), ends - 1)  # what would follow the last id, nobody reads
        wanted = np.ascontiguousarray(states[at])
        n_cells = min(MOST_CELLS, self.n_rows)
        ids = np.zeros((len(at), n_cells), dtype=np.int64)
        masses = np.zeros(ids.shape, dtype=np.float32)
        for part in self.head.blocks(len(wanted)):
            found = self.head.log_softmax(wanted[part])[:, : self.n_rows].topk(n_cells, dim=1)
            ids[part] = found.indices.cpu().numpy()
            masses[part] = found.values.exp().cpu().numpy()
        implied = Implied(np.arange(len(at)), ids + len(self.group), masses)
        tokens = np.concatenate([np.asarray(one[1:], dtype=np.int64) for one in batch])
        return Lesson(tuple(map(tuple, batch)), at, tokens, implied)
