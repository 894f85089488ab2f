"""``verify`` finds what is planted, and nothing in what is sound."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from safetensors.torch import load_file, save_file

import tokensurgeon
from tokensurgeon.checkpoint import recheck
from tokensurgeon.cli.main import main
from tokensurgeon.errors import CheckpointError
from tokensurgeon.report.records import read_weights

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
    steps = ["files", "checkpoint", "ids", "rows", "AutoTokenizer", "report"]
    assert list(data["checked"]) == steps


def test_a_checkpoint_of_others_is_checked_without_a_manifest_where_that_is_said():
    done = verify(SOURCE, "--no-manifest")
    assert done.exit_code == 0, done.output
    assert "not written by tokensurgeon" in done.stdout
    assert "report" not in done.stdout


def test_a_manifest_that_is_gone_is_a_problem(copy):
    (copy / "manifest.json").unlink()
    done = verify(copy)
    assert done.exit_code == 1
    assert "has no manifest.json: transplant again, or add --no-manifest" in done.stdout
    assert verify(copy, "--no-manifest").exit_code == 0


@pytest.mark.parametrize("version", [99, 0, "1", None, True, 1.5, "9" * 5000])
def test_a_manifest_of_another_schema_is_said_in_one_line(copy, version):
    change_json(copy / "manifest.json", schema_version=version)
    done = verify(copy)
    assert done.exit_code == 1
    assert "and this release reads 1: update tokensurgeon, or transplant again" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


@pytest.mark.parametrize("content", ["", "[", "null", "[]", "[" * 100_000, '{"a": ' + "9" * 5000])
def test_a_manifest_that_cannot_be_read_is_said_in_one_line(copy, content):
    (copy / "manifest.json").write_text(content)
    done = verify(copy)
    assert done.exit_code == 1
    assert "manifest.json" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_files_that_are_gone_changed_or_came_later_are_named(copy):
    tokens = copy / "surgery" / "tokens.json"
    (copy / "README.md").unlink()
    tokens.write_bytes(tokens.read_bytes().replace(b"copied", b"coqied"))
    (copy / "new.py").write_text("")
    (copy / "notes.org").write_text("mine")
    problems = recheck(copy).problems
    assert [name for name in ("README.md", "tokens.json", "new.py") if name in str(problems)] == [
        "README.md", "tokens.json", "new.py",
    ]  # fmt: skip
    assert len(problems) == 3
    (copy / "new.py").unlink()
    shutil.rmtree(copy / "surgery")
    assert sum("surgery/" in problem for problem in recheck(copy).problems) == 3


def test_a_file_that_no_loader_reads_is_said_and_no_problem(copy):
    (copy / "notes.org").write_text("mine")
    done = verify(copy)
    assert done.exit_code == 0, done.output
    assert "all as the manifest says; besides 1 it does not list: notes.org" in done.stdout


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("report.json", b"{}", "is not a report of schema version 1"),
        ("report.json", b'{"schema_version": 2}', "is not a report of schema version 1"),
        ("surgery/tokens.json", b"[", "tokens.json is damaged"),
        ("surgery/input_weights.npz", b"PK", "input_weights.npz is missing or damaged"),
    ],
)
def test_a_report_or_record_that_cannot_be_read_is_a_problem(copy, name, content, message):
    """Though the manifest says that it is the one that was written."""
    (copy / name).write_bytes(content)
    manifest = json.loads((copy / "manifest.json").read_text("utf-8"))
    facts = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    manifest["files"][name] = facts
    (copy / "manifest.json").write_text(json.dumps(manifest))
    done = verify(copy)
    assert done.exit_code == 1
    assert message in done.stdout
    assert "has 1 problem" in done.stderr


def test_weights_past_the_source_are_damaged_records(copy):
    import scipy.sparse as sp

    path = copy / "surgery" / "input_weights.npz"
    weights = sp.csr_array(sp.load_npz(path))
    weights.indices[0] = weights.shape[1] + 7
    sp.save_npz(path, weights)
    with pytest.raises(CheckpointError, match="missing or damaged"):
        read_weights(path)


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
    found = recheck(copy)
    assert "2 input rows hold NaN or Inf, the first is row 7" in found.problems
    assert found.checked["rows"] == "1 problem"


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
    assert "give a checkpoint's folder" in done.stdout
    assert verify(tmp_path / "none/of/it").exit_code == 1
    (tmp_path / "tokenizer.json").write_text("{}")
    assert "a tokenizer and no model: run 'tokensurgeon inspect'" in verify(tmp_path).stderr
