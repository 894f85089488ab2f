"""``verify`` finds what is planted, and nothing in what is sound."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from safetensors.torch import load_file, save_file

import tokensurgeon
from tokensurgeon.checkpoint import recheck
from tokensurgeon.cli.main import main

SOURCE = Path(tokensurgeon.__file__).parent / "data" / "source"


@pytest.fixture(scope="module")
def patched(tmp_path_factory):
    out = tmp_path_factory.mktemp("verify") / "patched"
    donor = SOURCE.parent / "donor"
    tokensurgeon.transplant(source=SOURCE, tokenizer=str(donor), init={"input": "mean"}, output=out)
    return out


@pytest.fixture
def copy(patched, tmp_path):
    return Path(shutil.copytree(patched, tmp_path / "copy"))


def verify(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["verify", str(folder), *arguments])


def change_json(path: Path, **values: object) -> None:
    data = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps(data | values))


def test_a_sound_checkpoint_has_no_problems(copy):
    done = verify(copy, "--json")
    assert done.exit_code == 0, done.output
    data = json.loads(done.stdout)
    assert (data["sound"], data["problems"]) == (True, [])
    assert list(data["checked"]) == ["files", "checkpoint", "ids", "rows", "AutoTokenizer"]


def test_a_checkpoint_of_others_is_checked_without_a_manifest():
    done = verify(SOURCE)
    assert done.exit_code == 0, done.output
    assert "not written by tokensurgeon" in done.stdout


def test_a_changed_file_is_named(copy):
    (copy / "report.json").write_text("{}")
    done = verify(copy)
    assert done.exit_code == 1
    assert "report.json has 2 bytes" in done.stdout
    assert "has 1 problem" in done.stderr


def test_ids_without_a_row_and_roles_that_differ_are_named(copy):
    change_json(copy / "config.json", eos_token_id=99_999, pad_token_id=5)
    problems = recheck(copy).problems
    assert any("eos_token_id is 99999, which is not below the" in each for each in problems)
    assert any("eos_token_id is 99999, the tokenizer's is" in each for each in problems)


def test_rows_that_are_not_finite_are_counted(copy):
    path = copy / "model.safetensors"
    tensors = dict(load_file(path))
    name = next(name for name in tensors if "embed" in name)
    rows = tensors[name].clone()
    rows[7, 0] = rows[9, 1] = float("nan")
    save_file(tensors | {name: rows}, path, metadata={"format": "pt"})
    (copy / "manifest.json").unlink()
    assert "2 input rows hold NaN or Inf, the first is row 7" in recheck(copy).problems


def test_a_tokenizer_beyond_the_rows_or_loaded_otherwise_is_named(copy):
    path = copy / "tokenizer.json"
    data = json.loads(path.read_text("utf-8"))
    more = {f"never{i}": len(data["model"]["vocab"]) + i for i in range(3)}
    data["model"]["vocab"] |= more
    path.write_text(json.dumps(data))
    assert any("the tokenizer has id" in each for each in recheck(copy).problems)


def test_what_is_no_checkpoint_is_said(tmp_path):
    done = verify(tmp_path)
    assert done.exit_code == 1
    assert "is it a checkpoint's folder?" in done.stdout
    assert verify(tmp_path / "none/of/it").exit_code == 1
