"""What of a folder is ours: only that may be replaced by ``--force``."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from pathlib import Path
from typing import Any

CHECKPOINT, VOCABULARY = "manifest.json", "training.json"
COUNTS, TASKS = "counts.json", "tasks.json"
"""Files in which a folder of ours lists what it is made of."""
KINDS = {
    CHECKPOINT: "a checkpoint",
    VOCABULARY: "a vocabulary",
    COUNTS: "counts of segments",
    TASKS: "tasks",
}
LONGEST_LIST = 64 << 20
"""Bytes; our lists have some kilobytes, and a recipe with a long map some more."""
NAMED = 5
"""Files that a refusal names: a user sees by a few what kind of folder it is."""


def list_files(folder: Path, leave_out: str = "") -> dict[str, dict[str, Any]]:
    """Return the sha256 and the size of every file of a folder but one, by its path in it."""
    return {
        path.relative_to(folder).as_posix(): {"sha256": sha256_of(path), "bytes": size_of(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.relative_to(folder).as_posix() != leave_out
    }


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def size_of(path: Path) -> int:
    """Return the bytes of a file."""
    return path.stat().st_size


def why_not_ours(folder: Path) -> str | None:
    """Say what in a folder is somebody else's work; None if a list of ours names all of it.

    A file that was changed since is somebody's work too: it is told by its time, and only then by
    its hash.
    """
    if not any(folder.iterdir()):
        return None
    name, listed = _list_of(folder)
    foreign, changed = _others(folder, name, listed)
    if not listed:
        return f"{folder} holds no list of ours, and {_some(foreign)}"
    if foreign:
        return f"{folder} holds {_some(foreign)}, which {name} does not list"
    if changed:
        return f"in {folder} {_some(changed)} changed since it was written"
    return None


def kind_of(folder: Path) -> str | None:
    """Return the name of the list that a folder of ours has, and so what it holds; else None."""
    return _list_of(folder)[0] or None


def _list_of(folder: Path) -> tuple[str, dict[str, Any]]:
    """Return the name of a folder's list and its entries, itself among them."""
    for name in KINDS:
        try:
            facts = (folder / name).lstat()
            if not stat.S_ISREG(facts.st_mode) or facts.st_size > LONGEST_LIST:
                continue
            data = json.loads((folder / name).read_text("utf-8"))
        except (OSError, ValueError, RecursionError):
            continue
        if not isinstance(data, dict):
            continue
        files, versions = data.get("files"), data.get("versions")
        if isinstance(files, dict) and isinstance(versions, dict) and "tokensurgeon" in versions:
            return name, {**files, name: None}
    return "", {}


def _others(folder: Path, name: str, listed: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Return what is not listed, and what is listed and is not what was written."""
    foreign: list[str] = []
    changed: list[str] = []
    written = (folder / name).stat().st_ctime_ns if listed else 0
    for root, folders, files in os.walk(folder, onerror=_raise):
        for entry in list(folders):
            inside = Path(root, entry).relative_to(folder).as_posix() + "/"
            holds_ours = any(file.startswith(inside) for file in listed)
            if Path(root, entry).is_symlink() or not holds_ours:
                folders.remove(entry)
                foreign.append(inside)
        for entry in files:
            path = Path(root, entry)
            own = path.relative_to(folder).as_posix()
            if own not in listed or not stat.S_ISREG(path.lstat().st_mode):
                foreign.append(own)
            elif _has_changed(path, listed[own], written):
                changed.append(own)
    return sorted(foreign), sorted(changed)


def _has_changed(path: Path, said: Any, written: int) -> bool:
    """Tell whether a listed file was written to since its list, which is None of the list itself.

    A copy of the folder has new times, so the hash decides where a time is later. The time is that
    of the last change of any kind: unlike that of writing, no copy brings an older one along.
    """
    if not isinstance(said, dict):
        return said is not None
    facts = path.stat()
    if facts.st_size != said.get("bytes"):
        return True
    return facts.st_ctime_ns > written and sha256_of(path) != said.get("sha256")


def _some(names: list[str]) -> str:
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more:,} more" if more > 0 else "")


def _raise(error: OSError) -> None:
    raise error
