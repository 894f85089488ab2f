"""Laws of the stages that fit output rows to readings and to a text."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from tokensurgeon.calibration import CalibrationData, Candidate, Matrices
from tokensurgeon.calibration.stages.context_rows import ContextRows, Covers
from tokensurgeon.calibration.stages.directions import whitener
from tokensurgeon.calibration.stages.follows import Follows
from tokensurgeon.calibration.stages.output_rows import Readings, from_contexts, read_out
from tokensurgeon.calibration.stages.refit import Refit
from tokensurgeon.calibration.stages.regression import (
    MOST_CHANGE,
    RIDGES,
    Regression,
    _Expected,
    _solve,
)
from tokensurgeon.calibration.stages.sampled_contexts import _read, sample_contexts
from tokensurgeon.text.encoding import prefix_of


def test_contexts_read_what_the_source_says_of_a_text(
    pair: tuple[CalibrationData, Matrices],
) -> None:
    data, _ = pair
    prefix = prefix_of(data.context.source)
    window = (*prefix, *data.source_positions.ids[:5].tolist())
    asked = [tuple(data.source_positions.ids[5 : 5 + n].tolist()) for n in (1, 2, 4)]
    states, logprob, logsumexp = _read(data, [(window, pieces) for pieces in asked])
    for k, pieces in enumerate(asked):
        (losses,) = data.model.nll([[*window, *pieces]])
        assert logprob[k] == pytest.approx(-losses[len(window) - 1 :].sum(), abs=1e-4)
        logits = data.model.logits(window)[-1].astype(np.float64)
        assert logsumexp[k] == pytest.approx(np.log(np.exp(logits).sum()), abs=1e-4)
        assert np.allclose(
            states[k], data.model.states([window], data.model.n_layers)[0], atol=1e-5
        )


def test_contexts_keep_to_the_tokens_that_may_be_run(
    pair: tuple[CalibrationData, Matrices],
) -> None:
    data, _ = pair
    whole = sample_contexts(data)
    assert (np.diff(whole.tokens) >= 0).all()
    assert set(whole.tokens.tolist()) == set(data.new.tolist()) & set(data.context.missing.tolist())
    assert np.isfinite(whole.logprob).all()
    assert (whole.logprob < 0).all()
    before = data.forward_tokens
    few = sample_contexts(dataclasses.replace(data, context_tokens=2000))
    assert 0 < len(np.unique(few.tokens)) < len(np.unique(whole.tokens))
    shown = np.bincount(data.target_positions.ids, minlength=int(whole.tokens.max()) + 1)
    left_out = np.setdiff1d(whole.tokens, few.tokens)
    assert shown[np.unique(few.tokens)].min() >= shown[left_out].max()
    again = sample_contexts(dataclasses.replace(data, context_tokens=2000))
    assert np.array_equal(few.states, again.states)
    assert data.forward_tokens == before  # replaced data counts for itself


def test_readings_give_the_planted_row_and_heed_their_weights(
    same: CalibrationData, own: Matrices
) -> None:
    states = same.source_states()[:200]
    token, width = 7, states.shape[1]
    planted = np.random.default_rng(0).normal(size=width)
    wanted = np.asarray(states @ planted, np.float64)
    good = Readings(np.full(200, token), states, wanted, np.ones(200))
    found = read_out(same, own, good, 1e-7)
    assert np.allclose(states @ found[token], wanted, atol=0.01)
    spoilt = Readings(
        np.full(400, token),
        np.concatenate([states, states]),
        np.concatenate([wanted, wanted + 100]),
        np.concatenate([np.ones(200), np.zeros(200)]),
    )
    assert np.allclose(read_out(same, own, spoilt, 1e-7)[token], found[token], atol=1e-3)


def test_a_likely_context_weighs_more(pair: tuple[CalibrationData, Matrices]) -> None:
    contexts = sample_contexts(pair[0])
    weights = from_contexts(contexts).weights
    token = contexts.tokens[0]
    of_one = weights[contexts.tokens == token]
    assert of_one.max() == 1.0
    order = np.argsort(contexts.logprob[contexts.tokens == token])
    assert (np.diff(of_one[order]) >= 0).all()


@pytest.mark.parametrize("n_likely", [5, 9])  # fewer than the width, and more
def test_a_system_is_solved_as_if_it_were_dense(n_likely: int) -> None:
    generator = torch.Generator().manual_seed(0)
    flat = torch.randn(50, 6, generator=generator)
    share = torch.rand(n_likely, generator=generator) * 0.5
    likely = torch.randperm(50, generator=generator)[:n_likely]
    found = _Expected(
        states=torch.zeros(3, 6),
        mass=torch.tensor([0.0, share.sum() + 2.5, 1.0]),
        likely=likely,
        shares=share,
        starts=torch.tensor([0, 0, n_likely, n_likely]),
    )
    gap = torch.randn(3, 6, generator=generator)
    step = _solve(found, flat, torch.tensor([2, 0, 1]), gap[[2, 0, 1]], ridge=4.0, thin=3)
    # No likely state of its own: the ridge and the mass alone.
    assert torch.allclose(step[0], gap[2] / (4.0 + 3.0))
    assert torch.allclose(step[1], gap[0] / 4.0)
    x = flat[likely] * (3 * share * (1 - share)).sqrt()[:, None]
    dense = torch.linalg.solve(x.T @ x + (4.0 + 3 * 2.5) * torch.eye(6), gap[1])
    assert torch.allclose(step[2], dense, atol=1e-5)


def loss(data: CalibrationData, matrices: Matrices, states: np.ndarray, after: np.ndarray) -> float:
    scores = data.head(matrices).log_softmax(states)
    return -float(scores[range(len(after)), after].mean())


def test_a_round_makes_the_text_likelier_and_moves_the_named_rows_only(
    pair: tuple[CalibrationData, Matrices],
) -> None:
    data, rows = pair
    states, after = data.next_tokens(rows)
    ids = data.new[::2]
    found = Regression(data.head(rows), rows, states, Follows.of_text(after), ids).advance(32.0)
    assert loss(data, found, states, after) < loss(data, rows, states, after)
    others = np.setdiff1d(np.arange(len(rows.output)), ids)
    assert np.array_equal(found.output[others], rows.output[others])
    assert found.input is rows.input


def test_rounds_find_the_rows_that_wrote_a_text(same: CalibrationData, own: Matrices) -> None:
    generator = np.random.default_rng(1)
    states = np.repeat(same.source_states()[:300], 40, axis=0)
    true = own.output + generator.normal(size=own.output.shape).astype(np.float32) * 0.3
    p = same.head(own.with_output(true)).log_softmax(states).exp().double().numpy()
    drawn = (
        p.cumsum(axis=1) > generator.random((len(p), 1)) * p.sum(axis=1, keepdims=True)
    ).argmax(axis=1)
    planted = own.with_output(true)
    regression = Regression(same.head(own), own, states, Follows.of_text(drawn), same.shared)
    for ridge in RIDGES:
        found = regression.advance(ridge)
    start, reached, best = (loss(same, m, states, drawn) for m in (own, found, planted))
    assert reached - best < 0.1 * (start - best)


def test_rows_come_to_rest_where_the_gradient_is_nothing(
    same: CalibrationData, own: Matrices
) -> None:
    states, after = same.next_tokens(own)
    states, after, ridge = states[:600], after[:600], 8.0
    regression = Regression(same.head(own), own, states, Follows.of_text(after), same.shared)
    for _ in range(12):
        found = regression.advance(ridge)
    wrong = -same.head(found).log_softmax(states).exp().double().numpy()
    wrong[range(len(after)), after] += 1
    white = states.astype(np.float64) @ whitener(states)
    moved = (found.output - own.output).astype(np.float64) * same.model.logit_scale
    held = ridge * np.linalg.solve(whitener(states), moved.T).T
    slope = (wrong.T @ white)[same.shared]
    assert np.linalg.norm(slope - held[same.shared]) < 0.02 * np.linalg.norm(slope)


def test_a_document_of_one_token_cannot_throw_a_row_far(
    same: CalibrationData, own: Matrices
) -> None:
    states, after = same.next_tokens(own)
    least = int(same.shared[np.bincount(after, minlength=len(own.output))[same.shared].argmin()])
    # One state, a thousand times, before the least likely token.
    states = np.concatenate([states, np.repeat(states[:1], 1000, axis=0)])
    follows = Follows.of_text(np.concatenate([after, np.full(1000, least)]))
    found = Regression(same.head(own), own, states, follows, same.shared).advance(16.0)
    change = (states @ (found.output - own.output).T) * same.model.logit_scale
    assert 0 < np.sqrt((change**2).mean(axis=0)).max() <= MOST_CHANGE * 1.01


def test_refit_goes_on_only_while_it_helps(pair: tuple[CalibrationData, Matrices]) -> None:
    data, rows = pair
    helps, hurts = Refit().propose(data, rows), Refit().propose(data, rows)

    def said(candidate: Candidate) -> tuple[str, int]:
        return candidate.settings["rows"], candidate.settings["rounds"]

    assert [said(next(helps)), said(helps.send(True))] == [("all", 1), ("all", 2)]
    with pytest.raises(StopIteration):
        helps.send(False)
    assert [said(next(hurts)), said(hurts.send(False))] == [("all", 1), ("new", 1)]


def test_a_cover_holds_the_last_byte(pair: tuple[CalibrationData, Matrices]) -> None:
    data, _ = pair
    covers = Covers.of(data)
    assert len(covers.tokens)
    source, target = data.context.source, data.context.target
    for token, cover in list(zip(covers.tokens.tolist(), covers.covers.tolist(), strict=True))[
        :500
    ]:
        spelt, held = target.token_bytes[token], source.token_bytes[cover]
        assert spelt
        assert held
        assert spelt[-1:] in held


def test_a_token_that_covers_itself_keeps_its_row(same: CalibrationData, own: Matrices) -> None:
    for candidate in ContextRows().propose(same, own):
        assert np.allclose(candidate.matrices.input, own.input, atol=1e-5)
