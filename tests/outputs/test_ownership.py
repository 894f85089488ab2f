"""`--force` removes nothing but what a list of ours names, as it was written."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tokensurgeon.errors import OutputExistsError
from tokensurgeon.outputs import check_folder, staged
from tokensurgeon.outputs.ownership import (
    CHECKPOINT,
    NAMED,
    VOCABULARY,
    list_files,
    why_not_ours,
)


def write(output: Path, weights: bytes = b"weights", name: str = "manifest.json") -> Path:
    """Write a folder as the package does: its list last."""
    with staged(output, force=True) as folder:
        (folder / "model.safetensors").write_bytes(weights)
        (folder / "surgery").mkdir()
        (folder / "surgery" / "tokens.json").write_text("[]")
        facts = {"versions": {"tokensurgeon": "1"}, "files": list_files(folder)}
        (folder / name).write_text(json.dumps(facts))
    return output


@pytest.mark.parametrize("name", ["manifest.json", "training.json"])
def test_what_was_written_is_ours_and_so_is_a_copy(tmp_path: Path, name: str) -> None:
    output = write(tmp_path / "out", name=name)
    assert why_not_ours(output) is None
    copy = shutil.copytree(output, tmp_path / "copy", copy_function=shutil.copy)
    os.utime(copy / name, (0, 0))
    assert why_not_ours(copy) is None
    write(output, b"other")
    assert (output / "model.safetensors").read_bytes() == b"other"


def test_a_folder_of_another_kind_is_not_replaced(tmp_path: Path) -> None:
    checkpoint = write(tmp_path / "model", name=CHECKPOINT)
    vocabulary = write(tmp_path / "words", name=VOCABULARY)
    assert check_folder(checkpoint, force=True) == checkpoint
    assert check_folder(vocabulary, force=True, kind=VOCABULARY) == vocabulary
    with pytest.raises(OutputExistsError, match="holds a vocabulary, and a checkpoint would take"):
        check_folder(vocabulary, force=True)
    with pytest.raises(OutputExistsError, match="holds a checkpoint, and a vocabulary would take"):
        check_folder(checkpoint, force=True, kind=VOCABULARY)


def git(folder: Path) -> None:
    (folder / ".git" / "objects").mkdir(parents=True)
    (folder / ".git" / "config").touch()


def linked(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder.parent / "weights")
    (folder / "model.safetensors").symlink_to(folder.parent / "weights")


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a repository": (git, "holds .git/, which manifest.json does not list"),
    "a document": (lambda f: (f / "thesis.txt").write_text("years"), "thesis.txt"),
    "a document below": (lambda f: (f / "surgery" / "notes.md").touch(), "surgery/notes.md"),
    "an empty folder": (lambda f: (f / "runs").mkdir(), "runs/"),
    "a hidden file": (lambda f: (f / ".env").touch(), ".env"),
    "a link to a file": (lambda f: (f / "data").symlink_to("/etc/hostname"), "data"),
    "a link to a folder": (lambda f: (f / "data").symlink_to(f.parent), "data/"),
    "a link of a listed name": (linked, "model.safetensors"),
    "trained on in place": (
        lambda f: (f / "model.safetensors").write_bytes(b"WEIGHTS"),
        "model.safetensors changed since it was written",
    ),
    "another size": (
        lambda f: (f / "surgery" / "tokens.json").write_text("[1]"),
        "surgery/tokens.json changed since it was written",
    ),
    "no list": (lambda f: (f / "manifest.json").unlink(), "holds no list of ours"),
    "another's list": (
        lambda f: (f / "manifest.json").write_text('{"files": {"model.safetensors": {}}}'),
        "holds no list of ours",
    ),
    "a list that is none": (
        lambda f: (f / "manifest.json").write_text("[" * 100_000),
        "holds no list of ours",
    ),
    "a list that is a list": (
        lambda f: (f / "manifest.json").write_text('{"files": [1], "versions": 3}'),
        "holds no list of ours",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_somebody_else_put_there_is_named_and_kept(tmp_path: Path, change: str) -> None:
    output = write(tmp_path / "out")
    do, message = CHANGES[change]
    do(output)
    before = sorted(str(path) for path in output.rglob("*"))
    with pytest.raises(OutputExistsError, match="--force") as refused:
        check_folder(output, force=True)
    assert message in str(refused.value)
    assert str(refused.value).startswith(str(output)) or str(output) in str(refused.value)
    # It came while the surgery ran.
    with (
        pytest.raises(OutputExistsError, match="--force"),
        staged(output, force=True) as folder,
    ):
        (folder / "new").touch()
    assert sorted(str(path) for path in output.rglob("*")) == before
    assert {path.name for path in tmp_path.iterdir()} <= {"out", "weights"}


def test_a_file_that_was_copied_over_with_its_old_time_is_found(tmp_path: Path) -> None:
    output = write(tmp_path / "out")
    other = tmp_path / "tuned.safetensors"
    other.write_bytes(b"TRAINED")
    os.utime(other, (0, 0))
    shutil.copy2(other, output / "model.safetensors")
    assert "model.safetensors changed" in str(why_not_ours(output))


def test_of_many_files_a_few_are_named(tmp_path: Path) -> None:
    for number in range(NAMED + 3):
        (tmp_path / f"{number}.txt").touch()
    with pytest.raises(OutputExistsError, match=r"0\.txt, 1\.txt.* and 3 more"):
        check_folder(tmp_path, force=True)


def test_an_empty_folder_may_be_replaced(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    check_folder(tmp_path / "out", force=True)
    assert (write(tmp_path / "out") / "manifest.json").exists()
