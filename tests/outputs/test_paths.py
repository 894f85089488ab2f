"""Every path that cannot be an output is refused in one line before anything is computed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tokensurgeon.errors import OutputError, TokensurgeonError, UsageError
from tokensurgeon.outputs import check_file, check_folder, output_path, staged
from tokensurgeon.outputs.paths import begins_with, check_apart, safetensors_with


@pytest.fixture
def places(tmp_path: Path) -> Path:
    """A folder with something of every kind in it."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("text")
    (tmp_path / "to-folder").symlink_to(tmp_path / "folder")
    (tmp_path / "to-file").symlink_to(tmp_path / "file")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "round").symlink_to(tmp_path / "round")
    os.mkfifo(tmp_path / "pipe")
    return tmp_path


ALIKE = {
    "": "empty name",
    "   ": "empty name",
    "a\nb": "control character",
    "a\0b": "control character",
    "a\x1b[2J": "control character",
    "x" * 300: "has 300 bytes",
    "é" * 128: "has 256 bytes",
    "file/x": "is no folder",
    "~nobody-of-that-name/x": "home folder",
    "dangling/x": "is no folder",
}
"""Names that neither a file nor a folder may have."""
FOLDERS = {
    "file": "no folder, which --force does not replace",
    "to-folder": "is a link",
    "to-file": "is a link",
    "dangling": "is a link",
    "round": "is a link",
    "pipe": "no folder",
}
FILES = {
    "folder": "it is a folder",
    "to-folder": "it is a folder",
    "to-file": "a link or a device",
    "dangling": "a link or a device",
    "round": "a link or a device",
    "pipe": "a link or a device",
    "nowhere/x": "no folder",
    "/dev/full": "a link or a device",
}


@pytest.mark.parametrize(("name", "message"), [*ALIKE.items(), *FOLDERS.items()])
def test_no_folder_can_be_there(
    places: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    monkeypatch.chdir(places)
    with pytest.raises(TokensurgeonError, match=message):
        check_folder(name, force=True)


@pytest.mark.parametrize(("name", "message"), [*ALIKE.items(), *FILES.items()])
def test_no_file_can_be_there(
    places: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    monkeypatch.chdir(places)
    with pytest.raises(TokensurgeonError, match=message):
        check_file(name, force=True)


@pytest.mark.parametrize("name", ["file", "folder", "dangling", "to-folder", ".", "..", "/"])
def test_what_exists_is_kept_without_force(
    places: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(places)
    with pytest.raises(UsageError, match="exists already"):
        check_folder(name, force=False)


def test_an_empty_folder_is_written_to_as_one_that_is_not_there(tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.mkdir()
    assert check_folder(output, force=False) == output
    with staged(output, force=False) as folder:
        (folder / "a.txt").write_text("new")
    assert [path.name for path in output.iterdir()] == ["a.txt"]
    with pytest.raises(UsageError, match="exists already"):
        check_folder(output, force=False)


def test_the_home_folder_stands_for_its_sign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert output_path("~/out") == tmp_path / "out"
    assert check_folder("~/out", force=False) == tmp_path / "out"
    assert check_file("~/out.html", force=False) == tmp_path / "out.html"
    assert output_path("out~") == Path("out~")


def test_a_folder_that_may_not_be_written_to_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(OutputError, match=f"{tmp_path} may not be written to"):
        check_folder(tmp_path / "a" / "b", force=False)


def test_an_output_and_what_is_read_lie_apart(tmp_path: Path) -> None:
    source = tmp_path / "models" / "source"
    source.mkdir(parents=True)
    (tmp_path / "link").symlink_to(source)
    for output in (source, source / "out", tmp_path / "models", tmp_path / "link" / "out"):
        with pytest.raises(OutputError, match="lie in each other"):
            check_folder(output, force=True, source=source)
        with pytest.raises(OutputError, match="lie in each other"):
            check_apart(output, str(source))
    # What is read beside may be around the output, and not in it.
    check_folder(source / "out", force=True, keep=(source, None, "org/model"))
    with pytest.raises(OutputError, match="lie in each other"):
        check_folder(source, force=True, keep=(source,))


def test_a_file_is_replaced_by_one_of_its_kind(tmp_path: Path) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    weights, page = tmp_path / "model.safetensors", tmp_path / "page.html"
    save_file({"a": np.zeros(3, np.float32)}, weights, metadata={"format": "pt"})
    page.write_text("<!doctype html>")
    is_page, is_patch = begins_with(b"<!doctype", b"<?xml"), safetensors_with("patch")
    assert check_file(page, force=True, is_ours=is_page) == page
    for path, is_ours in ((weights, is_page), (weights, is_patch), (page, is_patch)):
        with pytest.raises(UsageError, match="is not a patch"):
            check_file(path, force=True, what="a patch", is_ours=is_ours)
    assert safetensors_with("format", "pt")(weights)
    assert not safetensors_with("format", "tokensurgeon")(weights)
    for empty in (b"", b"\xff" * 8, b"\x05\0\0\0\0\0\0\0[[[[["):
        page.write_bytes(empty)
        assert not is_patch(page)
    page.write_bytes(b"")
    assert check_file(page, force=True, is_ours=is_page) == page
