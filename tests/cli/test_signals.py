"""A command that a signal ends leaves what stood before, and nothing else; so does the next one."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.commands_that_write import (
    COMMANDS,
    LEFT,
    World,
    check_whole,
    contents,
    run,
)
from tokensurgeon import transplant
from tokensurgeon.patches import export_patch

SOFT = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
TAKEN_UP = ("net.partial", "state", "counts.json", "map.jsonl")
"""What an unfinished command leaves on purpose: it goes on from there, or it had finished it."""


@pytest.fixture(scope="module")
def world(
    tiny_source: Path, tiny_donor: Path, tiny_text: Path, tmp_path_factory: pytest.TempPathFactory
) -> World:
    root = tmp_path_factory.mktemp("patched")
    method = {"input": "mean", "output": "mean"}
    transplant(source=tiny_source, tokenizer=tiny_donor, output=root / "out", init=method)
    patch = export_patch(root / "out", root / "a.safetensors").path
    return World(tiny_source, tiny_donor, tiny_text, root / "out", patch)


def folder_for(tmp_path: Path, before: Path | None) -> Path:
    """Return a fresh folder to run in, with what a run before left if that is given."""
    shutil.rmtree(tmp_path / "run", ignore_errors=True)
    if before is None:
        (tmp_path / "run").mkdir()
        return tmp_path / "run"
    return shutil.copytree(before, tmp_path / "run")


def ended(name: str, world: World, tmp_path: Path, before: Path | None, number: int, at: int):
    """Run a command that a signal ends before a step, and check what it left."""
    folder = folder_for(tmp_path, before)
    stood = contents(folder)
    result = run(name, world, folder, number, at)
    left = contents(folder)
    if number == signal.SIGKILL:
        assert result.status == -number
        left = {path: data for path, data in left.items() if not LEFT.search(path)}
        for path in folder.glob(".*"):
            assert LEFT.fullmatch(path.name), path
            shutil.move(path, tmp_path / path.name)
    else:
        assert result.status == 128 + number, (result.status, result.stderr)
        assert result.stderr.count("\n") == 1, result.stderr
        assert result.stderr.startswith("tokensurgeon: error: "), result.stderr
        assert contents(folder.parent / "scratch") == {}
    if left != stood:  # something was finished: then it is whole
        check_whole(folder)
    assert {path.split("/")[0] for path in stood} <= {path.split("/")[0] for path in left}
    return folder, stood, left


def steps_of(name: str, world: World, tmp_path: Path) -> tuple[Path, dict[str, int]]:
    """Run a command to its end; return the folder it made and where its phases begin."""
    folder = folder_for(tmp_path, None)
    result = run(name, world, folder)
    assert result.status == 0, result.stderr
    check_whole(folder)
    done = tmp_path / "done"
    shutil.rmtree(done, ignore_errors=True)
    shutil.copytree(folder, done)
    return done, result.phases


@pytest.mark.parametrize(
    ("name", "number", "existing"),
    [
        ("transplant", signal.SIGTERM, True),
        ("train", signal.SIGHUP, True),
        ("patch export", signal.SIGINT, True),
        ("compare", signal.SIGTERM, False),
    ],
)
def test_a_signal_while_it_writes_leaves_what_stood_before(
    name: str, number: int, existing: bool, world: World, tmp_path: Path
) -> None:
    done, phases = steps_of(name, world, tmp_path)
    last = max(step for phase, step in phases.items() if "TEMPORARY" in phase)
    before = done if existing else None
    _, stood, left = ended(name, world, tmp_path, before, number, last)
    assert set(left) == set(stood) if existing else set(left) < set(contents(done))


@pytest.mark.sweep
@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize("name", list(COMMANDS))
def test_a_signal_in_any_phase_of_any_command(
    name: str,
    existing: bool,
    world: World,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    """``-o junit_family=xunit1 --junitxml=FILE`` tells how many phases there were."""
    if existing and "--force" not in COMMANDS[name](world):
        pytest.skip("it replaces nothing")
    done, phases = steps_of(name, world, tmp_path)
    before = done if existing else None
    if existing:  # a run over its own output may have phases of its own
        phases = run(name, world, folder_for(tmp_path, before)).phases
    assert len(phases) > 1 or name in ("evaluate", "align", "inspect"), phases
    record_property("phases", len(phases))
    for number in (*SOFT, signal.SIGKILL):
        for step in phases.values():
            folder, stood, left = ended(name, world, tmp_path, before, number, step)
            new = {path.split("/")[0] for path in set(left) - set(stood)}
            assert not new or new <= {path.split("/")[0] for path in contents(done)} | {*TAKEN_UP}
    # What the killed runs left is cleared away by the next one that ends.
    folder = folder_for(tmp_path, before)
    for path in tmp_path.glob(".*"):
        shutil.move(path, folder / path.name)
    result = run(name, world, folder)
    assert result.status == 0, result.stderr
    assert [path.name for path in folder.glob(".*")] == []
