"""The share of the probability that new rows and misused shared ones draw at each state."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.special import log_softmax, logsumexp

from tokensurgeon.arrays import Float32, Float64, Ids
from tokensurgeon.calibration import CalibrationData, Matrices
from tokensurgeon.calibration.stages.directions import whitener
from tokensurgeon.calibration.stages.shares import STAY, Drawn, Shares, fit_shifts, most_common
from tokensurgeon.evaluation.breakdown import token_kind
from tokensurgeon.models import OutputHead


def planted(rng: np.random.Generator, n: int) -> tuple[Float32, Float64, Float64, Ids]:
    """Return states, log-probabilities of three groups, true shifts of two, and what follows."""
    states = rng.standard_normal((n, 6)).astype(np.float32)
    masses = log_softmax(rng.standard_normal((n, 3)), axis=1)
    shifts = rng.standard_normal((2, 6))
    true = masses + np.pad(states @ shifts.T, ((0, 0), (0, 1)))
    # The largest of logits with Gumbel noise is a draw from their softmax.
    return states, masses, shifts, (true + rng.gumbel(size=true.shape)).argmax(1)


def test_planted_shifts_are_found_and_a_strong_hold_keeps_them_back() -> None:
    states, masses, shifts, groups = planted(np.random.default_rng(1), 40_000)
    white = whitener(states, 1e-3)
    flat = states @ white
    found = fit_shifts(flat, masses, groups, 1.0) @ white.T
    assert found == pytest.approx(shifts, abs=0.08)
    held = fit_shifts(flat, masses, groups, 1e6) @ white.T
    assert np.linalg.norm(held) < 0.1 * np.linalg.norm(shifts)


def test_masses_that_are_right_everywhere_are_left_alone() -> None:
    rng = np.random.default_rng(2)
    states = rng.standard_normal((40_000, 6)).astype(np.float32)
    masses, groups = np.full((40_000, 2), np.log(0.5)), rng.integers(0, 2, 40_000)
    white = whitener(states, 1.0)
    shifts = fit_shifts(states @ white, masses, groups, 256.0) @ white.T
    assert np.linalg.norm(shifts) < 0.05


def test_one_score_of_the_states_gives_the_mass_of_every_group() -> None:
    rng = np.random.default_rng(3)
    rows, states = (rng.standard_normal((n, 8)).astype(np.float32) for n in (50, 20))
    new, common = np.array([3, 7, 41]), np.array([1, 5, 20])
    p = np.exp(log_softmax(states @ rows.T, axis=1))
    parts = [p[:, new].sum(1), p[:, 20], p[:, 1]]
    masses = Drawn.at(OutputHead(rows), states, new, common).of_groups([20, 1])
    assert np.exp(masses) == pytest.approx(np.stack([*parts, 1 - sum(parts)], 1), abs=1e-5)


def test_a_shared_token_that_draws_wrongly_is_found_and_chance_is_not() -> None:
    rng = np.random.default_rng(4)
    rows = rng.standard_normal((30, 8)).astype(np.float32)
    states = rng.standard_normal((6_000, 8)).astype(np.float32)
    true = states @ rows.T
    true[:, 9] += 2 * states[:, 0]  # which no row says
    follow = (true + rng.gumbel(size=true.shape)).argmax(1)
    common = most_common(follow, np.arange(1, 30), 20)
    assert len(common) == 20
    assert 9 in common
    drawn = Drawn.at(OutputHead(rows), states, np.array([0]), common)
    flat = states @ whitener(states, 1.0)
    assert drawn.misused(follow, flat, 256.0) == [9]
    right = (states @ rows.T + rng.gumbel(size=true.shape)).argmax(1)
    assert drawn.misused(right, flat, 256.0) == []


def test_rows_without_others_are_left_alone(pair: tuple[CalibrationData, Matrices]) -> None:
    data, rows = pair
    everything = dataclasses.replace(data, new=np.arange(len(rows.output)))
    with pytest.raises(StopIteration, match="no gain: new rows draw all that there is"):
        next(Shares().propose(everything, rows))


def test_new_rows_move_together_and_draw_what_they_should(
    pair: tuple[CalibrationData, Matrices],
) -> None:
    data, rows = pair
    candidate, *_ = Shares().propose(data, rows)
    moved = candidate.matrices
    by = moved.output - rows.output
    shared = candidate.settings["shared"]
    assert not np.isin(shared, data.new).any()
    assert all(by[i].any() for i in shared)
    others = np.setdiff1d(np.arange(len(by)), np.append(data.new, shared))
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


def test_line_ends_stay_and_punctuation_may_be_shifted(
    pair: tuple[CalibrationData, Matrices],
) -> None:
    data, _ = pair
    spellings = data.context.target.token_bytes
    kinds = {i: token_kind(spellings[i]) for i in data.shared.tolist()}
    assert {"newlines", "punctuation", "words"} <= set(kinds.values())
    left = data.shared_but(STAY).tolist()
    assert left == [i for i in sorted(kinds) if kinds[i] != "newlines"]
    learned = np.setdiff1d(data.movable, data.new).tolist()
    assert learned == [i for i in left if kinds[i] != "punctuation"]
