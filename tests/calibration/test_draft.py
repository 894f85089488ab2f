"""Laws of fitting a draft to the big model: planted rows are found, acceptance is what it is."""

from __future__ import annotations

import numpy as np
import pytest

from tokensurgeon.calibration import CalibrationData, Matrices, calibrate
from tokensurgeon.calibration.stages import regression
from tokensurgeon.calibration.stages.draft import Draft, acceptance, predict
from tokensurgeon.calibration.stages.follows import Distributions, Follows
from tokensurgeon.errors import CalibrationError
from tokensurgeon.evaluation.draft import measure_draft
from tokensurgeon.models import LanguageModel


@pytest.fixture
def big(same: CalibrationData, own: Matrices):
    """The source's body under other output rows, sharper than a random model's."""
    noise = np.random.default_rng(5).normal(size=own.output.shape).astype(np.float32)
    return same.model.patched(own.input, own.output * 3 + noise * 0.5)


def test_rows_of_the_same_body_are_found(same: CalibrationData, own: Matrices, big) -> None:
    done = calibrate(same, own, [Draft(lambda: big)])
    (record,) = done.records
    assert record.kept
    assert record.why.startswith("the big model accepts 0.")
    assert record.settings["rounds"] > 1
    assert record.settings["acceptance_after"] > 1.9 * record.settings["acceptance_before"]
    assert done.matrices.input is own.input
    assert np.array_equal(own.output, same.context.output_rows)  # what it began with is untouched
    # Elsewhere, and by the whole of both distributions, the gain is there too.
    texts = ["The value of a row that is locked is not changed.", "columns and rows of a table"]
    vocabulary = same.context.target
    before, after = (
        measure_draft(same.patched(rows), big, vocabulary, texts).acceptance
        for rows in (own, done.matrices)
    )
    assert after > before


def test_what_a_tied_draft_is_said_to_reach_is_what_it_reaches(
    same: CalibrationData, own: Matrices
) -> None:
    truth, rng = own.output * np.float32(30), np.random.default_rng(0)
    wrong = rng.random(len(truth)) < 0.5
    start = truth + wrong[:, None] * rng.normal(0, truth.std(), truth.shape).astype(np.float32)
    tied, big = Matrices(start, start), same.model.patched(truth, truth)
    done = calibrate(same, tied, [Draft(lambda: big)])
    (record,) = done.records
    assert done.matrices.tied
    judged = same.positions(same.texts.selection).sequences
    for rows, name in ((tied, "acceptance_before"), (done.matrices, "acceptance_after")):
        _, said = predict(big, judged, big.n_rows)
        reached = acceptance(same.head(rows), states_of(same, rows, judged), said)
        assert record.settings[name] == pytest.approx(reached, abs=1e-4)
    assert record.kept


def states_of(data: CalibrationData, rows: Matrices, sequences) -> np.ndarray:
    return data.states(data.patched(rows), sequences, data.model.n_layers)


def softmax(logits: np.ndarray) -> np.ndarray:
    p = np.exp(logits.astype(np.float64))
    return p / p.sum(1, keepdims=True)


def test_acceptance_is_the_overlap_of_both(same: CalibrationData, own: Matrices, big) -> None:
    sequences = same.target_positions.sequences[:2]
    read, said = predict(big, sequences, same.model.n_rows)
    assert [list(one) for one in read] == [list(one) for one in sequences]
    p, q = (
        softmax(np.concatenate([model.logits(one) for one in sequences]))
        for model in (big, same.model)
    )
    states = states_of(same, own, sequences)
    overlap = np.minimum(p, q).sum(1).mean()
    assert acceptance(same.head(own), states, said) == pytest.approx(overlap, abs=1e-5)
    _, itself = predict(same.model, sequences, same.model.n_rows)
    assert acceptance(same.head(own), states, itself) == pytest.approx(1, abs=1e-5)


