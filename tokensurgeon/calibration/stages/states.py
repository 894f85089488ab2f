"""Stages that compare the patched model's states with the source's at the same bytes.

`match` moves new input rows by what early states lack, `fold` maps final states back through the
output rows, `unigram` makes the mean prediction of each token its frequency.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from tokensurgeon.calibration.byte_positions import meetings, state_at
from tokensurgeon.calibration.contract import (
    Candidate,
    Candidates,
    Doubles,
    Matrices,
    Rows,
    blocks,
)
from tokensurgeon.calibration.data import LOGITS, Workbench
from tokensurgeon.calibration.stages.output_rows import even_direction, shifted

MOST_STATES = 8_000
"""That `unigram` predicts from; evenly spaced ones of the text's."""
MOST_ROUNDS = 4
"""Of `match`."""


class Match:
    """e_t ← e_t + δ·n/(n + a)·mean(h_ℓ of the source − h_ℓ of the patched model)/g.

    The mean is over the n places where both tokenizers have a border after t; h_ℓ is the state
    there after block ℓ, and g how much wider states scatter than the rows of the tokens that they
    follow: some models' states outgrow their rows a hundredfold. Rounds follow one another, each
    with the states that the last one left, for as long as they help.
    """

    two_matrices: ClassVar[bool] = True

    def __init__(self, shared: bool = False) -> None:
        self.name = "match-shared" if shared else "match"
        self.changes_shared = shared

    def __call__(self, bench: Workbench, matrices: Matrices) -> Candidates:
        """Yield a round with δ = 1, and up to four with δ = 2, at 0.5 and 0.7 of the depth."""
        for layer in dict.fromkeys(max(1, int(bench.model.n_layers * x)) for x in (0.5, 0.7)):
            states, track = bench.source_states(layer), bench.source_track
            gain = _scatter(states[track.after]) / _scatter(bench.context.input_rows[track.ids])
            settings = {"layer": layer, "gain": round(gain, 3)}
            step = self._step(bench, matrices, layer, gain)
            first = {**settings, "strength": 1.0, "rounds": 1}
            if (yield Candidate(first, matrices.with_input(matrices.input + step))) is False:
                continue
            after = matrices.with_input(matrices.input + 2 * step)
            for rounds in range(1, MOST_ROUNDS + 1):
                if rounds > 1:
                    step = self._step(bench, after, layer, gain)
                    after = after.with_input(after.input + 2 * step)
                each = {**settings, "strength": 2.0, "rounds": rounds}
                if (yield Candidate(each, after)) is False:
                    break

    def _step(self, bench: Workbench, matrices: Matrices, layer: int, gain: float) -> Rows:
        """Return what the rows lack, float32 (n_rows, width); zero where they stay."""
        ids = bench.shared if self.changes_shared else bench.new
        step = np.zeros_like(matrices.input)
        step[ids] = self._lacking(bench, matrices, layer)[ids] / gain
        return step

    def _lacking(
        self, bench: Workbench, matrices: Matrices, layer: int, count: float = 4.0
    ) -> Doubles:
        """Return the damped mean difference of states by token, float64 (n_rows, width)."""
        track = bench.target_track
        theirs = state_at(bench.source_track, track.ends)
        here = np.flatnonzero(theirs >= 0)
        ours = bench.target_states(matrices, layer)
        source = bench.source_states(layer)
        total = np.zeros((len(matrices.input), source.shape[1]))
        for part in blocks(len(here), 1 << 14):
            at = here[part]
            difference = source[theirs[at]].astype(np.float64) - ours[track.after[at]]
            np.add.at(total, track.ids[at], difference)
        n = np.bincount(track.ids[here], minlength=len(total))
        return np.asarray(total / (n + count)[:, None])


def _scatter(rows: Rows) -> float:
    """Return the root mean square of rows about their mean row."""
    centred = rows - rows.mean(axis=0, dtype=np.float64)
    return float(np.sqrt(np.mean(centred**2)))


class Fold:
    """U ← U Mᵀ with M = (H′ᵀH′ + λI)⁻¹(H′ᵀH + λI): final states H′ mapped back to the source's H.

    H′ and H are read at the common borders. λ is relative to the mean of H′ᵀH′'s diagonal; a
    large λ leaves the rows as they are.
    """

    name: ClassVar[str] = "fold"
    changes_shared: ClassVar[bool] = True
    two_matrices: ClassVar[bool] = True

    def __call__(self, bench: Workbench, matrices: Matrices) -> Candidates:
        """Yield λ = 0.003, 0.03, 0.3."""
        theirs, ours = meetings(bench.source_track, bench.target_track)
        patched = bench.target_states(matrices)[ours].astype(np.float64)
        source = bench.source_states()[theirs].astype(np.float64)
        gram, cross = patched.T @ patched, patched.T @ source
        unit = np.trace(gram) / len(gram) * np.eye(len(gram))
        for strength in (0.003, 0.03, 0.3):
            mapping = np.linalg.solve(gram + strength * unit, cross + strength * unit)
            rows = matrices.output.astype(np.float64) @ mapping.T
            yield Candidate({"ridge": strength}, matrices.with_output(rows))


class Unigram:
    """Shift logits until each token's mean predicted probability is its frequency in the text.

    A few rounds of iterative proportional fitting: log((n(t) + a)/(e(t) + a)) is added to the
    token's logit, e(t) its expected count, along the direction b on which states read 1.
    """

    two_matrices: ClassVar[bool] = False

    def __init__(self, shared: bool = False) -> None:
        self.name = "unigram-shared" if shared else "unigram"
        self.changes_shared = shared

    def __call__(self, bench: Workbench, matrices: Matrices) -> Candidates:
        """Yield one and three rounds."""
        states, follows = bench.next_tokens(matrices)
        ids = bench.new_and_shared if self.changes_shared else bench.new
        counts = np.bincount(follows, minlength=len(matrices.output)).astype(np.float64)
        direction = even_direction(states)
        thinned = np.ascontiguousarray(states[:: max(1, len(states) // MOST_STATES)])
        for rounds in (1, 2, 3):
            expected = _expected(bench, matrices, thinned) * (len(states) / len(thinned))
            amounts = np.log((counts + 2.0) / (expected + 2.0))
            matrices = shifted(matrices, ids, amounts[ids], direction, bench.model.logit_scale)
            if rounds != 2:
                yield Candidate({"rounds": rounds}, matrices)


def _expected(bench: Workbench, matrices: Matrices, states: Rows) -> Doubles:
    """Return the sum over states of each token's probability, float64 (n_rows,)."""
    total = np.zeros(len(matrices.output))
    for part in blocks(len(states), max(1, LOGITS // len(total))):
        found = bench.log_softmax(states[part], matrices.output, matrices.bias).exp_()
        total += found.sum(0).double().cpu().numpy()
    return total
