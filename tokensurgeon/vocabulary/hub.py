"""Names of models on the hub, with or without a revision, and the folder of their files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?\Z")
_REVISION = re.compile(r"[\w][\w./-]*\Z")


def split_revision(name: str) -> tuple[str, str | None]:
    """Return a name and its revision (a branch, tag or commit after an @), or None without one.

    Examples
    --------
    >>> split_revision("org/model@v1.0"), split_revision("org/model")
    (('org/model', 'v1.0'), ('org/model', None))
    """
    model, at, revision = name.partition("@")
    return (model, revision) if at else (name, None)


def is_name(name: str) -> bool:
    """Say whether a text can be the name of a model, with or without a revision."""
    model, revision = split_revision(name)
    known = revision is None or (bool(_REVISION.match(revision)) and ".." not in revision)
    return bool(_NAME.match(model)) and known


def snapshot(name: str, patterns: Sequence[str], *, local_only: bool) -> Path:
    """Return the folder of a model's files that match the patterns.

    Raises
    ------
    OSError, ValueError, huggingface_hub.errors.HfHubHTTPError
        As huggingface_hub raises them, if the model can be neither found nor downloaded.
    """
    import huggingface_hub

    model, revision = split_revision(name)
    folder = huggingface_hub.snapshot_download(
        model, revision=revision, allow_patterns=list(patterns), local_files_only=local_only
    )
    return Path(folder)


def cached_file(name: str, file: str) -> Path | None:
    """Return a file of a model from the local hub cache; None where it is not there.

    A folder of that name goes first wherever a name is read, so such a name is no model.
    """
    model, revision = split_revision(name)
    if Path(name).expanduser().exists() or not is_name(name):
        return None
    import huggingface_hub

    found = huggingface_hub.try_to_load_from_cache(model, file, revision=revision)
    return Path(found) if isinstance(found, str) else None
