"""All or nothing at the output path: a sibling temporary directory, then one rename.

It knows directories, not checkpoints.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tokensurgeon.errors import CheckpointError, OutputExistsError

_AT_FDCWD = -100
_NOREPLACE, _EXCHANGE = 1, 2
"""Arguments of Linux' renameat2(2), which Python does not have."""


def check_output(
    output: Path, *, force: bool, source: Path | None = None, keep: tuple[Path, ...] = ()
) -> None:
    """Refuse an output path that exists, or whose writing would touch what is read.

    It may neither lie in `source` nor hold it, nor hold one of `keep`, further folders that are
    read. With `force` an existing checkpoint may be replaced.

    Raises
    ------
    OutputExistsError
        If it exists and `force` is not given, or is no checkpoint that may be replaced.
    CheckpointError
        If the output and something that is read lie in each other.
    """
    real = output.resolve()
    within = source is not None and real.is_relative_to(source.resolve())
    for folder in (*keep, *((source,) if source is not None else ())):
        if within or folder.resolve().is_relative_to(real):
            raise CheckpointError(
                f"the output {output} and {source if within else folder}, which is read, lie in "
                "each other; give another output folder"
            )
    if not os.path.lexists(output):
        return
    if not force:
        raise OutputExistsError(f"{output} exists already; give another folder, or --force")
    if output.is_symlink() or not output.is_dir():
        raise OutputExistsError(
            f"{output} is no folder, and --force replaces checkpoints only; give another"
        )
    ours = any((output / name).exists() for name in ("manifest.json", "config.json"))
    if not ours and any(output.iterdir()):
        raise OutputExistsError(
            f"{output} is no checkpoint, and --force replaces checkpoints only; give another"
        )


@contextlib.contextmanager
def staged(output: Path, *, force: bool) -> Iterator[Path]:
    """Yield an empty directory beside `output` that becomes `output` when the block ends well.

    Whatever ends the block otherwise, KeyboardInterrupt included, the directory is removed and
    the output path is as it was.

    Raises
    ------
    OutputExistsError
        If the output came into being meanwhile, without `force`.
    CheckpointError
        If the system refuses to write or rename.
    """
    parent = output.absolute().parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        _clear_abandoned(parent, f".{output.name}.tmp-")
        temporary, lock = _locked_folder(parent, f".{output.name}.tmp-")
    except OSError as error:
        raise CheckpointError(
            f"cannot write beside {output}: {error.strerror}; give another output"
        ) from error
    try:
        yield temporary
        mask = os.umask(0)  # the permissions of an ordinary folder, which only umask(2) tells
        os.umask(mask)
        temporary.chmod(0o777 & ~mask)
        sync_tree(temporary)
        _publish(temporary, output.absolute(), force)
        sync_directory(parent)
    except OSError as error:
        raise CheckpointError(
            f"{output} could not be written: {error.strerror or error}; nothing was left there"
        ) from error
    finally:
        if temporary.exists():
            shutil.rmtree(temporary, ignore_errors=True)
        os.close(lock)


def _locked_folder(parent: Path, prefix: str) -> tuple[Path, int]:
    """Make a temporary folder that is locked for as long as its writer lives."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        try:
            handle = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:
            continue  # another writer took it for a dead one's before it was locked
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if folder.exists():
            return folder, handle
        os.close(handle)


def _clear_abandoned(parent: Path, prefix: str) -> None:
    """Remove the temporary folders of writers that were killed: nobody locks them any more."""
    for folder in parent.glob(f"{glob.escape(prefix)}*"):
        with contextlib.suppress(OSError):
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(handle)


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


def _publish(temporary: Path, output: Path, force: bool) -> None:
    if not os.path.lexists(output):
        if not _rename(temporary, output, _NOREPLACE):
            if os.path.lexists(output):
                raise OutputExistsError(f"{output} came into being meanwhile; nothing was replaced")
            temporary.rename(output)
        return
    if not force:
        raise OutputExistsError(f"{output} came into being meanwhile; nothing was replaced")
    if _rename(temporary, output, _EXCHANGE):
        return  # the old output is now at the temporary path, which the caller removes
    old = Path(tempfile.mkdtemp(prefix=f".{output.name}.old-", dir=output.parent))
    output.rename(old / output.name)
    try:
        temporary.rename(output)
    except OSError:
        (old / output.name).rename(output)
        old.rmdir()
        raise
    shutil.rmtree(old, ignore_errors=True)


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
