"""manifest.json: the sha256 of every file of a patched checkpoint, and how it came to be."""

from __future__ import annotations

from collections.abc import Container, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from tokensurgeon.checkpoint.files import check_inside, read_json
from tokensurgeon.errors import CheckpointError
from tokensurgeon.outputs.ownership import list_files, sha256_of

NAME = "manifest.json"
_PACKAGES = ("tokensurgeon", "torch", "transformers", "tokenizers", "safetensors", "numpy", "scipy")
"""Whose versions may change the bytes that are written."""
SCHEMA = 1
"""Version of the manifest that is written and read; a newer one may promise what is not known."""
LOADABLE = (".safetensors", ".bin", ".json", ".jinja", ".py", ".model", ".txt")
"""Suffixes of files that a loader may pick up: one that came later is a problem."""


def make_manifest(
    folder: Path, *, source: str, recipe: str, seed: int, body: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Describe a finished folder.

    `source` is the fingerprint of the checkpoint patched, `body` says which of the body's weights
    were changed and how; where none was, the manifest has no such key.
    """
    return {
        "schema_version": SCHEMA,
        "source": source,
        "seed": seed,
        "versions": {name: _version(name) for name in _PACKAGES},
        "recipe": recipe,
        **({} if body is None else {"body": dict(body)}),
        "files": list_files(folder, NAME),
    }


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a folder.

    Raises
    ------
    CheckpointError
        If there is none, it cannot be read, or its schema is of another release.
    """
    if not (folder / NAME).exists():
        raise CheckpointError(
            f"{folder} has no {NAME}: it was written by another program, or the file was removed; "
            "transplant again"
        )
    manifest = read_json(folder, NAME)
    version = manifest.get("schema_version")
    if type(version) is not int or version != SCHEMA:
        raise CheckpointError(
            f"{folder}/{NAME} has the schema version {str(version)[:40]} and this release reads "
            f"{SCHEMA}: update tokensurgeon, or transplant again"
        )
    return manifest


def verify_manifest(folder: str | Path) -> list[str]:
    """Compare a folder with its manifest; return the problems, one line each, none if it is sound.

    Raises
    ------
    CheckpointError
        If there is no manifest, or it cannot be read.
    """
    folder = Path(folder)
    files = read_manifest(folder).get("files")
    if not isinstance(files, dict) or not files:
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
            problems.append(
                f"{name} has {size} bytes, the manifest says {str(facts.get('bytes'))[:40]}"
            )
        elif sha256_of(path) != facts.get("sha256"):
            problems.append(f"{name} has changed: its sha256 is not the manifest's")
    for name in unlisted(folder, files):
        if name.endswith(LOADABLE):
            problems.append(f"{name} is not in the manifest; it came later")
    return problems


def unlisted(folder: Path, files: Container[str]) -> list[str]:
    """Return the files of a folder that the manifest's `files` do not name."""
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in names if name not in files and name != NAME)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
