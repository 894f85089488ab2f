"""demo: the whole pipeline on package data, offline, and nothing left behind."""

from __future__ import annotations

import json
import tempfile
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tokensurgeon import Recipe, transplant
from tokensurgeon.cli import demo
from tokensurgeon.cli.main import main
from tokensurgeon.surgery import SurgeryResult


def test_the_data_of_the_demo_ships_with_the_package() -> None:
    data = resources.files("tokensurgeon") / "data"
    for name in ("source", "donor"):
        for file in ("config.json", "model.safetensors", "tokenizer.json"):
            assert (data / name / file).is_file(), f"{name}/{file}"
    assert (data / "text" / "evaluation.jsonl").is_file()
    assert (data / "NOTICE.md").is_file()


def test_the_demo_measures_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few_pages: Path
) -> None:
    """On few pages and with little time: how methods and stages are chosen is tested elsewhere."""

    def on_little_text(recipe: Recipe, **options: Any) -> SurgeryResult:
        text = recipe.text.model_copy(update={"calibration": (str(few_pages),)})
        return transplant(recipe.model_copy(update={"text": text, "budget": 0.1}), **options)

    monkeypatch.setattr("tokensurgeon.surgery.transplant", on_little_text)
    monkeypatch.setattr(demo, "MAX_BYTES", 8_000)
    monkeypatch.setattr(demo, "BASELINES", ("subword-mean",))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr("tokensurgeon.cli.console.SILENT_SECONDS", 0.0)
    result = CliRunner().invoke(main, ["demo", "--json"])
    assert result.exit_code == 0, result.stderr
    steps = result.stderr.splitlines()
    assert len(steps) == len(set(steps)) > 3
    entries = json.loads(result.stdout)["evaluation"]["entries"]
    assert [entry["name"] for entry in entries] == ["source", "patched", "subword-mean"]
    assert all(0 < entry["bits_per_byte"] < 8 for entry in entries)
    assert entries[1]["bytes_per_token"] > entries[0]["bytes_per_token"]
    assert list(tmp_path.glob("tokensurgeon*")) == []


@pytest.mark.parametrize("output", [None, "kept"])
def test_the_demo_ends_with_three_lines_of_what_to_do_next(output: str | None) -> None:
    lines = demo.what_next(output)
    assert len(lines) == 3
    assert (output or "-o DIR") in lines[0]


def test_the_demo_does_not_touch_an_output_that_exists(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    result = CliRunner().invoke(main, ["demo", "-o", str(tmp_path)])
    assert result.exit_code == 2
    assert "--force" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
