"""All or nothing at the output path: a private folder beside it, then one rename.

It knows directories, not checkpoints.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from tokensurgeon.errors import OutputError, OutputExistsError
from tokensurgeon.outputs.leftovers import (
    MARKER,
    NOTE,
    OLD,
    clear_leftovers,
    discard,
    lock,
    restore,
    temporary_name,
)
from tokensurgeon.outputs.paths import check_replaceable
from tokensurgeon.outputs.whole_file import current_umask

_AT_FDCWD = -100
_NOREPLACE, _EXCHANGE = 1, 2
"""Arguments of Linux' renameat2(2), which Python does not have."""


@contextlib.contextmanager
def staged(
    output: Path, *, force: bool, check: Callable[[Path], None] = check_replaceable
) -> Iterator[Path]:
    """Yield an empty directory that becomes `output` when the block ends well.

    It lies in a folder beside `output` that only this user can enter, under a name that nobody can
    guess. Whatever ends the block otherwise, KeyboardInterrupt included, that folder is removed and
    the output path is as it was.

    With `force` an output that is there is replaced, after `check` was called with it a last time,
    which raises where it holds somebody else's work.

    Raises
    ------
    OutputExistsError
        If the output came into being meanwhile, or holds somebody else's work.
    OutputError
        If the system refuses to write or rename.
    """
    output = output.absolute()
    parent = output.parent
    missing = [folder for folder in (parent, *parent.parents) if not folder.exists()]
    private, handle = parent / temporary_name(output.name), -1
    try:
        try:
            parent.mkdir(parents=True, exist_ok=True)
            clear_leftovers(output)
            handle = _make_private(private)
            folder = private / "new"
            folder.mkdir()
        except OSError as error:
            raise OutputError(
                f"cannot write beside {output}: {error.strerror}; give another output"
            ) from error
        yield folder
        folder.chmod(0o777 & ~current_umask())
        sync_tree(folder)
        _publish(folder, output, force, check)
        sync_directory(parent)
    except OSError as error:
        raise OutputError(
            f"{output} could not be written: {error.strerror or error}; nothing was left there: "
            "make room, or give another output"
        ) from error
    finally:
        discard(private)
        if handle >= 0:
            os.close(handle)
        for empty in missing:
            with contextlib.suppress(OSError):  # it holds the output
                empty.rmdir()


def _make_private(folder: Path) -> int:
    """Make a folder for this user alone; return it open and locked, marked as ours."""
    folder.mkdir(mode=0o700)
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    lock(handle)
    (folder / MARKER).write_bytes(NOTE)
    return handle


def sync_tree(folder: Path) -> None:
    """Flush every file and directory of a tree to the disk."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        else:
            sync_directory(path)
    sync_directory(folder)


def sync_directory(folder: Path) -> None:
    """Flush the names in a directory, where the system can."""
    with contextlib.suppress(PermissionError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _publish(folder: Path, output: Path, force: bool, check: Callable[[Path], None]) -> None:
    """Rename the folder to the output; an output of ours that is there goes where it was."""
    if not os.path.lexists(output):
        if not _rename(folder, output, _NOREPLACE):
            if os.path.lexists(output):
                raise _came_meanwhile(output)
            folder.rename(output)
        return
    if not force:
        try:
            folder.rename(output)  # takes the place of an empty folder, of nothing else
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
            raise _came_meanwhile(output) from error
        return
    check(output)
    if _rename(folder, output, _EXCHANGE):
        return  # the old output is now where the new one was, and is removed with its folder
    old = folder.with_name(OLD) / output.name
    old.parent.mkdir()
    try:
        output.rename(old)
        folder.rename(output)
    except BaseException:
        restore(old, output)
        raise


def _came_meanwhile(output: Path) -> OutputExistsError:
    return OutputExistsError(
        f"{output} came into being meanwhile, and nothing was replaced: give another output"
    )


def _rename(source: Path, target: Path, flag: int) -> bool:
    """Rename with Linux' renameat2; False where the system or the file system has none."""
    function = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if function is None:
        return False
    status = function(
        ctypes.c_int(_AT_FDCWD), os.fsencode(source),
        ctypes.c_int(_AT_FDCWD), os.fsencode(target), ctypes.c_uint(flag),
    )  # fmt: skip
    if status == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL, errno.EEXIST, errno.ENOTSUP):
        return False
    raise OSError(code, os.strerror(code), str(target))
