"""Models of the hub by name, at a revision if one is named: the local cache first."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?\Z")
_REVISION = re.compile(r"[\w][\w./-]*\Z")


def split_revision(name: str) -> tuple[str, str | None]:
    """Return a name and its revision, a branch, tag or commit behind an @; None where none is.

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
        As huggingface_hub raises them, where the model is not within reach.
    """
    import huggingface_hub

    model, revision = split_revision(name)
    found = huggingface_hub.snapshot_download(
        model, revision=revision, allow_patterns=list(patterns), local_files_only=local_only
    )
    return Path(found)
