"""A file that is at its path with all of its content, or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from tokensurgeon.errors import OutputError
from tokensurgeon.outputs.leftovers import clear_leftovers, discard, lock, temporary_name


@contextlib.contextmanager
def whole_file(path: str | Path) -> Iterator[BinaryIO]:
    """Yield a new file that takes `path` when the block ends well, in place of what is there.

    It has a name that nobody can guess and is opened so that no link is followed. A link at `path`
    is replaced, not followed.

    Raises
    ------
    OutputError
        If the system refuses to write or rename; `path` is then as it was.
    """
    path = Path(path)
    clear_leftovers(path)
    part = path.parent / temporary_name(path.name)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(part, flags, 0o600), "wb") as file:
            lock(file.fileno())
            yield file
            file.flush()
            os.fchmod(file.fileno(), 0o666 & ~current_umask())
            os.fsync(file.fileno())
            part.replace(path)
    except OSError as error:
        raise OutputError(
            f"{path} could not be written: {error.strerror or error}; what was there before "
            "stands: make room, or give another path"
        ) from error
    finally:
        discard(part)


def write_whole(path: str | Path, data: bytes) -> None:
    """Write a file, which is there with all of its content or not at all; see `whole_file`."""
    with whole_file(path) as file:
        file.write(data)


def current_umask() -> int:
    """Return which permissions new files do not get; the system tells it only when it is set."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
