"""Every command refuses an output that cannot be one in a line, and before it reads a thing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tokensurgeon.cli.main import main

FOLDER = {
    "transplant": ["transplant", "source", "--tokenizer", "target", "-o", "OUT"],
    "train": ["train", "bpe", "text.txt", "--size", "300", "-o", "OUT"],
    "extend a model": ["extend", "source", "--text", "text.txt", "--add", "9", "-o", "OUT"],
    "extend": ["train", "extend", "text.txt", "--base", "target", "--size", "900", "-o", "OUT"],
    "prune": ["train", "prune", "text.txt", "--base", "target", "-o", "OUT"],
    "trim": ["trim", "source", "--text", "text.txt", "-o", "OUT"],
    "patch apply": ["patch", "apply", "a.safetensors", "source", "-o", "OUT"],
    "demo": ["demo", "-o", "OUT"],
}
FILE = {
    "patch export": ["patch", "export", "source", "-o", "OUT"],
    "hypernet": ["hypernet", "train", "source", "-o", "OUT"],
    "csv": ["compare", "source", "--tokenizer", "target", "--text", "text.txt", "--csv", "OUT"],
    "plot": ["compare", "source", "--tokenizer", "target", "--text", "text.txt", "--plot", "OUT"],
    "html": ["inspect", "source", "--html", "OUT"],
}
FORCED = ["--force"]


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to run in: what is read is there by name alone, for nothing may be read."""
    for name in ("source", "target", "folder", "full"):
        (tmp_path / name).mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("years of work")
    (tmp_path / "source" / "config.json").write_text("{}")
    (tmp_path / "source" / "model.safetensors").write_bytes(b"\2\0\0\0\0\0\0\0{}")
    for name in ("text.txt", "notes.txt"):
        (tmp_path / name).write_text("text")
    (tmp_path / "to-folder").symlink_to("folder")
    (tmp_path / "to-file").symlink_to("notes.txt")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "round").symlink_to("round")
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def state(folder: Path) -> dict[str, object]:
    return {
        str(path): path.readlink() if path.is_symlink() else path.is_file() and path.read_bytes()
        for path in sorted(folder.rglob("*"))
    }


def refused(places: Path, words: list[str], output: str, *flags: str) -> Result:
    before = state(places)
    words = [output if word == "OUT" else word for word in words]
    result = CliRunner().invoke(main, [*words, *flags])
    assert result.exit_code in (1, 2), result.output
    assert result.stderr.count("\n") == 1, result.stderr
    assert "unexpected" not in result.stderr
    assert result.stdout == ""
    assert state(places) == before
    return result


ALIKE = {
    "two\nlines": "control character",
    "x" * 300: "has 300 bytes",
    "text.txt/below": "text.txt is no folder",
    "dangling/below": "dangling is no folder",
    "~no-such-user/x": "home folder",
    " ": "empty name",
}
FOLDERS = {
    "notes.txt": "no folder, which --force does not replace",
    "to-folder": "is a link",
    "to-file": "is a link",
    "dangling": "is a link",
    "round": "is a link",
    "pipe": "no folder",
    "full": "holds no list of ours, and thesis.txt",
    ".": "holds no list of ours|lie in each other",
}
FILES = {
    "folder": "is a folder",
    "to-folder": "is a folder",
    "to-file": "a link or a device",
    "dangling": "a link or a device",
    "round": "a link or a device",
    "pipe": "a link or a device",
    "notes.txt": "notes.txt is not a",
    "nowhere/file": "no folder nowhere",
}


@pytest.mark.parametrize(("output", "message"), [*ALIKE.items(), *FOLDERS.items()])
@pytest.mark.parametrize("name", FOLDER)
def test_no_folder_is_written_there(places: Path, name: str, output: str, message: str) -> None:
    result = refused(places, FOLDER[name], output, *FORCED)
    assert any(part in result.stderr for part in message.split("|")), result.stderr


@pytest.mark.parametrize(("output", "message"), [*ALIKE.items(), *FILES.items()])
@pytest.mark.parametrize("name", FILE)
def test_no_file_is_written_there(places: Path, name: str, output: str, message: str) -> None:
    if name == "patch export" and output == "nowhere/file":
        pytest.skip("it makes the folder")
    result = refused(places, FILE[name], output, *FORCED)
    assert message in result.stderr or (name == "plot" and "must end in .png" in result.stderr)


@pytest.mark.parametrize(
    ("name", "output"),
    [
        *((name, "source") for name in ("transplant", "patch apply")),
        *((name, "source/out") for name in ("transplant", "patch apply")),
        ("transplant", "target"),
        ("extend", "target"),
        ("prune", "target"),
        ("patch export", "source/a.safetensors"),
        ("hypernet", "source/net"),
    ],
)
def test_what_is_read_is_not_written_to(places: Path, name: str, output: str) -> None:
    result = refused(places, (FOLDER | FILE)[name], output, *FORCED)
    assert "lie in each other" in result.stderr


@pytest.mark.parametrize("name", ["patch export", "hypernet", "html", "csv"])
def test_a_models_weights_are_not_overwritten(places: Path, name: str) -> None:
    """Whatever was meant, that file is not what the command writes."""
    result = refused(places, (FOLDER | FILE)[name], "source/model.safetensors", *FORCED)
    assert "is not a" in result.stderr or "lie in each other" in result.stderr


def test_a_vocabulary_does_not_lie_in_its_corpus(places: Path) -> None:
    for output, corpus in (("full/out", "full"), ("folder", "folder"), ("out", ".")):
        words = ["train", "bpe", corpus, "--size", "300", "-o", output]
        assert "lie in each other" in refused(places, words, output, *FORCED).stderr


@pytest.mark.parametrize("output", ["two\nlines", "x" * 300, "notes.txt", "dangling", "pipe"])
def test_the_folder_of_a_comparison_is_one(places: Path, output: str) -> None:
    words = ["compare", "source", "--tokenizer", "target", "--text", "text.txt", "-o", "OUT"]
    refused(places, words, output)
