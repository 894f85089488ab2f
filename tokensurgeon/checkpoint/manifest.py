"""manifest.json: the sha256 of every file of a patched checkpoint, and how it came to be."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from tokensurgeon.checkpoint.files import check_inside, read_json
from tokensurgeon.errors import CheckpointError

NAME = "manifest.json"
_PACKAGES = ("tokensurgeon", "torch", "transformers", "tokenizers", "safetensors", "numpy", "scipy")
"""Whose versions may change the bytes that are written."""
_LOADABLE = (".safetensors", ".bin", ".json", ".jinja", ".py", ".model", ".txt")
"""Suffixes of files that a loader may pick up: one that came later is a problem."""


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def make_manifest(
    folder: Path, *, source: str, recipe: str, seed: int, body: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Describe a finished folder.

    `source` is the fingerprint of the checkpoint patched, `body` says which of the body's weights
    were changed and how; where none was, the manifest has no such key.
    """
    files = {
        path.relative_to(folder).as_posix(): {
            "sha256": sha256_of(path), "bytes": path.stat().st_size,
        }
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.relative_to(folder).as_posix() != NAME
    }  # fmt: skip
    return {
        "schema_version": 1,
        "source": source,
        "seed": seed,
        "versions": {name: _version(name) for name in _PACKAGES},
        "recipe": recipe,
        **({} if body is None else {"body": dict(body)}),
        "files": files,
    }


def verify_manifest(folder: str | Path) -> list[str]:
    """Compare a folder with its manifest; return the problems, one line each, none if it is sound.

    Raises
    ------
    CheckpointError
        If there is no manifest, or it cannot be read.
    """
    folder = Path(folder)
    if not (folder / NAME).exists():
        raise CheckpointError(
            f"{folder} has no {NAME}; it was not written by tokensurgeon; transplant again"
        )
    files = read_json(folder, NAME).get("files")
    if not isinstance(files, dict):
        raise CheckpointError(f"{folder}/{NAME} lists no files; transplant again")
    problems = []
    for name, said in files.items():
        try:
            path = check_inside(folder, name)
        except CheckpointError as error:
            problems.append(str(error))
            continue
        size = path.stat().st_size
        facts = said if isinstance(said, dict) else {}
        if size != facts.get("bytes"):
            problems.append(f"{name} has {size} bytes, the manifest says {facts.get('bytes')}")
        elif sha256_of(path) != facts.get("sha256"):
            problems.append(f"{name} has changed: its sha256 is not the manifest's")
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and path.suffix in _LOADABLE and name not in files and name != NAME:
            problems.append(f"{name} is not in the manifest; it came later")
    return problems


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
