"""The default: methods are measured and chosen, their rows calibrated, and the report says how."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

from tokensurgeon import Recipe, transplant
from tokensurgeon.calibration import CalibrationData, Matrices, StageRecord
from tokensurgeon.calibration.acceptance import Acceptance, Standing, run_stage
from tokensurgeon.calibration.stages import OF_LARGE
from tokensurgeon.calibration.stages import train as module
from tokensurgeon.calibration.stages.distil import Distil
from tokensurgeon.calibration.stages.train import Heal
from tokensurgeon.calibration.training.loop import Trained
from tokensurgeon.errors import RecipeError, SettingError, UsageError
from tokensurgeon.initialisers.contract import Computes
from tokensurgeon.models.pace import Pace
from tokensurgeon.report import SurgeryReport, model_card
from tokensurgeon.surgery import candidates as candidates_module
from tokensurgeon.surgery import prepare
from tokensurgeon.surgery.calibrate import planned_stages
from tokensurgeon.surgery.candidates import FAST, Afforded, candidates
from tokensurgeon.surgery.choose import choose
from tokensurgeon.surgery.chosen_methods import PLAIN, PURE
from tokensurgeon.surgery.rows import patch_rows
from tokensurgeon.surgery.session import Session


def recipe(source: Path, donor: Path, text: Path | None = None, **more: object) -> Recipe:
    texts = {} if text is None else {"text": {"calibration": [str(text)]}}
    fields = {"source": str(source), "tokenizer": str(donor), "donor": str(donor)}
    return Recipe.parse({**fields, **texts, **more})


@pytest.fixture(scope="module")
def report(tiny_source: Path, tiny_donor: Path, tiny_text: Path) -> SurgeryReport:
    return transplant(recipe(tiny_source, tiny_donor, tiny_text)).report


def test_the_best_of_the_table_is_taken(report: SurgeryReport) -> None:
    measured = [line for line in report.choice if line.bits_per_byte is not None]
    assert {line.side for line in report.choice} == {"input", "output"}
    for side in ("input", "output"):
        lines = [line for line in measured if line.side == side]
        chosen = [line for line in report.choice if line.side == side and line.chosen]
        assert len(chosen) == 1
        assert len({line.bits_per_byte for line in lines}) > 1
        assert chosen[0].bits_per_byte == min(line.bits_per_byte for line in lines)
    # The output side is measured last, beside the input rows that were taken.
    assert chosen[0].bits_per_byte == min(line.bits_per_byte for line in measured)
    assert "calibration text" in (report.choice_why or "")
    assert report.input.method == report.output.method == "auto"
    assert report.text_methods == ("patched",)


def test_stages_are_reported_with_what_they_bought(report: SurgeryReport) -> None:
    assert report.stages
    kept = [stage for stage in report.stages if stage.kept]
    for stage in kept:
        assert stage.before is not None
        assert stage.after is not None
        assert stage.after < stage.before
    assert all(stage.gradient_steps == 0 for stage in report.stages)
    card = model_card(report)
    assert "## How the methods were chosen" in card
    assert "## What calibration bought" in card
    assert all(f"| {stage.stage} |" in card for stage in report.stages)
    assert "nothing was trained" in card


@pytest.mark.parametrize("calibrate", [None, ["distil"]])
def test_the_source_teaches_a_large_model(
    tiny_source: Path,
    tiny_donor: Path,
    tiny_text: Path,
    monkeypatch: pytest.MonkeyPatch,
    calibrate: list[str] | None,
) -> None:
    monkeypatch.setattr("tokensurgeon.surgery.calibrate.LARGE", 0)
    given = recipe(tiny_source, tiny_donor, tiny_text, calibrate=calibrate, seed=3)
    for stage in planned_stages(prepare(given), given.calibrate, 0.0):
        if isinstance(stage, Distil):
            assert 0 < stage.seconds <= 0.6 * 60 * given.budget
            assert stage.seed == 3
    found = transplant(given).report
    assert [stage.stage for stage in found.stages] == (calibrate or list(OF_LARGE))
    (trained,) = (stage for stage in found.stages if stage.stage == "distil")
    assert trained.gradient_steps > 0


def test_without_text_the_source_writes_some(tiny_source: Path, tiny_donor: Path) -> None:
    result = transplant(recipe(tiny_source, tiny_donor, calibrate=["unigram"]))
    assert result.report.generated
    assert "the source wrote" in (result.report.choice_why or "")
    assert result.report.text_methods == ()
    assert "No calibration text was given" in model_card(result.report)


def test_no_budget_runs_no_forward_pass(tiny_source: Path, tiny_donor: Path) -> None:
    session = prepare(recipe(tiny_source, tiny_donor, budget=0))
    choice = choose(session, session.recipe.init)
    assert choice.methods == ("omp", "omp")
    assert choice.rows.start.forward_tokens == 0
    assert choice.rows.start.stages == ()
    assert "no time" in choice.why


def slow_session(recipe: Recipe, monkeypatch: pytest.MonkeyPatch, body: float) -> Session:
    """Prepare a surgery on a model that seems to run so many tokens a second."""
    pace = Pace(body=body, head=body * 1e3, arithmetic=body * 1e7)
    monkeypatch.setattr("tokensurgeon.surgery.session.measure_pace", lambda _: pace)
    return prepare(recipe)


def test_candidates_race_where_the_whole_text_takes_too_long(
    tiny_source: Path, tiny_donor: Path, few_pages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = recipe(tiny_source, tiny_donor, few_pages, budget=10, calibrate=[])
    session = slow_session(asked, monkeypatch, 500.0)
    choice = choose(session, asked.init, ())
    assert "in a race" in choice.why
    read = {line.n_bytes for line in choice.table if line.bits_per_byte is not None}
    whole = sum(chunk.n_bytes for chunk in session.calibration_data.texts.selection)
    assert min(read) < whole / 2
    (best,) = (line for line in choice.table if line.side == "output" and line.chosen)
    assert best.n_bytes == max(read)
    assert choice.methods[1] == best.method


def test_where_nothing_can_be_measured_the_default_is_taken_and_the_table_says_why(
    tiny_source: Path, tiny_donor: Path, tiny_text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = recipe(tiny_source, tiny_donor, tiny_text, budget=1, calibrate=[])
    session = slow_session(asked, monkeypatch, 50.0)
    choice = choose(session, asked.init, ())
    assert re.search(r"to measure the candidates would take about \d+ s, and \d+ s", choice.why)
    (line,) = choice.table
    assert line.chosen
    assert line.method == "/".join(choice.methods)
    assert line.bits_per_byte is None


def test_a_method_that_runs_the_source_too_long_is_left_out(
    tiny_source: Path, tiny_donor: Path, tiny_text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = recipe(tiny_source, tiny_donor, tiny_text, budget=10, calibrate=[]).model_dump()
    asked = Recipe.parse({**fields, "tokenizer": str(tiny_donor), "donor": None})
    session = slow_session(asked, monkeypatch, 15.0)
    choice = choose(session, asked.init, ())
    assert "left out, for the time they take: hidden-residual, about" in choice.why
    assert "hidden-residual" not in choice.methods


@pytest.mark.parametrize(("share", "default"), [(0.6, PURE), (0.8, PLAIN)])
def test_the_best_rule_without_a_donor_may_take_much_of_the_budget(
    tiny_source: Path, tiny_donor: Path, tiny_text: Path, share: float, default: str
) -> None:
    fields = recipe(tiny_source, tiny_donor, tiny_text, budget=10).model_dump()
    session = prepare(Recipe.parse({**fields, "tokenizer": str(tiny_donor), "donor": None}))
    inputs, spec, context = session.inputs, session.recipe.init, session.context
    rule = candidates(inputs, spec)[PURE]
    assert isinstance(rule, Computes)
    pace = Pace(arithmetic=rule.operations(context) / (share * 600))
    afforded = Afforded.of(inputs, spec, context, pace, 10.0)
    assert afforded.default == (default, default)
    assert (PURE in afforded.methods) is (default == PURE)


@pytest.mark.parametrize(
    ("slow", "default"),
    [((), FAST), ((FAST,), "omp"), ((FAST, "omp"), PURE), ((FAST, "omp", PURE), PLAIN)],
)
def test_where_the_best_with_a_donor_takes_too_long_the_next_is_taken(
    tiny_source: Path,
    tiny_donor: Path,
    tiny_text: Path,
    monkeypatch: pytest.MonkeyPatch,
    slow: tuple[str, ...],
    default: str,
) -> None:
    session = prepare(recipe(tiny_source, tiny_donor, tiny_text, budget=10))
    seconds = dict.fromkeys(slow, 500.0) | ({} if PURE in slow else {PURE: 300.0})
    monkeypatch.setattr(
        candidates_module, "seconds_of", lambda method, *_: seconds.get(method.name, 0.0)
    )
    afforded = Afforded.of(session.inputs, session.recipe.init, session.context, Pace(), 10.0)
    assert afforded.default == (default, default)
    assert (PURE in afforded.methods) is (default == PURE)


def test_the_same_recipe_chooses_the_same_rows(
    tiny_source: Path, tiny_donor: Path, tiny_text: Path
) -> None:
    one, other = (
        transplant(recipe(tiny_source, tiny_donor, tiny_text, calibrate=["readout"])).rows
        for _ in range(2)
    )
    assert one is not None
    assert other is not None
    assert np.array_equal(one.input.rows, other.input.rows)
    assert np.array_equal(one.output.rows, other.output.rows)


def test_healing_counts_its_steps(tiny_source: Path, tiny_donor: Path, tiny_text: Path) -> None:
    found = transplant(
        recipe(tiny_source, tiny_donor, tiny_text, init={"input": "omp", "output": "omp"}, heal=0.1)
    )
    (stage,) = found.report.stages
    assert stage.stage == "heal"
    assert stage.gradient_steps > 0
    assert found.rows is not None
    assert found.rows.gradient_steps == stage.gradient_steps
    if stage.kept:
        assert "nothing was trained" not in model_card(found.report)


@pytest.mark.parametrize(
    ("budget", "more", "expected"),
    [(0.0, {"heal": 0.02}, ["heal"]), (1.0, {"calibrate": ["refit"]}, ["refit"]), (1.0, {}, [])],
)
def test_without_a_choice_what_is_named_is_done(
    tiny_source: Path, tiny_text: Path, budget: float, more: dict[str, object], expected: list[str]
) -> None:
    fields = {"source": str(tiny_source), "tokenizer": str(tiny_source), "budget": budget}
    texts = {"calibration": [str(tiny_text)]}
    report = transplant(Recipe.parse({**fields, "text": texts, **more})).report
    assert [stage.stage for stage in report.stages] == expected


def to_heal(source: Path, donor: Path, text: Path) -> tuple[Matrices, CalibrationData]:
    session = prepare(recipe(source, donor, text))
    rows = patch_rows(session, ("subword-mean", "subword-mean"), session.recipe.init)
    data = session.calibration_data
    data.texts = dataclasses.replace(data.texts, other=(data.texts.selection[0],))
    return rows.matrices, data


def heal(
    data: CalibrationData, matrices: Matrices, minutes: float, other_at_start: float | None = None
) -> tuple[Matrices, StageRecord]:
    """Run the stage; other text may cost what it did before the stages that came before."""
    acceptance = Acceptance.of(data)
    standing = Standing.of(acceptance, matrices)
    if other_at_start is not None:
        standing = dataclasses.replace(standing, other_at_start=other_at_start)
    after, record = run_stage(data, standing, Heal(minutes), acceptance)
    return after.matrices, record


def test_healing_must_not_cost_other_text(
    tiny_source: Path, tiny_donor: Path, tiny_text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    matrices, data = to_heal(tiny_source, tiny_donor, tiny_text)
    selection = iter([9.0, 1.0, 1.0, 1.0, 1.0])
    monkeypatch.setattr(
        data,
        "score",
        lambda matrices, chunks: 2.0 if chunks is data.texts.other else next(selection),
    )
    after, record = heal(data, matrices, 0.0, other_at_start=1.5)
    assert not record.kept
    assert after is matrices
    assert "loses on other text (+0.500)" in record.why
    selection = iter([9.0, 1.0, 1.0, 1.0, 1.0])
    after, record = heal(data, matrices, 0.0)  # before was 2.0 too
    assert record.kept
    assert after is not matrices


def test_rows_on_the_way_are_asked_where_training_led_too_far(
    tiny_source: Path, tiny_donor: Path, tiny_text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    matrices, data = to_heal(tiny_source, tiny_donor, tiny_text)
    made = matrices.input + 1.0
    led = Trained(
        Matrices(made, made if matrices.tied else matrices.output + 1.0), 3, 100, 1.0, 1.0
    )
    monkeypatch.setattr(module, "train_rows", lambda *_, **__: led)
    figures = {0.0: 3.0, 0.25: 2.2, 0.5: 2.0, 0.75: 1.5, 1.0: 1.8}

    def score(each: Matrices, chunks: object) -> float:
        share = round(float((each.output - matrices.output).mean()), 2)
        return 1.0 if chunks is data.texts.other and share < 0.6 else figures[share]

    monkeypatch.setattr(data, "score", score)
    after, record = heal(data, matrices, 1.0, other_at_start=1.0)
    assert record.settings["of_the_change"] == 0.5  # three quarters are better, but not elsewhere
    assert (record.before, record.after) == (3.0, 2.0)
    assert np.allclose(after.input, matrices.input + 0.5)


def test_a_named_method_is_left_as_it_is(
    tiny_source: Path, tiny_donor: Path, tiny_text: Path
) -> None:
    found = transplant(recipe(tiny_source, tiny_donor, tiny_text, init={"input": "omp"}))
    assert found.report.stages == ()
    assert found.report.choice == ()


def test_a_vocabulary_that_lacks_nothing_is_left_alone(tiny_source: Path) -> None:
    found = transplant(source=str(tiny_source), tokenizer=str(tiny_source))
    assert found.report.stages == ()
    assert found.report.choice_why == "no token is missing"


def test_what_cannot_be_asked_is_refused(tiny_source: Path, tiny_donor: Path) -> None:
    with pytest.raises(UsageError, match="'auto' chooses for both sides"):
        transplant(recipe(tiny_source, tiny_donor, init={"input": "auto", "output": "omp"}))
    with pytest.raises(UsageError, match="no calibration stage 'folds'"):
        transplant(recipe(tiny_source, tiny_donor, calibrate=["folds"]))
    with pytest.raises(SettingError, match="no setting 'kk'"):
        transplant(recipe(tiny_source, tiny_donor, init={"settings": {"*": {"kk": 3}}}))
    with pytest.raises(RecipeError, match="budget"):
        recipe(tiny_source, tiny_donor, budget=-1)


def test_a_tied_source_stays_one_matrix(
    tmp_path: Path, tiny_source: Path, tiny_donor: Path, tiny_text: Path
) -> None:
    import shutil

    from tests.world import make_model

    tied = tmp_path / "tied"
    shutil.copytree(tiny_source, tied)
    make_model(tied, n_rows=320, seed=3, tied=True)
    fields = recipe(tied, tiny_donor, tiny_text).model_dump()
    found = transplant(**{**fields, "output": str(tmp_path / "out")})
    assert found.rows is not None
    assert found.rows.tied
    assert {stage.stage for stage in found.report.stages}.isdisjoint({"fold", "match"})
    assert {line.side for line in found.report.choice} == {"output"}


def test_a_hypernetwork_is_tried_where_its_settings_name_one(
    tiny_source: Path, tiny_donor: Path, tiny_text: Path
) -> None:
    settings = {"settings": {"hypernetwork": {"minutes": 0.03}}}
    asked = recipe(tiny_source, tiny_donor, tiny_text, init=settings, calibrate=[])
    session = prepare(asked)
    choice = choose(session, asked.init, ())
    lines = {(line.side, line.method): line for line in choice.table}
    for name in (
        ("input", "hypernetwork"),
        ("output", "hypernetwork"),
        ("both", "hypernetwork/hypernetwork"),
    ):
        assert lines[name].rebuilt is None
        assert lines[name].bits_per_byte is not None
    assert choice.rows.start.gradient_steps > 0
    figures = [line.bits_per_byte for line in choice.table if line.bits_per_byte is not None]
    assert any(line.chosen and line.bits_per_byte == min(figures) for line in choice.table)
