"""A change of the body travels from a stage to the checkpoint, its report, tables and patches."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.world import body_update
from tokensurgeon import transplant
from tokensurgeon.calibration import STAGES, CalibrationData, Matrices, Stage
from tokensurgeon.calibration.contract import Candidate, Candidates
from tokensurgeon.checkpoint import BodyUpdate, Checkpoint, recheck
from tokensurgeon.checkpoint.body_update import changeable_weights
from tokensurgeon.errors import CalibrationError, CheckpointError, UsageError
from tokensurgeon.models import load_model
from tokensurgeon.patches import apply_patch, export_patch
from tokensurgeon.recipe import Recipe
from tokensurgeon.report.card import model_card
from tokensurgeon.report.plot import write_plot
from tokensurgeon.report.terminal import comparison_table, facts
from tokensurgeon.studies.compare import compare
from tokensurgeon.surgery import SurgeryResult

MEAN = {"input": "subword-mean", "output": "subword-mean"}
IDS = [3, 40, 5, 9, 288]


class ChangeBody(Stage):
    """Proposes a body that is made by hand, and wants it whatever the text says."""

    name = "change-body"
    changes_shared = True
    update: BodyUpdate
    seen: CalibrationData

    def propose(self, data: CalibrationData, matrices: Matrices) -> Candidates:
        type(self).seen = data
        yield Candidate.of({}, matrices.with_body(self.update))
        return None

    def own_objective(self) -> Callable[[Matrices], float]:
        return lambda matrices: 1.0 if matrices.body is None else 0.0


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> type[ChangeBody]:
    monkeypatch.setitem(STAGES, "change-body", ChangeBody)
    return ChangeBody


def operate(source: Path, world: Path, out: Path | None, **recipe: Any) -> SurgeryResult:
    text = {"calibration": [str(world / "calibration.jsonl")]}
    settings: dict[str, Any] = {"heal_body": True, "calibrate": ("change-body",), "init": MEAN}
    settings |= recipe
    return transplant(source=source, tokenizer=world / "target", output=out, text=text, **settings)


@pytest.fixture(scope="module")
def texts(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The world with a longer text beside its tokenizers."""
    folder = tmp_path_factory.mktemp("texts")
    for name in ("source", "target"):
        shutil.copytree(world / name, folder / name)
    lines = [json.loads(line) for line in (world / "evaluation.jsonl").read_text().splitlines()]
    documents = [f"{i}. {line['text']}" for i in range(30) for line in lines]
    split = {"calibration": documents[5:], "evaluation": [f"{i} rows" for i in range(200)]}
    for name, some in split.items():
        text = "\n".join(json.dumps({"text": document}) for document in some)
        (folder / f"{name}.jsonl").write_text(text)
    return folder


def test_what_a_stage_proposes_is_written_reported_and_portable(
    checkpoints: Callable[..., Path], texts: Path, stage: type[ChangeBody], tmp_path: Path
) -> None:
    source, out = checkpoints("llama", False, dtype="bfloat16", shard="40KB"), tmp_path / "out"
    stage.update = body_update(source)
    result = operate(source, texts, out)
    assert stage.seen.body_weights == set(changeable_weights(Checkpoint.open(source)))
    assert result.rows is not None
    assert result.rows.body is not None
    body = result.report.body
    n = stage.update.n_numbers
    assert (body.changed, body.rank, body.tensors, body.numbers) == (True, 2, 3 * 7, n)
    line = f"changed: yes (rank 2, 21 tensors, {n:,} numbers)"
    assert ("body", line) in facts(result.report)
    assert f"body {line}" in model_card(result.report)
    assert "No other weight was changed" not in model_card(result.report)
    assert json.loads((out / "report.json").read_text())["body"]["changed"] is True

    before, after = Checkpoint.open(source), Checkpoint.open(out)
    for name, key in changeable_weights(before).items():
        merged = result.rows.body.merged(name, before.read(key))
        np.testing.assert_array_equal(after.read(key), merged)
    kept = [key for key in before.tensors.where if "norm" in key]
    assert kept
    for key in kept:
        np.testing.assert_array_equal(after.read(key), before.read(key))
    model = load_model(source)
    rows = result.rows.input.rows, result.rows.output.rows
    patched = model.patched(*rows, body=result.rows.body)
    np.testing.assert_array_equal(load_model(out).logits(IDS), patched.logits(IDS))
    assert recheck(out).problems == []

    made = export_patch(out, tmp_path / "a.safetensors")
    assert made.body_tensors == 21
    applied = apply_patch(made.path, source, tmp_path / "applied")
    for path in out.glob("*.safetensors"):
        assert (applied / path.name).read_bytes() == path.read_bytes()
    assert recheck(applied).problems == []
    again = export_patch(applied, tmp_path / "b.safetensors", source=source)
    assert again.body_tensors == 21


