"""Laws of fitting a draft to the big model: planted rows are found, acceptance is what it is."""

from __future__ import annotations

import numpy as np
import pytest

from tokensurgeon.calibration import CalibrationData, Matrices, calibrate
from tokensurgeon.calibration.stages.draft import Draft, Predictions, acceptance, predict
from tokensurgeon.calibration.stages.regression import Follows
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
    assert record.why.startswith("the big model accepts at least")
    assert record.settings["rounds"] > 1
    assert record.settings["acceptance_after"] > 2 * record.settings["acceptance_before"]
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


def accepted(data: CalibrationData, rows: Matrices, predictions: Predictions) -> float:
    states = data.states(data.patched(rows), predictions.sequences, data.model.n_layers)
    return acceptance(data.head(rows), states, predictions)


def test_acceptance_is_the_overlap_of_both(same: CalibrationData, own: Matrices, big) -> None:
    said = predict(big, same.target_positions.sequences, same.model.n_rows)
    sequence = said.sequences[0]
    p = np.exp(big.logits(sequence).astype(np.float64))
    q = np.exp(same.model.logits(sequence).astype(np.float64))
    p, q = p / p.sum(1, keepdims=True), q / q.sum(1, keepdims=True)
    kept = np.argsort(-p, axis=1)[:, : said.tokens.shape[1]]
    overlap = np.minimum(np.take_along_axis(p, kept, 1), np.take_along_axis(q, kept, 1)).sum(1)
    n = len(sequence)
    one = type(said)((sequence,), said.tokens[:n], said.chances[:n])
    assert accepted(same, own, one) == pytest.approx(overlap.mean(), abs=1e-5)
    itself = predict(same.model, same.target_positions.sequences, same.model.n_rows)
    whole = accepted(same, own, itself)
    assert whole == pytest.approx(float(itself.chances.sum(1).mean()), abs=1e-5)


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
    thin = follows.thinned(2)
    assert thin.states.tolist() == [0, 0, 1]
    assert thin.tokens.tolist() == [1, 2, 0]


def test_the_clock_leaves_text_out_but_never_all(same: CalibrationData, big) -> None:
    said = predict(big, same.target_positions.sequences, same.model.n_rows, seconds=0.0)
    assert len(said.sequences) == 1
    few = predict(big, same.target_positions.sequences, 7)
    assert few.tokens.max() < 7


def test_a_big_model_that_cannot_run_leaves_the_rows(same: CalibrationData, own: Matrices) -> None:
    def load() -> LanguageModel:
        raise CalibrationError("the big model is larger than memory")

    done = calibrate(same, own, [Draft(load)])
    assert done.matrices is own
    assert done.records[0].why == "not tried: the big model is larger than memory"
