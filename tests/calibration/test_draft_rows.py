"""Laws of fitting a draft to the big model: planted rows are found, acceptance is what it is."""

from __future__ import annotations

import numpy as np
import pytest

from tokensurgeon.calibration import Matrices, Workbench
from tokensurgeon.calibration.stages.draft import acceptance, fit_draft, predict
from tokensurgeon.calibration.stages.refit import Follows
from tokensurgeon.evaluation.draft import measure_draft


@pytest.fixture
def big(same: Workbench, own: Matrices):
    """The source's body under other output rows, sharper than a random model's."""
    noise = np.random.default_rng(5).normal(size=own.output.shape).astype(np.float32)
    return same.model.patched(own.input, own.output * 3 + noise * 0.5)


def test_rows_of_the_same_body_are_found(same: Workbench, own: Matrices, big) -> None:
    found = fit_draft(same, own, big)
    assert found.rounds > 1
    assert found.after > 2 * found.before
    assert found.matrices.input is own.input
    assert np.array_equal(own.output, same.context.output_rows)  # what it began with is untouched
    # Elsewhere, and by the whole of both distributions, the gain is there too.
    texts = ["The value of a row that is locked is not changed.", "columns and rows of a table"]
    vocabulary = same.context.target
    before, after = (
        measure_draft(same.patched(rows), big, vocabulary, texts).acceptance
        for rows in (own, found.matrices)
    )
    assert after > before


def test_acceptance_is_the_overlap_of_both(same: Workbench, own: Matrices, big) -> None:
    said = predict(big, same.target_track, same.model.n_rows)
    sequence = said.sequences[0]
    p = np.exp(big.logits(sequence).astype(np.float64))
    q = np.exp(same.model.logits(sequence).astype(np.float64))
    p, q = p / p.sum(1, keepdims=True), q / q.sum(1, keepdims=True)
    kept = np.argsort(-p, axis=1)[:, : said.tokens.shape[1]]
    overlap = np.minimum(np.take_along_axis(p, kept, 1), np.take_along_axis(q, kept, 1)).sum(1)
    n = len(sequence)
    one = type(said)((sequence,), said.tokens[:n], said.chances[:n])
    assert acceptance(same, own, one) == pytest.approx(overlap.mean(), abs=1e-5)
    itself = predict(same.model, same.target_track, same.model.n_rows)
    whole = acceptance(same, own, itself)
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
    assert thin.places.tolist() == [0, 0, 1]
    assert thin.tokens.tolist() == [1, 2, 0]


def test_the_clock_leaves_text_out_but_never_all(same: Workbench, big) -> None:
    said = predict(big, same.target_track, same.model.n_rows, seconds=0.0)
    assert len(said.sequences) == 1
    few = predict(big, same.target_track, 7)
    assert few.tokens.max() < 7
