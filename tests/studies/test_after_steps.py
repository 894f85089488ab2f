"""The figure after further training: the same steps for all, kept, ranked, refused in a line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.studies.test_compare import LINES, Watch, row
from tokensurgeon import Recipe, compare
from tokensurgeon.calibration.training.batches import TrainingText
from tokensurgeon.calibration.training.trainer import Trainer
from tokensurgeon.errors import EvaluationError, SettingError, UsageError
from tokensurgeon.models import LanguageModel
from tokensurgeon.studies import after_steps
from tokensurgeon.studies.after_steps import AfterSteps, rank_correlation
from tokensurgeon.studies.compare import Comparison
from tokensurgeon.studies.further_training import FurtherTraining, WeightTrainer, train_further
from tokensurgeon.surgery.prepare import prepare

Checkpoints = Callable[..., Path]
METHODS = ["mean", "subword-mean", "subword-last"]
TWO = FurtherTraining(2)


@pytest.fixture
def recipe(checkpoints: Checkpoints, world: Path, tmp_path: Path) -> Recipe:
    text = tmp_path / "calibration.jsonl"
    text.write_text("\n".join(map(json.dumps, LINES)))
    asked = {
        "source": str(checkpoints()),
        "tokenizer": str(world / "target"),
        "text": {"evaluation": [str(world / "evaluation.jsonl")], "calibration": [str(text)]},
    }
    return Recipe.parse(asked)


def untimed(table: Comparison) -> dict[str, Any]:
    data = table.to_dict()
    return {**data, "rows": [{**one, "seconds": None} for one in data["rows"]]}


def loss(model: LanguageModel, text: TrainingText) -> float:
    return float(np.concatenate(model.nll([one.tolist() for one in text.sequences])).mean())


@pytest.fixture(params=["untied", "tied", "biased"])
def model(request: pytest.FixtureRequest, checkpoints: Checkpoints) -> tuple[LanguageModel, bool]:
    from tokensurgeon.models import load_model

    tied = request.param == "tied"
    folder = checkpoints("phi" if request.param == "biased" else "llama", tied)
    return load_model(folder), tied


@pytest.fixture
def text(recipe: Recipe) -> TrainingText:
    return TrainingText.read(prepare(recipe).alignment.source, LINES, 256)


def weights(model: LanguageModel) -> dict[str, np.ndarray]:
    return {name: one.detach().numpy().copy() for name, one in model.model.named_parameters()}


@pytest.mark.parametrize("rows_only", [False, True])
def test_the_loss_on_the_training_text_falls_and_the_model_given_is_as_it_was(
    model: tuple[LanguageModel, bool], text: TrainingText, rows_only: bool
) -> None:
    given, tied = model
    before = weights(given)
    trained = train_further(given, text, FurtherTraining(6, rows_only), tied=tied)
    assert loss(trained, text) < loss(given, text) - 0.001
    assert all(np.array_equal(one, before[name]) for name, one in weights(given).items())
    moved = {
        name for name, one in weights(trained).items() if not np.array_equal(one, before[name])
    }
    in_rows = {name for name in before if "embed_tokens" in name or "lm_head" in name}
    assert moved == (in_rows if rows_only else set(before))
    inner, outer = (
        trained.model.get_input_embeddings().weight,
        trained.model.get_output_embeddings().weight,
    )
    assert (inner is outer) == tied


def test_gradients_through_the_head_are_those_written_out(
    model: tuple[LanguageModel, bool], text: TrainingText
) -> None:
    given, tied = model
    batch = text.padded(next(text.passes(np.random.default_rng(0), 512)))
    one, two = WeightTrainer(given, tied=tied), WeightTrainer(given, tied=tied)
    assert one._plain
    two._plain = False
    for trainer in (one, two):
        trainer.step(*batch, 1e-3)
    for name, values in weights(one.model).items():
        np.testing.assert_allclose(values, weights(two.model)[name], atol=2e-4, err_msg=name)


def test_matrices_that_are_parted_are_trained_apart(checkpoints: Checkpoints, text: Any) -> None:
    from tokensurgeon.models import load_model

    trained = train_further(load_model(checkpoints(tied=True)), text, TWO, tied=False).model
    inner, outer = trained.get_input_embeddings().weight, trained.get_output_embeddings().weight
    assert not np.array_equal(inner.detach().numpy(), outer.detach().numpy())


def test_no_steps_change_nothing(recipe: Recipe, tmp_path: Path) -> None:
    plain = compare(recipe, METHODS, state=tmp_path / "state")
    kept = {path.name for path in (tmp_path / "state").iterdir()}
    watch = Watch()
    none = compare(
        recipe, METHODS, state=tmp_path / "state", further=FurtherTraining(0), progress=watch
    )
    assert watch.scored == []
    assert none.to_dict() == plain.to_dict()
    assert none.to_csv() == plain.to_csv()
    assert {path.name for path in (tmp_path / "state").iterdir()} == kept


def test_steps_add_a_figure_and_change_no_other(recipe: Recipe) -> None:
    plain, trained = (
        untimed(compare(recipe, METHODS)),
        untimed(compare(recipe, METHODS, further=TWO)),
    )
    for one, two in zip(plain["rows"], trained["rows"], strict=True):
        figure = two.pop("after_steps")
        assert one == two
        assert 0 < figure != one["bits_per_byte"]
    said = trained["facts"].pop("after_steps")
    assert plain == trained
    assert {key: said[key] for key in ("steps", "weights", "rate", "seed", "ranked")} == {
        "steps": 2, "weights": "all", "rate": 3e-4, "seed": 0, "ranked": 3,
    }  # fmt: skip
    assert said["text_bytes"] == len("".join(LINES))
    assert said["memory_bytes"] > 0


def test_a_figure_is_that_of_the_trained_model_whatever_else_is_compared(recipe: Recipe) -> None:
    table = compare(recipe, METHODS, further=TWO)
    alone = compare(recipe, ["subword-mean"], further=TWO)
    for name in ("source", "subword-mean"):
        assert row(alone, name)["after_steps"] == row(table, name)["after_steps"]
    rows = compare(recipe, ["subword-mean"], further=FurtherTraining(2, rows_only=True))
    assert row(rows, "subword-mean")["after_steps"] != row(table, "subword-mean")["after_steps"]
    assert rows.facts["after_steps"]["weights"] == "rows"


def test_methods_with_the_same_rows_have_the_same_figures(recipe: Recipe, permuted: Path) -> None:
    own = recipe.model_copy(update={"tokenizer": str(permuted)})
    table = compare(own, METHODS, further=TWO)
    assert len({row(table, name)["after_steps"] for name in METHODS}) == 1
    assert table.facts["after_steps"]["rank_correlation"] is None
    source = row(table, "source")["after_steps"]
    # The same text in other ids; only the order of chunks of one length may differ.
    assert row(table, "mean")["after_steps"] == pytest.approx(source, abs=0.02)


def test_a_comparison_that_was_stopped_in_a_training_goes_on_to_the_same_bytes(
    recipe: Recipe, tmp_path: Path
) -> None:
    state = tmp_path / "state"

    def stop(done: int, total: int, what: str) -> None:
        if what == "training subword-last further" and done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare(recipe, METHODS, state=state, further=TWO, progress=stop)
    watch = Watch()
    table = compare(recipe, METHODS, state=state, further=TWO, progress=watch)
    assert watch.scored == ["source", "subword-last", "subword-last after 2 steps"]
    assert untimed(table) == untimed(compare(recipe, METHODS, further=TWO))
    again = Watch()
    assert compare(recipe, METHODS, state=state, further=TWO, progress=again).to_dict() == (
        table.to_dict()
    )
    assert again.scored == []


def test_what_decides_the_figure_decides_what_is_kept(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scored(training: FurtherTraining, changed: Recipe = recipe) -> list[str]:
        watch = Watch()
        compare(changed, ["mean"], state=tmp_path / "state", further=training, progress=watch)
        return watch.scored

    one = FurtherTraining(1)
    every = ["source", "source after 1 steps", "mean", "mean after 1 steps"]
    assert scored(one) == every
    assert scored(FurtherTraining(1, rate=3e-4)) == []
    smaller = FurtherTraining(1, tokens_per_step=64)
    for other in (FurtherTraining(1, rate=1e-3), FurtherTraining(1, rows_only=True), smaller):
        assert scored(other) == every
        assert scored(other) == []
    assert scored(one, recipe.model_copy(update={"seed": 1})) == every
    monkeypatch.setattr(after_steps, "code_hash", lambda: "other")
    assert scored(one) == every


def figures(monkeypatch: pytest.MonkeyPatch, **later: float) -> None:
    """Let further training lead to these figures."""

    def bits(self: AfterSteps, entry: Any, protocol: Any) -> float:
        return later.get(entry.name.replace("-", "_"), 1.0)

    monkeypatch.setattr(AfterSteps, "bits_per_byte", bits)


def test_the_second_figure_can_choose(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    first = [one["method"] for one in compare(recipe, METHODS).rows[1:]]
    figures(monkeypatch, **{name.replace("-", "_"): 5.0 - i for i, name in enumerate(first)})
    for choose_by, order in (("bits-per-byte", first), ("after-steps", first[::-1])):
        table = compare(recipe, METHODS, further=TWO, choose_by=choose_by)
        assert [one["method"] for one in table.rows] == ["source", *order]
        said = table.facts["after_steps"]
        assert (said["best_first"], said["best"]) == (first[0], first[-1])
        assert said["rank_correlation"] == pytest.approx(-1)
        assert said["choose_by"] == choose_by
        assert [entry.name for entry in table.evaluation.entries] == ["source", *METHODS]


def test_a_method_that_cannot_work_has_no_second_figure(recipe: Recipe) -> None:
    table = compare(recipe, ["omp", "mean"], further=TWO, choose_by="after-steps")
    assert [one["method"] for one in table.rows] == ["source", "mean", "omp"]
    assert table.facts["after_steps"]["ranked"] == 1
    assert table.to_csv().splitlines()[0].startswith("method,bits_per_byte,after_steps,gap")


@pytest.mark.parametrize(
    ("second", "expected"),
    [([1, 2, 3, 4], 1.0), ([4, 3, 2, 1], -1.0), ([1, 3, 2, 4], 0.8), ([2, 2, 2, 2], None)],
)
def test_the_rank_correlation(second: list[float], expected: float | None) -> None:
    found = rank_correlation([0.1, 0.2, 0.3, 9.0], second)
    assert found == (None if expected is None else pytest.approx(expected))


def test_no_rank_correlation_is_claimed_of_two_methods() -> None:
    assert rank_correlation([1, 2], [1, 2]) is None
    assert rank_correlation([], []) is None


def test_what_cannot_be_trained_is_refused_before_anything_is_measured(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(changed: Recipe, training: FurtherTraining, *, by: str = "bits-per-byte") -> str:
        watch = Watch()
        with pytest.raises(UsageError) as caught:
            compare(changed, ["mean"], further=training, choose_by=by, progress=watch)
        assert watch.scored == []
        return str(caught.value)

    text = recipe.text.model_copy(update={"calibration": ()})
    assert "give --calibration-text" in refused(recipe.model_copy(update={"text": text}), TWO)
    assert "--after-steps N" in refused(recipe, FurtherTraining(), by="after-steps")
    assert "'luck' is no figure" in refused(recipe, TWO, by="luck")
    monkeypatch.setattr(after_steps, "available_memory", lambda: 1000)
    assert "take --after-steps-rows" in refused(recipe, TWO)
    assert "leave it out" in refused(recipe, FurtherTraining(2, rows_only=True))


def test_settings_that_make_no_sense_are_refused() -> None:
    rates: list[dict[str, Any]] = [{"rate": rate} for rate in (0.0, -1.0, float("nan"))]
    for settings in ({"steps": -1}, {"tokens_per_step": 0}, *rates):
        with pytest.raises(SettingError, match="give"):
            FurtherTraining(**settings)


def test_weights_that_predict_nothing_are_said(recipe: Recipe) -> None:
    with pytest.raises(EvaluationError, match=r"1e\+30 .*give a lower --after-steps-rate"):
        compare(recipe, ["mean"], further=FurtherTraining(3, rate=1e30))


def test_rows_alone_are_trained_by_healings_trainer(recipe: Recipe, text: TrainingText) -> None:
    session = prepare(recipe)
    trained = train_further(session.model, text, FurtherTraining(2, rows_only=True), tied=False)
    every = np.ones(session.model.n_rows, dtype=bool)
    trainer = Trainer(session.model, every, every, tied=False, shared_map=False)
    order = text.passes(np.random.default_rng(0), 2048)
    for rate in (0.05, 0.1):  # of 0.2, the highest, after one and two of 20 steps
        trainer.step(*text.padded(next(order)), 0.2 * rate)
    trainer.write()
    for name, values in weights(trainer.model).items():
        assert np.array_equal(values, weights(trained)[name])
