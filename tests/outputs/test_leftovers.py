"""Temporary names cannot be guessed, nothing follows a planted link, and only ours is removed."""

from __future__ import annotations

import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tokensurgeon.errors import OutputError, OutputExistsError
from tokensurgeon.outputs import scratch_folder, staged, whole_file, write_whole
from tokensurgeon.outputs.leftovers import MARKER, OLD, clear_leftovers, temporary_name


class Stopped(BaseException):
    """As a signal."""


def stop(error: BaseException, *files: Path) -> None:
    """Raise an error after files are made."""
    for file in files:
        file.parent.mkdir(exist_ok=True)
        file.touch()
    raise error


def link(path: Path, to: Path, *files: Path) -> None:
    """Make a link and files, and be stopped."""
    path.symlink_to(to)
    stop(Stopped(), *files)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_names_are_random_and_fit_a_file_system() -> None:
    assert len({temporary_name("out") for _ in range(100)}) == 100
    for name in ("x" * 255, "é" * 127, "🙂" * 63):
        assert len(os.fsencode(temporary_name(name))) <= 255


def test_a_planted_link_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where somebody knew the name."""
    victim = tmp_path / "victim"
    victim.write_text("mine")
    monkeypatch.setattr(secrets, "token_hex", lambda n: "0" * 2 * n)
    for name in ("page.html", "out"):
        (tmp_path / temporary_name(name)).symlink_to(victim)
    with pytest.raises(OutputError, match="File exists"):
        write_whole(tmp_path / "page.html", b"ours")
    with pytest.raises(OutputError, match="File exists"), staged(tmp_path / "out", force=False):
        pytest.fail("it went on")
    assert victim.read_text() == "mine"


def test_a_link_at_the_path_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("mine")
    (tmp_path / "page.html").symlink_to(tmp_path / "victim")
    write_whole(tmp_path / "page.html", b"ours")
    assert (tmp_path / "victim").read_text() == "mine"
    assert not (tmp_path / "page.html").is_symlink()


def test_while_it_is_written_only_its_writer_can_enter(tmp_path: Path) -> None:
    os.umask(mask := os.umask(0o022))
    with staged(tmp_path / "out", force=False) as folder:
        assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700
        (folder / "a").touch()
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o777 & ~mask
    with whole_file(tmp_path / "a.csv") as file:
        assert stat.S_IMODE(os.fstat(file.fileno()).st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "a.csv").stat().st_mode) == 0o666 & ~mask


@pytest.mark.parametrize(
    "error", [Stopped(), KeyboardInterrupt(), RuntimeError(), OSError(28, "full")], ids=repr
)
def test_whatever_ends_a_writer_nothing_is_left(tmp_path: Path, error: BaseException) -> None:
    (tmp_path / "a.csv").write_text("old")
    wanted = OutputError if isinstance(error, OSError) else type(error)
    with pytest.raises(wanted), whole_file(tmp_path / "a.csv"):
        stop(error)
    with pytest.raises(wanted), staged(tmp_path / "new" / "deep" / "out", force=False) as folder:
        stop(error, folder / "half")
    assert names(tmp_path) == ["a.csv"]
    assert (tmp_path / "a.csv").read_text() == "old"


def test_a_signal_in_the_midst_of_cleaning_up_does_not_end_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove, calls = shutil.rmtree, []

    def stop_once(path: Path, ignore_errors: bool) -> None:
        calls.append(path)
        if len(calls) == 1:
            raise Stopped
        remove(path, ignore_errors=ignore_errors)

    monkeypatch.setattr(shutil, "rmtree", stop_once)
    with pytest.raises(Stopped), staged(tmp_path / "out", force=False) as folder:
        stop(RuntimeError(), folder / "half")
    assert names(tmp_path) == []


def test_a_folder_for_temporary_files_goes_in_any_case(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").touch()
    with pytest.raises(Stopped), scratch_folder() as folder:
        link(folder / "link", tmp_path / "precious", folder / "deep" / "file", folder / "file")
    assert names(tmp_path / "scratch") == []
    assert names(tmp_path / "precious") == ["file"]


def test_without_an_exchange_of_names_the_old_output_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tokensurgeon.outputs import whole_folder

    (tmp_path / "out").mkdir()
    monkeypatch.setattr(whole_folder, "_rename", lambda *arguments: False)
    rename, steps = Path.rename, []

    def stop_second(self: Path, target: Path) -> Path:
        steps.append(self)
        if len(steps) == 2:
            raise Stopped
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", stop_second)
    with pytest.raises(Stopped), staged(tmp_path / "out", force=True) as folder:
        (folder / "new").touch()
    assert names(tmp_path) == ["out"]
    assert names(tmp_path / "out") == []
    steps += [tmp_path]
    with staged(tmp_path / "out", force=True) as folder:
        (folder / "new").touch()
    assert names(tmp_path / "out") == ["new"]


def left_by_a_killed_run(tmp_path: Path, old: bool = False) -> Path:
    folder = tmp_path / temporary_name("out")
    (folder / "new").mkdir(parents=True)
    (folder / "new" / "half.safetensors").write_bytes(b"x")
    (folder / MARKER).touch()
    if old:
        (folder / OLD / "out").mkdir(parents=True)
        (folder / OLD / "out" / "precious").touch()
    return folder


def test_what_killed_runs_left_is_removed_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    import logging

    monkeypatch.setattr(logging.getLogger("tokensurgeon"), "propagate", True)
    folder = left_by_a_killed_run(tmp_path)
    (tmp_path / temporary_name("out")).mkdir()
    (tmp_path / temporary_name("out")).write_bytes(b"half a file")
    clear_leftovers(tmp_path / "out")
    assert names(tmp_path) == []
    assert f"removed {folder}, which a run that was killed had left" in caplog.text


def test_an_output_that_waited_for_its_successor_comes_back(tmp_path: Path) -> None:
    left_by_a_killed_run(tmp_path, old=True)
    clear_leftovers(tmp_path / "out")
    assert names(tmp_path) == ["out"]
    assert names(tmp_path / "out") == ["precious"]


OTHERS: dict[str, Callable[[Path], object]] = {
    "no marker": lambda folder: (folder / MARKER).unlink(),
    "another's name": lambda folder: folder.rename(folder.with_name(".out.tokensurgeon-backup")),
    "a name as of old releases": lambda folder: folder.rename(folder.with_name(".out.tmp-abcdef")),
    "another output": lambda folder: folder.rename(
        folder.with_name(temporary_name("another output"))
    ),
}


@pytest.mark.parametrize("what", OTHERS)
def test_what_may_be_somebody_elses_stays(tmp_path: Path, what: str) -> None:
    OTHERS[what](left_by_a_killed_run(tmp_path))
    before = names(tmp_path)
    clear_leftovers(tmp_path / "out")
    assert names(tmp_path) == before


def test_what_a_living_run_writes_stays(tmp_path: Path) -> None:
    with staged(tmp_path / "out", force=False) as folder:
        clear_leftovers(tmp_path / "out")
        assert folder.is_dir()
    with whole_file(tmp_path / "a.csv") as file:
        clear_leftovers(tmp_path / "a.csv")
        file.write(b"all")
    assert (tmp_path / "a.csv").read_bytes() == b"all"
    notes = tmp_path / "out" / "notes.txt"
    with pytest.raises(OutputExistsError, match="meanwhile"), staged(notes.parent, force=False):
        notes.write_text("somebody's")
    assert notes.read_text() == "somebody's"
