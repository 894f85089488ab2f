"""The trained limit: all rows trained, the source's alike."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

import tokensurgeon
from tests.world import SENTENCES
from tokensurgeon import Recipe
from tokensurgeon.cli.main import main
from tokensurgeon.errors import UsageError
from tokensurgeon.report.evaluation_tables import print_limit
from tokensurgeon.studies import trained_limit as module
from tokensurgeon.studies.gap_closed import KnownLimit
from tokensurgeon.studies.trained_limit import TrainedLimit, trained_limit
from tokensurgeon.surgery.calibrate import CalibratedRows, calibrate_rows
from tokensurgeon.surgery.session import Session

DATA = Path(tokensurgeon.__file__).parent / "data"


@pytest.fixture(scope="module")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Documents of the same sentences as the evaluation text, in other orders."""
    path = tmp_path_factory.mktemp("calibration") / "calibration.jsonl"
    words = " ".join(SENTENCES).split()
    texts = [" ".join(words[i % 7 :: 7]) + f" {i}" for i in range(300)]
    path.write_text("\n".join(json.dumps({"text": text}) for text in texts), "utf-8")
    return path


@pytest.fixture(scope="module")
def arguments(
    tiny_source: Path, tiny_donor: Path, tiny_text: Path, calibration: Path
) -> dict[str, object]:
    # What a random model writes is no text: no stage would be kept for its sake.
    texts = {"calibration": calibration, "other": calibration, "evaluation": tiny_text}
    return {
        "source": str(tiny_source),
        "tokenizer": str(tiny_donor),
        "text": {name: [str(path)] for name, path in texts.items()},
    }


@pytest.fixture(scope="module")
def result(arguments: dict[str, object]) -> TrainedLimit:
    # Not calibrated: these documents repeat one another and are little like what is measured.
    plain = Recipe.model_validate({**arguments, "calibrate": []})
    return trained_limit(plain, minutes=60, max_tokens=12_000)


def test_training_gets_below_the_plain_method(result: TrainedLimit) -> None:
    assert result.limit < result.start - 0.05
    assert result.source_trained < result.source
    assert result.start_method == "subword-mean"
    assert result.gap == pytest.approx(result.limit - result.source)
    assert result.gap_adapted == pytest.approx(result.limit - result.source_trained)


def test_training_starts_at_calibrated_rows(
    arguments: dict[str, object], result: TrainedLimit
) -> None:
    found = trained_limit(Recipe.model_validate(arguments), minutes=60, max_tokens=1000)
    assert found.stages
    assert found.facts["notes"] == []
    assert found.target_training.history[0][1] < result.target_training.history[0][1]
    assert result.stages == ()


def test_refitting_what_was_trained_is_part_of_the_limit(
    arguments: dict[str, object], result: TrainedLimit
) -> None:
    found = trained_limit(
        Recipe.model_validate({**arguments, "calibrate": ["refit"]}), minutes=60, max_tokens=12_000
    )
    assert found.target_training.history == result.target_training.history
    assert found.stages == ("refit",)
    assert found.limit < result.limit
    assert found.source_trained != result.source_trained


def test_what_stops_the_training_is_seen_by_no_stage(
    arguments: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, list[str]] = {}

    def parted(texts: Sequence[str], seed: int) -> tuple[list[str], list[str]]:
        seen["fit"], seen["aside"] = real(texts, seed)
        return seen["fit"], seen["aside"]

    def watched(session: Session, *rest: Any) -> CalibratedRows:
        seen["calibrated on"] = list(session.calibration_texts)
        seen["counted"] = list(session.context.texts)
        return calibrate_rows(session, *rest)

    real = module._parted
    monkeypatch.setattr(module, "_parted", parted)
    monkeypatch.setattr(module, "calibrate_rows", watched)
    trained_limit(Recipe.model_validate(arguments), minutes=60, max_tokens=500)
    assert seen["calibrated on"] == seen["counted"] == seen["fit"]
    assert seen["aside"]
    assert not set(seen["aside"]) & set(seen["fit"])


def test_too_little_text_to_calibrate_is_said(
    arguments: dict[str, object], tiny_text: Path, tmp_path: Path
) -> None:
    path = tmp_path / "two.jsonl"
    path.write_text('{"text": "Some words here."}\n{"text": "And others there."}\n', "utf-8")
    texts = {"calibration": [str(path)], "evaluation": [str(tiny_text)]}
    found = trained_limit(
        Recipe.model_validate({**arguments, "text": texts}), minutes=60, max_tokens=200
    )
    assert found.stages == ()
    (note,) = found.facts["notes"]
    assert "not calibrated" in note


def test_the_share_closed_runs_from_the_start_to_the_limit(result: TrainedLimit) -> None:
    assert result.closed(result.start) == 0
    assert result.closed(result.limit) == 1
    assert result.closed((result.start + result.limit) / 2) == pytest.approx(0.5)


