"""Hand over a checkpoint that was written before: its folder gets the files and lists them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from tokensurgeon.checkpoint import Checkpoint
from tokensurgeon.checkpoint import manifest as manifests
from tokensurgeon.checkpoint.files import check_inside, find_folder, read_json
from tokensurgeon.checkpoint.tokenizer_files import json_bytes
from tokensurgeon.errors import CheckpointError, OutputExistsError
from tokensurgeon.handover.facts import Facts, check_names, check_trainable, facts_of
from tokensurgeon.handover.trainer_files import FOLDER, NO_NEW_ROWS, hand_over_files
from tokensurgeon.outputs import staged, write_whole
from tokensurgeon.outputs.ownership import sha256_of
from tokensurgeon.outputs.paths import check_parent

IDS = "new_token_ids.json"


@dataclass(frozen=True)
class HandedOver:
    """What was written.

    Attributes
    ----------
    folder : Path
        Where the files are.
    files : tuple of str
        Their names there.
    facts : Facts
    notes : tuple of str
        What the user should know.
    """

    folder: Path
    files: tuple[str, ...]
    facts: Facts
    notes: tuple[str, ...]


def hand_over(checkpoint: str | Path, names: Sequence[str], *, force: bool = False) -> HandedOver:
    """Write files of trainers into ``continue/`` of a checkpoint, and list them in its manifest.

    They are those that a surgery with the recipe's key `hand_over` writes. Nothing else of the
    folder changes.

    Parameters
    ----------
    checkpoint : path
        A folder that tokensurgeon wrote.
    names : sequence of str
        Of the trainers: ``"peft"``, ``"trl"``, ``"axolotl"``, ``"llamafactory"``.
    force : bool
        Whether files of an earlier hand-over are replaced, if they are as they were written and
        nothing is beside them.

    Raises
    ------
    UnknownNameError
        Where there is no trainer of that name.
    CheckpointError
        Where the folder was written by another program, or its list of new rows has changed since.
    UnsupportedCheckpointError
        Where a trainer has no stage for it.
    OutputExistsError
        Where there is a hand-over already, and no `force`, or somebody else's file in its place.
    """
    wanted = check_names(names)
    folder = find_folder(checkpoint)
    manifest = manifests.read_manifest(folder)
    ids = _new_ids(folder, manifest)
    opened = Checkpoint.open(folder)
    check_trainable(opened, wanted)
    beyond = [i for i in ids if not 0 <= i < opened.layout.n_rows]
    if beyond:
        raise CheckpointError(
            f"{folder}/{IDS} names the id {beyond[0]} and the model has {opened.layout.n_rows:,} "
            "rows; restore the file"
        )
    facts = facts_of(opened, ids, tied=opened.layout.tied)
    files = {name: _bytes(data) for name, data in hand_over_files(facts, wanted).items()}
    place = folder / FOLDER
    if os.path.lexists(place):
        if not force:
            raise OutputExistsError(f"{place} exists already: add --force to write it anew")
        _check_ours(place, manifest, files)
    check_parent(place)
    with staged(
        place, force=force, check=lambda found: _check_ours(found, manifest, files)
    ) as written:
        for name, data in files.items():
            (written / PurePosixPath(name).name).write_bytes(data)
    _list(folder, manifest, files)
    notes = () if facts.ids else (NO_NEW_ROWS,)
    return HandedOver(place, tuple(PurePosixPath(name).name for name in files), facts, notes)


def _bytes(data: bytes | str) -> bytes:
    return data.encode("utf-8") if isinstance(data, str) else data


def _listed(manifest: Mapping[str, Any]) -> dict[str, Any]:
    files = manifest.get("files")
    return dict(files) if isinstance(files, dict) else {}


def _new_ids(folder: Path, manifest: Mapping[str, Any]) -> list[int]:
    """Return the ids that a surgery wrote down, if its file is as it was written."""
    said = _listed(manifest).get(IDS)
    if not isinstance(said, dict):
        raise CheckpointError(
            f"the manifest of {folder} lists no {IDS}, which says what to train first; transplant "
            "again"
        )
    if sha256_of(check_inside(folder, IDS)) != said.get("sha256"):
        raise CheckpointError(
            f"{folder}/{IDS} has changed since it was written: restore it, or transplant again"
        )
    ids = read_json(folder, IDS).get("new_token_ids")
    if not isinstance(ids, list) or not all(type(i) is int for i in ids):
        raise CheckpointError(f"{folder}/{IDS} holds no list of ids; transplant again")
    return ids


def _check_ours(place: Path, manifest: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
    """Refuse to replace what is neither listed nor what would be written.

    A run that was killed may have left files that are not listed yet.
    """
    listed = _listed(manifest)
    if place.is_symlink() or not place.is_dir():
        raise OutputExistsError(f"{place} is no folder, and --force replaces nothing else: move it")
    for path in sorted(place.rglob("*")):
        name = f"{FOLDER}/{path.relative_to(place).as_posix()}"
        plain = path.is_file() and not path.is_symlink()
        digest = sha256_of(path) if plain else None
        said = listed.get(name)
        hashes = {said.get("sha256")} if isinstance(said, dict) else set()
        if name in files:
            hashes.add(hashlib.sha256(files[name]).hexdigest())
        if digest is None or digest not in hashes:
            raise OutputExistsError(
                f"{path} was not written by a hand-over, or was changed since: move it away"
            )


def _list(folder: Path, manifest: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
    """Put the files into the manifest, in place of those of an earlier hand-over."""
    kept = {n: s for n, s in _listed(manifest).items() if not n.startswith(f"{FOLDER}/")}
    new = {
        name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        for name, data in files.items()
    }
    ordered = dict(sorted({**kept, **new}.items(), key=lambda item: PurePosixPath(item[0])))
    write_whole(folder / manifests.NAME, json_bytes({**manifest, "files": ordered}))