def test_whole_distributions_are_summed_thinned_and_scored_as_tables_are(
    same: CalibrationData, big
) -> None:
    torch = pytest.importorskip("torch")
    n_rows = same.model.n_rows - 5
    sequences = same.target_positions.sequences[:2]
    _, said = predict(big, sequences, n_rows)
    p = softmax(np.concatenate([big.logits(one) for one in sequences]))[:, :n_rows]
    assert np.allclose(said.chances(slice(None)).numpy(), p, atol=1e-6)
    p /= p.sum(1, keepdims=True)
    flat = np.random.default_rng(0).normal(size=(len(p), 3)).astype(np.float32)
    sums = said.sums(torch.from_numpy(flat), n_rows + 5).numpy()
    assert np.allclose(sums[:n_rows], p.T @ flat, atol=1e-4)
    assert not sums[n_rows:].any()
    assert np.allclose(said.counts(n_rows), p.sum(0), atol=1e-4)
    log_q = np.log(softmax(np.random.default_rng(1).normal(size=p.shape))).astype(np.float32)
    some = np.flatnonzero(np.arange(n_rows) % 3 > 0)
    among = said.among(some)
    raw = softmax(np.concatenate([big.logits(one) for one in sequences]))[:, some]
    assert np.allclose(among.chances(slice(None)).numpy(), raw, atol=1e-6)
    assert np.allclose(
        among.sums(torch.from_numpy(flat), len(some)).numpy(), raw.T @ flat, atol=1e-4
    )
    given = np.random.default_rng(2).normal(size=(9, len(some) + 1)).astype(np.float32)
    thin = among.thinned(2)
    (score,) = thin.scores([torch.from_numpy(given)], slice(1, 10))
    weights = np.hstack([raw, 1 - raw.sum(1, keepdims=True)])[::2][1:10]
    assert score == pytest.approx((weights * given).sum(), rel=1e-4)
    every_third = said.thinned(3)
    assert isinstance(every_third, Distributions)
    part = slice(2, 9)
    expected = (p[::3][part] * log_q[::3][part]).sum()
    given = torch.from_numpy(log_q[::3][part])
    assert every_third.scores([given, 2 * given], part) == pytest.approx(
        np.array([expected, 2 * expected]), rel=1e-4
    )


def test_what_follows_is_summed_and_thinned_by_its_weight() -> None:
    torch = pytest.importorskip("torch")
    states = np.arange(8, dtype=np.float32).reshape(4, 2)
    follows = Follows(
        np.array([0, 0, 1, 2, 3]),
        np.array([1, 2, 2, 0, 1]),
        np.array([0.25, 0.75, 1, 1, 1], dtype=np.float32),
    )
    sums = follows.sums(torch.from_numpy(states), 3).numpy()
    assert np.allclose(
        sums, [states[2], 0.25 * states[0] + states[3], 0.75 * states[0] + states[1]]
    )
    assert follows.counts(3).tolist() == [1, 1.25, 1.75]
    scores = torch.log(torch.tensor([[0.5, 0.25, 0.25], [0.25, 0.25, 0.5]]))
    (score,) = follows.scores([scores], slice(0, 2))
    assert score == pytest.approx(np.log(0.25) + np.log(0.5))
    thin = follows.thinned(2)
    assert thin.states.tolist() == [0, 0, 1]
    assert thin.tokens.tolist() == [1, 2, 0]


def test_rows_that_hardly_occur_stay_where_a_vocabulary_is_large(
    same: CalibrationData, own: Matrices, big, monkeypatch: pytest.MonkeyPatch
) -> None:
    (record,) = calibrate(same, own, [Draft(lambda: big)]).records
    monkeypatch.setattr(regression, "MOST_LOGITS", 1 << 18)
    monkeypatch.setattr(regression, "LEAST_COUNT", 20.0)
    done = calibrate(same, own, [Draft(lambda: big)])
    moved = (done.matrices.output != own.output).any(axis=1)
    assert 20 < moved.sum() < 0.8 * len(moved)
    (with_some,) = done.records
    assert with_some.settings["acceptance_before"] == record.settings["acceptance_before"]
    gains = [
        one.settings["acceptance_after"] - one.settings["acceptance_before"]
        for one in (with_some, record)
    ]
    assert gains[0] > 0.5 * gains[1] > 0


def test_the_clock_leaves_text_out_but_never_all(same: CalibrationData, big) -> None:
    sequences = same.target_positions.sequences
    read, said = predict(big, sequences, same.model.n_rows, seconds=0.0)
    assert len(read) == 1
    assert len(said) == len(read[0])


def test_a_big_model_that_cannot_run_leaves_the_rows(same: CalibrationData, own: Matrices) -> None:
    def load() -> LanguageModel:
        raise CalibrationError("the big model is larger than memory")

    done = calibrate(same, own, [Draft(load)])
    assert done.matrices is own
    assert done.records[0].why == "not tried: the big model is larger than memory"
