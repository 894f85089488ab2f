"""Check a finished checkpoint again: its files, its ids, its rows, and how its tokenizer loads.

The model is not run, and nothing is changed. A checkpoint that someone else wrote can be checked
too, all but its files: it has no manifest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tokensurgeon.checkpoint import encodings
from tokensurgeon.checkpoint.checkpoint import Checkpoint
from tokensurgeon.checkpoint.files import find_folder
from tokensurgeon.checkpoint.id_keys import ROLE_OF_KEY, named_ids
from tokensurgeon.checkpoint.manifest import NAME, read_manifest, unlisted, verify_manifest
from tokensurgeon.checkpoint.verify import check_autotokenizer
from tokensurgeon.errors import CheckpointError, TokensurgeonError
from tokensurgeon.progress import Progress, no_progress
from tokensurgeon.vocabulary import Vocabulary, load_vocabulary
from tokensurgeon.vocabulary.hard_text import hard_texts

STEPS = ("files", "checkpoint", "ids", "rows", "AutoTokenizer")


@dataclass
class Recheck:
    """What was checked, and what is wrong.

    Attributes
    ----------
    folder : Path
    checked : dict of str to str
        By step, what was found sound or not looked at.
    problems : list of str
        One line each.
    """

    folder: Path
    checked: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def note(self, step: str, problems: list[str], sound: str) -> None:
        """Note what a step found wrong, or that it found nothing."""
        self.problems += problems
        n = len(problems)
        self.checked[step] = f"{n:,} problem{'s' if n > 1 else ''}" if n else sound

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return {
            "folder": str(self.folder),
            "sound": not self.problems,
            "checked": self.checked,
            "problems": self.problems,
        }


def recheck(
    path: str | Path, progress: Progress = no_progress, *, without_manifest: bool = False
) -> Recheck:
    """Check a checkpoint folder, or a model of the hub's cache.

    The files are held against the manifest. The ids of the tokenizer and of both configurations
    have to be below the number of rows, the roles of the configurations have to be the tokenizer's,
    all values of the rows finite, AutoTokenizer's ids those of tokenizer.json, and its whole
    encodings those of which the manifest has digests. Weights of the body that the manifest says
    were changed have to be there, and finite. That there is no manifest is a problem, unless
    `without_manifest` says that the checkpoint is somebody else's.

    Raises
    ------
    CheckpointError
        If there is no such folder, it holds a tokenizer alone, or its manifest is unreadable or of
        a newer release.
    """
    folder = find_folder(path)
    if (folder / "tokenizer.json").is_file() and not (folder / "config.json").exists():
        raise CheckpointError(
            f"{folder} holds a tokenizer and no model: run 'tokensurgeon inspect' on it"
        )
    result = Recheck(folder)
    progress(0, len(STEPS), "files")
    if (folder / NAME).exists():
        result.note("files", verify_manifest(folder), _beside(folder))
    else:
        missing = [] if without_manifest else [
            f"{folder} has no {NAME}: transplant again, or add --no-manifest for a checkpoint that "
            "tokensurgeon did not write"
        ]  # fmt: skip
        result.note("files", missing, "no manifest: not written by tokensurgeon, so not checked")
    progress(1, len(STEPS), "checkpoint")
    try:
        checkpoint = Checkpoint.open(folder)
        vocabulary = load_vocabulary(folder)
    except TokensurgeonError as error:
        result.problems.append(str(error))
        return result
    n_rows = checkpoint.layout.n_rows
    result.checked["checkpoint"] = (
        f"{n_rows:,} rows, {'tied' if checkpoint.layout.tied else 'untied'}"
    )
    result.note("ids", list(_wrong_ids(checkpoint, vocabulary)), f"all below {n_rows:,}")
    progress(3, len(STEPS), "rows")
    result.note("rows", list(_not_finite(checkpoint)), "all finite")
    manifest = read_manifest(folder) if (folder / NAME).exists() else {}
    body = manifest.get("body")
    if isinstance(body, dict):
        names = list(map(str, body.get("tensors", ())))
        result.note("body", list(_wrong_weights(checkpoint, names)), _changed(body, names))
    progress(4, len(STEPS), "AutoTokenizer")
    differs = check_autotokenizer(folder, vocabulary, hard_texts())
    told, wrong = manifest.get("encodings"), [differs] if differs else []
    sound = "the same ids as tokenizer.json"
    if isinstance(told, dict) and told:
        sound += ", and the encodings that were written"
        wrong += list(_other_encodings(folder, told))
    result.note("AutoTokenizer", wrong, sound)
    progress(5, len(STEPS), "checked")
    return result


def _beside(folder: Path) -> str:
    """Say that the files are sound, and which the manifest does not list."""
    others = unlisted(folder, read_manifest(folder)["files"])
    names = ", ".join(name[:80] for name in others[:3]) + (", …" if len(others) > 3 else "")
    more = f"; besides {len(others):,} it does not list: {names}" if others else ""
    return f"all as the manifest says{more}"


def _wrong_ids(checkpoint: Checkpoint, vocabulary: Vocabulary) -> Iterator[str]:
    n_rows = checkpoint.layout.n_rows
    if vocabulary.n_rows > n_rows:
        last = vocabulary.n_rows - 1
        yield (
            f"the tokenizer has id {last} ({vocabulary.spellings[last]!r}) and the model "
            f"{n_rows} rows"
        )
    files = {
        "config.json": checkpoint.config,
        "generation_config.json": checkpoint.generation_config or {},
    }
    for file, config in files.items():
        for key, ids in named_ids(config):
            for token in ids:
                if token >= n_rows:
                    yield f"{file}: {key} is {token}, which is not below the {n_rows} rows"
            role = vocabulary.roles.get(ROLE_OF_KEY.get(key, ""))
            if ids and role is not None and role not in ids:
                yield f"{file}: {key} is {ids[0]}, the tokenizer's is {role}"


def _other_encodings(folder: Path, told: dict[str, Any]) -> Iterator[str]:
    """Name what AutoTokenizer gives otherwise than when the folder was written.

    Another release of transformers may be the cause as well as a changed file.
    """
    loaded = encodings.load(folder)
    now = {} if loaded is None else encodings.digests(encodings.whole_encodings(loaded))
    changed = [name for name, digest in told.items() if now.get(name) != digest]
    if changed:
        more = f" and of {n:,} more" if (n := len(changed) - 1) else ""
        yield (
            f"AutoTokenizer gives another value of {changed[0]}{more} than when this was written; "
            "compare the versions in manifest.json with those installed"
        )


def _not_finite(checkpoint: Checkpoint) -> Iterator[str]:
    sides = {"input": checkpoint.input_rows}
    if not checkpoint.layout.tied:
        sides["output"] = checkpoint.output_rows
    for side, read in sides.items():
        bad = np.flatnonzero(~np.isfinite(read()).all(axis=1))
        if len(bad):
            yield f"{len(bad):,} {side} rows hold NaN or Inf, the first is row {int(bad[0])}"


def _changed(body: dict[str, Any], names: list[str]) -> str:
    return f"{len(names):,} weights changed by an update of rank {body.get('rank')}, all finite"


def _wrong_weights(checkpoint: Checkpoint, names: list[str]) -> Iterator[str]:
    for name in names:
        if name not in checkpoint.tensors.where:
            yield f"the manifest says that {name} was changed, and there is no such tensor"
        elif not np.isfinite(checkpoint.read(name)).all():
            yield f"{name}, which was changed, holds NaN or Inf"
