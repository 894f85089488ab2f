"""Names of what is being written, and the removal of what killed writers left."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import logging
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

MARKER = "written-by-tokensurgeon"
"""A file in every temporary folder: it proves whose the folder is."""
NOTE = b"A run that was killed left this folder. The next run with the same output removes it.\n"
OLD = "old"
"""A folder in a temporary one, in which an output waits while another takes its place, where the
system cannot exchange the two."""
_SUFFIX = re.compile(r"[0-9a-f]{16}")
_HEAD = 40
"""Characters of an output's name in a temporary one: at four bytes each it stays below the 255 that
file systems take. Outputs that begin alike share it, and tell living writers by their locks."""

logger = logging.getLogger(__name__)


def temporary_name(name: str) -> str:
    """Return a name beside an output that nobody can guess; it starts with a dot."""
    return f"{_prefix(name)}{secrets.token_hex(8)}"


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield an empty folder among the system's temporary files, removed whatever ends the block.

    `tempfile.TemporaryDirectory` stays where a signal arrives while it is removed.
    """
    folder = Path(tempfile.gettempdir()) / f"tokensurgeon-{secrets.token_hex(8)}"
    try:
        folder.mkdir(mode=0o700)
        yield folder
    finally:
        discard(folder)


def lock(handle: int) -> None:
    """Lock an open file or folder for as long as it is open, where the file system has locks."""
    with contextlib.suppress(OSError):
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def discard(path: Path) -> None:
    """Remove a temporary file or folder, and go on where a signal breaks that off."""
    try:
        _remove(path)
    except BaseException:
        _remove(path)
        raise


def restore(old: Path, output: Path) -> None:
    """Bring back an output that waits in a temporary folder, if nothing took its place."""
    if old.exists() and not os.path.lexists(output):
        old.rename(output)


def clear_leftovers(output: Path) -> None:
    """Remove the temporary files and folders that killed writers of an output left.

    Only what is surely ours: the name of a temporary one, this user's, locked by nobody, and of a
    folder that it is empty or holds `MARKER`.
    """
    prefix = _prefix(output.name)
    for path in output.parent.glob(f"{glob.escape(prefix)}*"):
        if not _SUFFIX.fullmatch(path.name.removeprefix(prefix)):
            continue
        with contextlib.suppress(OSError):  # another's, or another run removes it at this moment
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                is_ours = os.fstat(handle).st_uid == os.geteuid()
                if path.is_dir():
                    is_ours &= (path / MARKER).is_file() or not any(path.iterdir())
                if is_ours:
                    restore(path / OLD / output.name, output)
                    discard(path)
                    logger.warning("removed %s, which a run that was killed had left", path)
            finally:
                os.close(handle)


def _prefix(name: str) -> str:
    return f".{name[:_HEAD]}.tokensurgeon-"


def _remove(path: Path) -> None:
    """Remove a file, or a folder: the marker last, so that what is left can be told at any time."""
    with contextlib.suppress(OSError):
        if path.is_symlink() or not path.is_dir():
            path.unlink()
            return
        for entry in path.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            elif entry.name != MARKER:
                entry.unlink()
        (path / MARKER).unlink(missing_ok=True)
        path.rmdir()