@pytest.mark.parametrize("body", [False, True])
def test_the_source_teaches_rows_and_the_body_too(body: bool) -> None:
    """On the model that ships: what a model that knows nothing implies teaches nothing."""
    texts = {kind: [str(DATA / "text" / f"{kind}.jsonl")] for kind in ("calibration", "evaluation")}
    recipe = Recipe.model_validate(
        {
            "source": str(DATA / "source"),
            "tokenizer": str(DATA / "donor"),
            "init": {"input": "subword-mean", "output": "subword-mean"},
            "calibrate": [],
            "heal_body": body,
            "text": {**texts, "max_bytes": 20_000},
        }
    )
    found = trained_limit(recipe, minutes=60, max_tokens=5_000, teacher="source")
    assert found.limit < found.start - 0.01
    assert found.before == found.start  # the plain method's rows, not calibrated
    assert found.source_trained == found.source  # no label, so nothing that it could gain
    assert found.source_training is None
    assert found.body is body


@pytest.mark.parametrize(
    ("more", "teacher", "message"),
    [({"heal_body": True}, "text", "--teacher source"), ({}, "a book", "no teacher 'a book'")],
)
def test_a_teacher_that_cannot_teach_is_refused(
    arguments: dict[str, object], more: dict[str, object], teacher: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        trained_limit(Recipe.model_validate({**arguments, **more}), teacher=teacher)


def test_both_trainings_say_what_they_took(result: TrainedLimit) -> None:
    for training in (result.target_training, result.source_training):
        assert training is not None
        assert 0 < training.n_tokens <= 12_000 + 4 * 1024
        assert training.n_steps > 0
        assert [n for n, _ in training.history] == sorted({n for n, _ in training.history})
        assert min(value for _, value in training.history) < training.history[0][1]


def test_the_command_writes_what_compare_reads(
    arguments: dict[str, object], tiny_text: Path, calibration: Path, tmp_path: Path
) -> None:
    found = CliRunner().invoke(
        main,
        [
            *("floor", str(arguments["source"]), "--tokenizer", str(arguments["tokenizer"])),
            *("--text", str(tiny_text), "--calibration-text", str(calibration)),
            *("--max-tokens", "2000", "--minutes", "60", "--json"),
        ],
    )
    assert found.exit_code == 0, found.output
    data = json.loads(found.stdout)
    assert data["limit"] - data["source"] == pytest.approx(data["gap"])
    assert data["trained_from"] == ["hidden-residual", "subword-mean"]
    assert data["facts"]["tied"] is False
    file = tmp_path / "floor.json"
    file.write_text(found.stdout, "utf-8")
    read = KnownLimit.parse(str(file))
    assert (read.limit, read.start, read.source, read.source_trained) == (
        *(data[key] for key in ("limit", "start", "source", "source_trained")),
    )


def test_the_command_prints_a_table_with_both_gaps(
    arguments: dict[str, object], tiny_text: Path, calibration: Path
) -> None:
    found = CliRunner().invoke(
        main,
        [
            *("floor", str(arguments["source"]), "--tokenizer", str(arguments["tokenizer"])),
            *("--text", str(tiny_text), "--calibration-text", str(calibration)),
            *("--max-tokens", "500", "--untie"),
        ],
    )
    assert found.exit_code == 0, found.output
    for words in ("gap, adapted", "source, trained alike", "start (subword-mean)", "trained limit"):
        assert words in found.stdout


@pytest.mark.parametrize("shift", [0.1, -0.1])
def test_a_training_that_ends_above_its_rows_is_called_no_limit(
    result: TrainedLimit, shift: float
) -> None:
    console = Console(file=(buffer := io.StringIO()), width=200)
    print_limit(console, {**result.to_dict(), "before": result.limit - shift})
    printed = buffer.getvalue()
    assert "before training (hidden-residual/subword-mean)" in printed
    assert ("this is no limit" in printed) == (shift > 0)


@pytest.mark.parametrize("missing", ["calibration", "evaluation"])
def test_both_texts_are_needed(arguments: dict[str, object], missing: str) -> None:
    texts = {k: v for k, v in arguments["text"].items() if k != missing}  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match="give --"):
        trained_limit(Recipe.model_validate({**arguments, "text": texts}))


def test_one_short_document_cannot_be_parted(
    arguments: dict[str, object], tiny_text: Path, tmp_path: Path
) -> None:
    path = tmp_path / "one.txt"
    path.write_text("A single line.", "utf-8")
    texts = {"calibration": [str(path)], "evaluation": [str(tiny_text)]}
    with pytest.raises(UsageError, match="give more text"):
        trained_limit(Recipe.model_validate({**arguments, "text": texts}))
