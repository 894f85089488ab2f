"""Every command that writes, small, and how it is run in a process that a signal ends.

A step of a command is a file that it opens, makes, renames or removes, or a word of its progress.
Steps of one kind at one file are a phase. What a signal does depends on the phase, so a test sends
it before the first step of each.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import scipy.sparse as sp
from safetensors import safe_open

from tokensurgeon.cli import console
from tokensurgeon.cli.main import main
from tokensurgeon.outputs.ownership import list_files
from tokensurgeon.progress import Progress

WRITES = ("os.rename", "os.link", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree")
"""What Python tells its audit hooks before a name changes; `open` besides."""
LEFT = re.compile(r"\.[^/]+\.tokensurgeon-[0-9a-f]{16}")
"""How the name of something begins that a killed run left beside an output."""


@dataclass(frozen=True)
class World:
    """What the commands read: all of it is made by the tests' own fixtures."""

    source: Path
    target: Path
    text: Path
    patched: Path
    patch: Path


COMMANDS: dict[str, Callable[[World], list[object]]] = {
    "transplant": lambda w: [
        "transplant", w.source, "--tokenizer", w.target, "--init", "mean", "--text", w.text,
        "--export-map", "map.jsonl", "-o", "out", "--force",
    ],
    "train": lambda w: [
        "train", "bpe", w.text, "--size", 280, "--processes", 1, "--counts", "counts.json",
        "-o", "out", "--force",
    ],
    "extend a model": lambda w: [
        "extend", w.source, "--text", w.text, "--add", 10, "--init", "mean", "-o", "out", "--force",
    ],
    "extend": lambda w: [
        "train", "extend", w.text, "--base", w.source, "--size", 330, "--processes", 1,
        "-o", "out", "--force",
    ],
    "prune": lambda w: ["train", "prune", w.text, "--base", w.source, "-o", "out", "--force"],
    "trim": lambda w: ["trim", w.source, "--text", w.text, "-o", "out", "--force"],
    "patch export": lambda w: [
        "patch", "export", w.patched, "--source", w.source, "-o", "a.safetensors", "--force",
    ],
    "patch apply": lambda w: ["patch", "apply", w.patch, w.source, "-o", "out", "--force"],
    "hypernet": lambda w: [
        "hypernet", "train", w.source, "--size", 8, "--steps", 2, 0, "-o", "net", "--force",
    ],
    "compare": lambda w: [
        "compare", w.source, "--tokenizer", w.target, "--text", w.text, "--methods", "mean",
        "-o", "state", "--csv", "table.csv", "--plot", "picture.svg", "--force",
    ],
    "inspect": lambda w: ["inspect", w.source, w.text, "--html", "page.html", "--force"],
    "align": lambda w: [
        "align", w.source, w.target, "--export-map", "map.npz", "--export-projection", "p.npz",
    ],
    "evaluate": lambda w: ["evaluate", w.source, w.text, "--json"],
}  # fmt: skip
"""The arguments of each command; its outputs are in the folder in which it runs."""


@dataclass(frozen=True)
class Run:
    """What became of a command.

    Attributes
    ----------
    status : int
        The exit code, or a signal's number below zero.
    stderr : str
    phases : dict of str to int
        The first step of each phase that began.
    """

    status: int
    stderr: str
    phases: dict[str, int]


def run(name: str, world: World, folder: Path, number: int = 0, at: int = 0) -> Run:
    """Run a command in `folder`, in a process that gets a signal before step `at`, if any.

    Its temporary files are in the folder ``scratch`` beside.
    """
    notes = folder.parent / "notes"
    notes.mkdir(exist_ok=True)
    child = os.fork()
    if not child:
        os._exit(_in_child(name, world, folder, notes, number, at))
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    lines = (notes / "phases").read_text("utf-8").splitlines()
    phases: dict[str, int] = {}
    for step, phase in enumerate(lines, start=1):
        phases.setdefault(phase, step)
    return Run(status, (notes / "stderr").read_text("utf-8"), phases)


def _in_child(name: str, world: World, folder: Path, notes: Path, number: int, at: int) -> int:
    scratch = folder.parent / "scratch"
    scratch.mkdir(exist_ok=True)
    os.chdir(folder)
    tempfile.tempdir = str(scratch)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for of_default in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(of_default, signal.SIG_DFL)
    for stream, descriptor in (("stdout", 1), ("stderr", 2)):
        os.dup2(os.open(notes / stream, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
        setattr(sys, stream, io.TextIOWrapper(io.FileIO(descriptor, "w"), write_through=True))
    phases = os.open(notes / "phases", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    steps = 0

    def step(phase: str) -> None:
        nonlocal steps
        steps += 1
        os.write(phases, LEFT.sub("TEMPORARY", phase).encode("utf-8", "replace") + b"\n")
        if steps == at:
            os.kill(os.getpid(), number)

    def count(event: str, args: tuple[object, ...]) -> None:
        if event != "open" and event not in WRITES:
            return
        path = str(Path.cwd() / args[0]) if isinstance(args[0], str | Path) else ""
        if path.startswith((f"{folder}/", f"{scratch}/")):
            step(f"{event} {Path(path).relative_to(folder.parent)}")

    @contextmanager
    def progress() -> Iterator[Progress]:
        yield lambda done, total, what: step(f"progress {what}")

    console.progress = progress
    sys.addaudithook(count)
    try:
        main([str(argument) for argument in COMMANDS[name](world)])
    except SystemExit as left:
        return left.code if isinstance(left.code, int) else 1
    return 1


def contents(folder: Path) -> dict[str, bytes]:
    """Return what every file below a folder holds; empty folders count, too."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else b""
        for path in sorted(folder.rglob("*"))
        if path.is_file() or not any(path.iterdir())
    }


def check_whole(folder: Path) -> None:
    """Fail unless every folder and file in the folder of a command is there whole."""
    for path in folder.iterdir():
        if path.is_dir() and path.name != "state":
            lists = [path / name for name in ("manifest.json", "training.json")]
            listing = next(file for file in lists if file.exists())
            files = json.loads(listing.read_text("utf-8"))["files"]
            assert list_files(path, listing.name) == files, path
        for file in path.iterdir() if path.name == "state" else [path] if path.is_file() else []:
            if not LEFT.match(file.name):
                check_whole_file(file)


def check_whole_file(path: Path) -> None:
    data = path.read_bytes()
    if path.suffix in (".json", ".jsonl"):
        for text in data.decode("utf-8").splitlines() if path.suffix == ".jsonl" else [data]:
            json.loads(text)
    elif path.suffix == ".npz":
        sp.load_npz(path)
    elif path.suffix == ".csv":
        rows = list(csv.reader(io.StringIO(data.decode("utf-8"))))
        assert len(rows) == 3
        assert data.endswith(b"\n")
    elif path.suffix in (".svg", ".html"):
        assert data.rstrip().endswith(f"</{path.suffix[1:]}>".encode())
    else:
        with safe_open(path, framework="numpy") as file:
            assert file.keys()
