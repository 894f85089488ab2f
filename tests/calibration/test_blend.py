"""Laws of the rules that write new rows from their pieces."""

from __future__ import annotations

import dataclasses
from functools import partial

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import logsumexp

from tokensurgeon.arrays import Float64
from tokensurgeon.calibration import CalibrationData, Matrices
from tokensurgeon.calibration.row_rules import RuleData, fit_rule
from tokensurgeon.calibration.stages import blend
from tokensurgeon.calibration.stages.blend import BIASES, MIXED, Blend, Lean
from tokensurgeon.calibration.stages.directions import even_direction

PLANTED = np.array([0.6, 0.3, -1.0, 0.5])


def planted(n_states: int = 800, n_new: int = 12) -> RuleData:
    """Return what a rule of two mixtures and two features reads, its labels drawn by `PLANTED`."""
    rng = np.random.default_rng(3)
    products = torch.from_numpy(2 * rng.standard_normal((2, n_states, n_new))).half()
    features = np.stack([np.ones(n_new), rng.standard_normal(n_new)], 1).astype(np.float32)
    even = (1 + 0.1 * rng.standard_normal(n_states)).astype(np.float32)
    others = 1 + rng.standard_normal(n_states)
    data = RuleData(products, features, even, others, np.zeros(n_states, int), np.ones(n_states))
    logits = logits_of(data, PLANTED)
    p = np.exp(logits - np.logaddexp(logsumexp(logits, axis=1), others)[:, None])
    chances = np.c_[1 - p.sum(1), p].cumsum(1)
    label = (rng.random(n_states)[:, None] > chances).sum(1) - 1
    return dataclasses.replace(data, label=label.clip(-1, n_new - 1))


def logits_of(data: RuleData, theta: Float64) -> Float64:
    products = data.products.double().numpy()
    bias = data.features.astype(float) @ theta[len(products) :]
    logits: Float64 = np.einsum("k,ksn->sn", theta[: len(products)], products)
    return logits + data.even[:, None] * bias


def loss_of(data: RuleData, theta: Float64) -> float:
    """Return the mean loss, written once more and without parts or moments."""
    logits = logits_of(data, theta)
    total = np.logaddexp(logsumexp(logits, axis=1), data.others)
    own = np.where(data.label >= 0, logits[np.arange(len(logits)), data.label], data.others)
    return float(np.average(total - own, weights=data.weights))


START, WIDE = np.array([1.0, 0.0, 0.0, 0.0]), np.full(4, 1e6)


def test_the_fit_is_where_a_general_minimiser_ends() -> None:
    data = planted()
    theta = fit_rule(data, START, WIDE)
    found = minimize(partial(loss_of, data), START, method="BFGS").x
    np.testing.assert_allclose(theta, found, atol=2e-3)
    np.testing.assert_allclose(theta, PLANTED, atol=0.3)  # 800 labels tell no better


def test_a_coefficient_without_deviation_is_held_and_a_narrow_one_hardly_moves() -> None:
    data = planted()
    theta = fit_rule(data, START, np.array([0.0, 1e6, 1e-3, 1e6]))
    assert theta[0] == 1
    assert abs(theta[2]) < 0.01 < abs(fit_rule(data, START, WIDE)[2])


def test_a_state_that_counts_twice_is_as_good_as_two() -> None:
    data = planted()
    again = np.r_[np.arange(800), np.arange(200)]
    even, others, label = data.even[again], data.others[again], data.label[again]
    longer = RuleData(
        data.products[:, again], data.features, even, others, label, np.ones(len(again))
    )
    weights = np.where(np.arange(800) < 200, 2.0, 1.0)
    weighed = dataclasses.replace(data, weights=weights)
    one, two = (fit_rule(each, START, np.ones(4)) for each in (longer, weighed))
    np.testing.assert_allclose(one, two, atol=1e-4)


def tied(rows: Matrices) -> Matrices:
    return Matrices(rows.output, rows.output)


@pytest.mark.parametrize("is_tied", [False, True])
def test_blended_rows_draw_what_the_text_has_of_new_tokens(
    pair: tuple[CalibrationData, Matrices], is_tied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blend, "BIAS_DEVIATION", 100.0)  # so that little text pulls no less
    data, rows = pair
    rows = tied(rows) if is_tied else rows
    states, after = data.next_tokens(rows)
    even = states @ even_direction(states)  # a state counts by what a shift does there
    candidate, *mixed = Blend().propose(data, rows)
    found, share = candidate.matrices, np.average(np.isin(after, data.new), weights=even)

    def measured(matrices: Matrices) -> tuple[float, float]:
        head = data.head(matrices)
        p = head.log_softmax(states).exp()
        return float(head.nll(states, after).mean()), float(
            np.average(p[:, data.new].sum(1), weights=even)
        )

    (loss, mass), (before, drew) = measured(found), measured(rows)
    assert loss < before - 0.01
    assert abs(drew - share) > 0.1 > 0.02 > abs(mass - share)
    assert np.array_equal(found.output[data.shared], rows.output[data.shared])
    assert found.tied == is_tied
    assert set(candidate.settings) == {*MIXED, *BIASES}
    if is_tied:
        assert [candidate.settings[name] for name in MIXED] == [1, 0, 0]
        assert len(mixed) == 1
        assert mixed[0].settings["kept"] != 1
    else:
        assert found.input is rows.input


def test_a_bias_takes_the_shift_where_there_is_one(
    pair: tuple[CalibrationData, Matrices], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, rows = pair
    monkeypatch.setattr(blend, "MIXED_DEVIATION", 1e-9)  # then all that is left is a bias
    none = np.zeros(len(data.context.output_rows), dtype=np.float32)
    context = dataclasses.replace(data.context, output_bias=none)
    biased = dataclasses.replace(data, context=context)
    bias = np.zeros(len(rows.output), dtype=np.float32)
    (candidate,) = Blend().propose(biased, dataclasses.replace(rows, bias=bias))
    found = candidate.matrices
    np.testing.assert_allclose(found.output, rows.output, atol=1e-5)
    assert found.bias is not None
    assert np.abs(found.bias[data.new]).max() > 0.1
    assert not found.bias[data.shared].any()


def test_leaning_rows_are_made_of_the_last_piece_and_the_mean_of_the_others(
    pair: tuple[CalibrationData, Matrices],
) -> None:
    data, rows = pair
    whole, half = (one.matrices.input for one in Lean().propose(data, rows))
    source, several = data.context.input_rows, 0
    for token, pieces in zip(data.context.missing.tolist(), data.context.pieces, strict=True):
        wanted = rows.input[token]
        if len(pieces) > 1:
            wanted = 1.3 * source[pieces[-1]] + 0.4 * source[list(pieces[:-1])].mean(0)
            several += len(pieces) > 2
        np.testing.assert_allclose(whole[token], wanted, atol=1e-5)
        np.testing.assert_allclose(half[token], (wanted + rows.input[token]) / 2, atol=1e-5)
    assert several
    assert np.array_equal(whole[data.shared], rows.input[data.shared])


def test_nothing_is_written_where_nothing_is_new(same: CalibrationData, own: Matrices) -> None:
    assert list(Lean().propose(same, own)) == []
    assert list(Blend().propose(same, own)) == []
