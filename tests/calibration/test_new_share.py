"""The share of the probability that new rows draw at each state."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.special import expit, logsumexp

from tokensurgeon.calibration import CalibrationData, Matrices
from tokensurgeon.calibration.stages.new_share import NewShare, fit_shift


def test_a_planted_shift_is_found_and_a_strong_ridge_holds_it_back() -> None:
    rng = np.random.default_rng(1)
    states = rng.standard_normal((40_000, 6)).astype(np.float32)
    odds, planted = rng.standard_normal(40_000), rng.standard_normal(6)
    follow = rng.random(40_000) < expit(odds + states @ planted)
    assert fit_shift(states, odds, follow, 1e-3, 1.0) == pytest.approx(planted, abs=0.08)
    held = fit_shift(states, odds, follow, 1e-3, 1e6)
    assert np.linalg.norm(held) < 0.1 * np.linalg.norm(planted)


def test_odds_that_are_right_everywhere_are_left_alone() -> None:
    rng = np.random.default_rng(2)
    states, odds = rng.standard_normal((40_000, 6)).astype(np.float32), np.zeros(40_000)
    follow = rng.random(40_000) < 0.5
    assert np.linalg.norm(fit_shift(states, odds, follow, 1.0, 256.0)) < 0.05


def test_rows_without_others_are_left_alone(pair: tuple[CalibrationData, Matrices]) -> None:
    data, rows = pair
    everything = dataclasses.replace(data, new=np.arange(len(rows.output)))
    with pytest.raises(StopIteration, match="no gain: new rows draw all that there is"):
        next(NewShare().propose(everything, rows))


def test_new_rows_move_together_and_draw_what_they_should(
    pair: tuple[CalibrationData, Matrices],
) -> None:
    data, rows = pair
    candidate, *_ = NewShare().propose(data, rows)
    moved = candidate.matrices
    by = moved.output - rows.output
    others = np.setdiff1d(np.arange(len(by)), data.new)
    assert not by[others].any()
    assert np.array_equal(moved.input, rows.input)
    assert by[data.new] == pytest.approx(np.tile(by[data.new[0]], (len(data.new), 1)), abs=1e-5)

    states, tokens = data.before_tokens(rows, data.texts.fit)
    follow = np.isin(tokens, data.new)
    losses, inside = [], []
    for matrices in (rows, moved):
        odds = data.head(matrices).log_odds(states, data.new)
        losses.append(np.logaddexp(0, np.where(follow, -odds, odds)).mean())
        logits = states @ matrices.output[data.new].T
        inside.append(logits - logsumexp(logits, axis=1, keepdims=True))
    assert losses[1] < losses[0]
    assert inside[1] == pytest.approx(inside[0], abs=1e-3)
