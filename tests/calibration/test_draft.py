"""Laws of fitting a draft to the big model: planted rows are found, acceptance is what it is."""

from __future__ import annotations

import numpy as np
import pytest

from tokensurgeon.calibration import CalibrationData, Matrices, calibrate
from tokensurgeon.calibration.stages import draft, regression
from tokensurgeon.calibration.stages.draft import Draft, Judge, acceptance, final_states
from tokensurgeon.calibration.stages.follows import Distributions, Follows
from tokensurgeon.calibration.teacher.big_model import BigModel
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
    assert record.settings["steps"] > 0
    assert record.settings["acceptance_after"] > 1.9 * record.settings["acceptance_before"]
    assert np.array_equal(own.input, same.context.input_rows)  # what it began with is untouched
    assert np.array_equal(own.output, same.context.output_rows)
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
        reached = acceptance(same.head(rows), final_states(same, rows, judged), said(big, judged))
        assert record.settings[name] == pytest.approx(reached, abs=1e-4)
    assert record.kept


def said(big: LanguageModel, sequences, n_rows: int | None = None) -> Distributions:
    """What a big model says after each id of some sequences."""
    states = big.all_states(sequences, big.n_layers)
    return Distributions(states, big.head, big.n_rows if n_rows is None else n_rows)


def softmax(logits: np.ndarray) -> np.ndarray:
    p = np.exp(logits.astype(np.float64))
    return p / p.sum(1, keepdims=True)


def test_acceptance_is_the_overlap_of_both(same: CalibrationData, own: Matrices, big) -> None:
    sequences = same.target_positions.sequences[:2]
    p, q = (
        softmax(np.concatenate([model.logits(one) for one in sequences]))
        for model in (big, same.model)
    )
    states = final_states(same, own, sequences)
    overlap = pytest.approx(np.minimum(p, q).sum(1).mean(), abs=1e-5)
    assert acceptance(same.head(own), states, said(big, sequences)) == overlap
    assert Judge(same, big, sequences, same.model.n_rows)(own) == overlap
    itself = said(same.model, sequences)
    assert acceptance(same.head(own), states, itself) == pytest.approx(1, abs=1e-5)


def test_whole_distributions_are_summed_thinned_and_scored_as_tables_are(
    same: CalibrationData, big
) -> None:
    torch = pytest.importorskip("torch")
    n_rows = same.model.n_rows - 5
    sequences = same.target_positions.sequences[:2]
    found = said(big, sequences, n_rows)
    p = softmax(np.concatenate([big.logits(one) for one in sequences]))[:, :n_rows]
    assert np.allclose(found.chances(slice(None)).numpy(), p, atol=1e-6)
    p /= p.sum(1, keepdims=True)
    flat = np.random.default_rng(0).normal(size=(len(p), 3)).astype(np.float32)
    sums = found.sums(torch.from_numpy(flat), n_rows + 5).numpy()
    assert np.allclose(sums[:n_rows], p.T @ flat, atol=1e-4)
    assert not sums[n_rows:].any()
    assert np.allclose(found.counts(n_rows), p.sum(0), atol=1e-4)
    log_q = np.log(softmax(np.random.default_rng(1).normal(size=p.shape))).astype(np.float32)
    some = np.flatnonzero(np.arange(n_rows) % 3 > 0)
    among = found.among(some)
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
    every_third = found.thinned(3)
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
    def only_read(self, data, matrices, teacher, sequences) -> tuple[Matrices, int]:
        teacher.read(sequences)
        return matrices, 0

    monkeypatch.setattr(Draft, "_trained", only_read)
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


def test_a_lesson_names_the_likeliest_tokens_after_each_id_but_the_last(
    same: CalibrationData, big
) -> None:
    sequences, n_rows = same.target_positions.sequences[:3], same.model.n_rows - 5
    teacher = BigModel(big, n_rows, same.model.n_rows)
    lesson = teacher.lesson(sequences)
    p = [softmax(big.logits(one))[:-1] for one in sequences]
    starts = np.cumsum([0, *map(len, sequences[:-1])])
    before = [start + np.arange(len(one) - 1) for start, one in zip(starts, sequences, strict=True)]
    assert np.array_equal(lesson.states, np.concatenate(before))
    assert lesson.tokens.tolist() == [i for one in sequences for i in one[1:]]
    assert (lesson.n_states, lesson.sequences) == (sum(map(len, sequences)), sequences)
    named = lesson.implied.ids - same.model.n_rows
    assert ((named >= 0) & (named < n_rows)).all()
    for at, chances in enumerate(np.concatenate(p)):
        assert lesson.implied.masses[at] == pytest.approx(chances[named[at]], abs=1e-6)
        left = np.delete(chances[:n_rows], named[at])
        assert left.max() <= lesson.implied.masses[at].min() + 1e-6
    assert teacher.sequences == list(sequences)
    assert np.array_equal(teacher.states, big.all_states(sequences, big.n_layers))


def test_of_much_text_a_part_of_each_is_judged(
    same: CalibrationData, own: Matrices, big, monkeypatch: pytest.MonkeyPatch
) -> None:
    sequences, n_rows = same.target_positions.sequences, same.model.n_rows
    monkeypatch.setattr(draft, "MOST_JUDGED", 60 * n_rows)
    monkeypatch.setattr(draft, "JUDGED_TOGETHER", 20)
    judge = Judge(same, big, sequences, n_rows)
    assert len(judge.sequences) == 3
    assert sum(map(len, judge.sequences)) <= 60
    for part in judge.sequences:
        assert any(one[: len(part)] == part for one in sequences)
    states = final_states(same, own, judge.sequences)
    reached = acceptance(same.head(own), states, said(big, judge.sequences))
    assert judge(own) == pytest.approx(reached, abs=1e-6)


def test_both_sides_are_trained_towards_the_big_model(same: CalibrationData, own: Matrices) -> None:
    """Input rows that are wrong are mended, which no regression of the output rows can."""
    rng = np.random.default_rng(1)
    big = same.model.patched(own.input, own.output * 4)
    noise = rng.normal(0, own.input.std(), own.input.shape).astype(np.float32)
    wrong = Matrices(own.input + noise, own.output * np.float32(4))
    (record,) = calibrate(same, wrong, [Draft(lambda: big)]).records
    assert record.kept
    assert record.gradient_steps == record.settings["steps"] > 0
    trained = record.settings["acceptance_trained"] - record.settings["acceptance_before"]
    assert trained > 0.02
    assert record.settings["acceptance_after"] >= record.settings["acceptance_trained"]


def test_of_a_very_large_vocabulary_all_time_goes_to_the_training(
    same: CalibrationData, own: Matrices, big, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draft, "MOST_REFITTED", 100)
    (record,) = calibrate(same, own, [Draft(lambda: big)]).records
    assert record.settings["rounds"] == 0
    assert record.settings["acceptance_after"] == record.settings["acceptance_trained"]


def test_without_time_nothing_is_trained(same: CalibrationData, own: Matrices, big) -> None:
    done = calibrate(same, own, [Draft(lambda: big, seconds=0.0)])
    assert done.matrices is own
    assert done.records[0].why.startswith("no gain: the big model accepts 0.")
    assert done.records[0].gradient_steps == 0


def test_a_big_model_that_cannot_run_leaves_the_rows(same: CalibrationData, own: Matrices) -> None:
    def load() -> LanguageModel:
        raise CalibrationError("the big model is larger than memory")

    done = calibrate(same, own, [Draft(load)])
    assert done.matrices is own
    assert done.records[0].why == "not tried: the big model is larger than memory"
