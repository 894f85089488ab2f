"""Stages that compare the patched model's states with the source's at the same bytes.

`match` moves new input rows by what early states lack, `fold` maps final states back through the
output rows, `unigram` makes the mean prediction of each token its frequency.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tokensurgeon.arrays import Float32, Float64, blocks
from tokensurgeon.calibration.byte_positions import common_states, state_at
from tokensurgeon.calibration.contract import Candidate, Candidates, Cost, Stage
from tokensurgeon.calibration.data import CalibrationData, TextSizes
from tokensurgeon.calibration.matrices import Matrices
from tokensurgeon.calibration.stages.directions import even_direction, shifted

MOST_STATES = 8_000
"""That `unigram` predicts from, evenly spaced: a mean over them is sure to about one per cent."""
MOST_ROUNDS = 4
"""Of `match`: each takes a pass over the text, and the selection text ends them sooner."""
DEPTHS = (0.5, 0.7)
"""Of the model, at which `match` compares states: deep enough to have read a token's pieces."""
DAMPING = 4.0
"""Occurrences of no difference that each token is given beside those in the text."""
PRIOR_COUNT = 2.0
"""Added to seen and expected counts by `unigram`, so that a rare token is moved little."""
AT_ONCE = 1 << 14
"""Positions whose states are compared in float64 together."""


class Match(Stage):
    """e_t ← e_t + δ·n/(n + a)·mean(h_ℓ of the source − h_ℓ of the patched model)/g.

    The mean is over the n positions where both tokenizers have a boundary after t; h_ℓ is the state
    there after block ℓ, and g how much wider states scatter than the rows of the tokens that they
    follow: some models' states outgrow their rows a hundredfold. Rounds follow one another, each
    with the states that the last one left, for as long as they help.
    """

    one_side = True
    fit_passes = len(DEPTHS) * (1 + MOST_ROUNDS)
    validation_passes = len(DEPTHS) * (1 + MOST_ROUNDS) + len(Stage.parts)

    def __init__(self, shared: bool = False) -> None:
        self.name = "match-shared" if shared else "match"
        self.changes_shared = self.adapts_to_text = self.shared_alone = shared

    def least(self, sizes: TextSizes) -> Cost:
        """A pass of either model over the text, and one look."""
        return Cost(2 * sizes.fit, 1)

    def propose(self, data: CalibrationData, matrices: Matrices) -> Candidates:
        """Yield a round with δ = 1, and up to four with δ = 2, at either depth."""
        for layer in _layers(data.model.n_layers):
            states, source = data.source_states(layer), data.source_positions
            gain = _scatter(states[source.after]) / _scatter(data.context.input_rows[source.ids])
            settings = {"layer": layer, "gain": round(gain, 3)}
            step = self._step(data, matrices, layer, gain)
            first = {**settings, "strength": 1.0, "rounds": 1}
            if (yield Candidate.of(first, matrices.with_input(matrices.input + step))) is False:
                continue
            after = matrices.with_input(matrices.input + 2 * step)
            for rounds in range(1, MOST_ROUNDS + 1):
                if rounds > 1:
                    step = self._step(data, after, layer, gain)
                    after = after.with_input(after.input + 2 * step)
                further = {**settings, "strength": 2.0, "rounds": rounds}
                if (yield Candidate.of(further, after)) is False:
                    break
        return None

    def _step(self, data: CalibrationData, matrices: Matrices, layer: int, gain: float) -> Float32:
        """Return what the rows lack, float32 (n_rows, width); zero where they stay."""
        ids = data.shared if self.changes_shared else data.new
        step = np.zeros_like(matrices.input)
        step[ids] = _mean_difference(data, matrices, layer)[ids] / gain
        return step


def _layers(n_layers: int) -> tuple[int, ...]:
    return tuple(dict.fromkeys(max(1, int(n_layers * depth)) for depth in DEPTHS))


def _mean_difference(data: CalibrationData, matrices: Matrices, layer: int) -> Float64:
    """Return the damped mean difference of states by token, float64 (n_rows, width)."""
    target = data.target_positions
    source_after = state_at(data.source_positions, target.ends)
    common = np.flatnonzero(source_after >= 0)
    patched_states, source_states = data.target_states(matrices, layer), data.source_states(layer)
    total = np.zeros((len(matrices.input), source_states.shape[1]))
    for part in blocks(len(common), AT_ONCE):
        at = common[part]
        source = source_states[source_after[at]].astype(np.float64)
        np.add.at(total, target.ids[at], source - patched_states[target.after[at]])
    n = np.bincount(target.ids[common], minlength=len(total))
    return np.asarray(total / (n + DAMPING)[:, None])


def _scatter(rows: Float32) -> float:
    """Return the root mean square of rows about their mean row."""
    centred = rows - rows.mean(axis=0, dtype=np.float64)
    return float(np.sqrt(np.mean(centred**2)))


class Fold(Stage):
    """U ← U Mᵀ with M = (H′ᵀH′ + λI)⁻¹(H′ᵀH + λI): final states H′ mapped back to the source's H.

    H′ and H are read at the common boundaries. λ is relative to the mean of H′ᵀH′'s diagonal; a
    large λ leaves the rows as they are.
    """

    name = "fold"
    changes_shared = True
    shared_alone = True
    adapts_to_text = True
    one_side = True
    fit_passes = 2

    def propose(self, data: CalibrationData, matrices: Matrices) -> Candidates:
        """Yield λ = 0.003, 0.03, 0.3."""
        theirs, ours = common_states(data.source_positions, data.target_positions)
        patched = data.target_states(matrices)[ours].astype(np.float64)
        source = data.source_states()[theirs].astype(np.float64)
        gram, cross = patched.T @ patched, patched.T @ source
        unit = np.trace(gram) / len(gram) * np.eye(len(gram))
        for strength in (0.003, 0.03, 0.3):
            mapping = np.linalg.solve(gram + strength * unit, cross + strength * unit)
            rows = matrices.output.astype(np.float64) @ mapping.T
            yield Candidate.of({"ridge": strength}, matrices.with_output(rows))
        return None


class Unigram(Stage):
    """Shift logits until each token's mean predicted probability is its frequency in the text.

    A few rounds of iterative proportional fitting: log((n(t) + a)/(e(t) + a)) is added to the
    token's logit, e(t) its expected count, along the direction b on which states read 1.
    """

    fit_passes = 1

    def __init__(self, shared: bool = False) -> None:
        self.name = "unigram-shared" if shared else "unigram"
        self.changes_shared = self.adapts_to_text = self.shared_alone = shared

    def propose(self, data: CalibrationData, matrices: Matrices) -> Candidates:
        """Yield one and three rounds."""
        states, follows = data.next_tokens(matrices)
        ids = data.new_and_shared if self.changes_shared else data.new
        counts = np.bincount(follows, minlength=len(matrices.output)).astype(np.float64)
        direction = even_direction(states)
        thinned = np.ascontiguousarray(states[:: max(1, len(states) // MOST_STATES)])
        for rounds in (1, 2, 3):
            expected = data.head(matrices).expected_counts(thinned)
            expected *= len(states) / len(thinned)
            amounts = np.log((counts + PRIOR_COUNT) / (expected + PRIOR_COUNT))
            matrices = shifted(matrices, ids, amounts[ids], direction, data.model.logit_scale)
            if rounds != 2:
                yield Candidate.of({"rounds": rounds}, matrices)
        return None

    def cost(self, sizes: TextSizes) -> Cost:
        """A pass over the text, and its vocabulary scored at some states in each round."""
        return replace(super().cost(sizes), scored=3 * min(sizes.fit, MOST_STATES))