def test_a_patch_merges_the_change_into_a_fine_tune(
    checkpoints: Callable[..., Path], texts: Path, stage: type[ChangeBody], tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    source = checkpoints("llama", True)
    stage.update = body_update(source)
    out = tmp_path / "out"
    operate(source, texts, out)
    tuned = tmp_path / "tuned"
    shutil.copytree(source, tuned)
    weights = {name: 1.1 * of for name, of in load_file(tuned / "model.safetensors").items()}
    save_file(weights, tuned / "model.safetensors", metadata={"format": "pt"})
    made = export_patch(out, tmp_path / "a.safetensors")
    applied = Checkpoint.open(apply_patch(made.path, tuned, tmp_path / "applied"))
    for name, key in changeable_weights(applied).items():
        merged = stage.update.merged(name, weights[key].numpy())
        np.testing.assert_allclose(applied.read(key), merged, atol=1e-6)
    narrow = checkpoints("llama", True, intermediate_size=40)
    with pytest.raises(CheckpointError, match="is no fine-tune of the source"):
        apply_patch(made.path, narrow, tmp_path / "x")
    with pytest.raises(CheckpointError, match="it is of another model"):
        apply_patch(made.path, narrow, tmp_path / "x", allow_other_model=True)
    assert not (tmp_path / "x").exists()


def test_healing_after_it_keeps_the_body(
    checkpoints: Callable[..., Path], texts: Path, stage: type[ChangeBody]
) -> None:
    source = checkpoints("llama", False)
    stage.update = body_update(source, scale=1e-3)
    done = operate(source, texts, None, heal=0.02, calibrate=("change-body", "refit"))
    assert done.rows is not None
    assert done.report.stages[1].stage == "heal"
    assert done.rows.body is not None
    assert done.rows.body.names == stage.update.names


def test_a_change_that_loses_on_other_text_is_not_kept_whatever_the_stage_says(
    checkpoints: Callable[..., Path], texts: Path, stage: type[ChangeBody],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    source = checkpoints("llama", False)
    stage.update = body_update(source)
    monkeypatch.setattr(stage, "changes_shared", False)
    monkeypatch.setattr(stage, "own_objective", lambda self: None)
    monkeypatch.setattr(CalibrationData, "score", figure_of_bodies)
    done = operate(source, texts, None)
    (record,) = done.report.stages
    assert done.rows.body is None
    assert record.why.startswith("loses on other text (+1.000)")
    assert record.after == 1.0


def figure_of_bodies(data: CalibrationData, matrices: Matrices, chunks: Any) -> float:
    """Say that a changed body wins on the selection text and loses on the other."""
    changed = matrices.body is not None
    return 2.0 + changed if chunks is data.texts.other else 2.0 - changed


def test_without_it_the_body_is_the_source_s_and_nothing_is_said(
    checkpoints: Callable[..., Path], texts: Path, tmp_path: Path
) -> None:
    source, out = checkpoints("llama", False), tmp_path / "out"
    result = operate(source, texts, out, heal_body=False, calibrate=("unigram",))
    assert result.rows.body is None
    assert result.report.body.changed is False
    assert "body" not in dict(facts(result.report))
    assert "No other weight was changed" in model_card(result.report)
    assert "body" not in json.loads((out / "manifest.json").read_text())
    assert not (out / "surgery/body_update.safetensors").exists()
    before, after = Checkpoint.open(source), Checkpoint.open(out)
    body = set(before.tensors.where) - set(before.layout.names)
    assert len(body) > 20
    for key in body:
        whole = (b"".join(one.tensors.file_of(key).chunks(key)) for one in (before, after))
        assert next(whole) == next(whole)


def test_a_stage_that_changes_the_body_unasked_is_refused(
    checkpoints: Callable[..., Path], texts: Path, stage: type[ChangeBody]
) -> None:
    stage.update = body_update(checkpoints("llama", False))
    with pytest.raises(CalibrationError, match=r"changes model\.layers\.0.*add --heal-body"):
        operate(checkpoints("llama", False), texts, None, heal_body=False)


def test_a_comparison_has_a_column_where_a_body_changed(
    checkpoints: Callable[..., Path], texts: Path, stage: type[ChangeBody], tmp_path: Path
) -> None:
    from rich.console import Console

    source = checkpoints("llama", False)
    stage.update = body_update(source, scale=1e-3)
    recipe = {
        "source": str(source), "tokenizer": str(texts / "target"), "heal_body": True,
        "calibrate": ("change-body",),
        "text": {
            "calibration": [str(texts / "calibration.jsonl")],
            "evaluation": [str(texts / "evaluation.jsonl")],
        },
    }  # fmt: skip
    table = compare(Recipe.parse(recipe), ["subword-mean", "subword-mean+calibration"])
    numbers = {row["method"]: row["body_numbers"] for row in table.rows}
    n = stage.update.n_numbers
    assert numbers == {"source": 0, "subword-mean": 0, "subword-mean+calibration": n}
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(comparison_table(table.rows, 140))
    shown = console.export_text()
    assert "body" in shown
    assert shown.count("changed") == 1
    data = table.to_dict()
    page = tmp_path / "page.html"
    write_plot(page, data)
    assert ">body</th>" in page.read_text()
    plain = [row | {"body_numbers": 0} for row in table.rows]
    console.print(comparison_table(plain, 140))
    assert "body" not in console.export_text()


@pytest.mark.parametrize(
    ("family", "changes", "words"),
    [
        ("llama", {"budget": 0}, "the budget, which is 0 minutes"),
        ("llama", {"device": "auto"}, "--heal-body trains through the model"),
        ("gpt2", {}, "gpt2 stores none"),
        ("llama", {"calibrate": None}, "--heal-body is part of calibration"),
    ],
)
def test_what_cannot_change_its_body_is_refused_in_a_line(
    checkpoints: Callable[..., Path], texts: Path, tmp_path: Path,
    family: str, changes: dict[str, Any], words: str,
) -> None:  # fmt: skip
    settings = {"calibrate": ("unigram",)} | changes
    with pytest.raises(UsageError, match=words):
        operate(checkpoints(family, False), texts, tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()
