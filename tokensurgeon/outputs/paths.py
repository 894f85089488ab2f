"""Paths of outputs as users name them, and what is refused before anything is computed."""

from __future__ import annotations

import json
import os
import stat
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path

from tokensurgeon.errors import OutputError, OutputExistsError, UsageError
from tokensurgeon.outputs.ownership import CHECKPOINT, KINDS, kind_of, why_not_ours

LONGEST_NAME = 255
"""Bytes of a name in ext4, XFS, Btrfs and tmpfs."""
LONGEST_HEADER = 100 << 20
"""Bytes of a header that the safetensors library reads."""


def output_path(name: str | Path) -> Path:
    """Return the path of an output that a user named, with ``~`` expanded as in inputs.

    Raises
    ------
    UsageError
        If the name is empty, is too long, or holds a control character such as a line's end.
    """
    text = os.fspath(name)
    if not text.strip():
        raise UsageError("the output has an empty name; give the path of a file or folder")
    if any(unicodedata.category(character) == "Cc" for character in text):
        raise UsageError(f"the output's name {text!r} holds a control character; take another name")
    try:
        path = Path(text).expanduser()
    except RuntimeError as error:
        raise UsageError(f"{text} names a home folder that is not known; write it out") from error
    longest = max((len(os.fsencode(part)) for part in path.parts), default=0)
    if longest > LONGEST_NAME:
        raise UsageError(
            f"the output's name has {longest} bytes, and file systems take {LONGEST_NAME}; "
            "take a shorter one"
        )
    return path


def check_folder(
    name: str | Path,
    *,
    force: bool,
    source: str | Path | None = None,
    keep: Iterable[str | Path | None] = (),
    kind: str = CHECKPOINT,
) -> Path:
    """Return the path of a folder that is to be written, or refuse it.

    It may neither lie in `source` nor hold it, nor hold one of `keep`, further files and folders
    that are read; those which are not there (such as model ids) count for nothing. An empty folder
    may be written to as one that is not there. With `force` a folder may be replaced that holds
    nothing but what a list of ours names, unchanged, and that is of the `kind` that is to be
    written: the name of its list.

    Raises
    ------
    UsageError
        If the path cannot be one; see `output_path`.
    OutputExistsError
        If it holds anything and `force` is not given, or it holds something else.
    OutputError
        If it and something that is read lie in each other, or nothing can be written there.
    """
    output = output_path(name)
    if output.name in ("", os.pardir):  # as in "." and "..": a folder beside it needs its name
        output = output.resolve()
    if source is not None:
        check_apart(output, source)
    for read in (one for one in keep if one is not None):
        path = Path(read).expanduser()
        if os.path.lexists(path) and _holds(output, path):
            raise _in_each_other(output, read)
    if not os.path.lexists(output):
        check_parent(output)
        return output
    if not force and not is_empty_folder(output):
        raise OutputExistsError(f"{output} exists already: choose another or add --force")
    if output.is_symlink() or not output.is_dir():
        what = "a link" if output.is_symlink() else "no folder"
        raise OutputExistsError(f"{output} is {what}, which --force does not replace: remove it")
    check_replaceable(output)
    other = kind_of(output)
    if other not in (None, kind):
        raise OutputExistsError(
            f"{output} holds {KINDS[str(other)]}, and {KINDS[kind]} would take its place: move it "
            "away, or give another output"
        )
    check_parent(output)
    return output


def is_empty_folder(path: Path) -> bool:
    """Tell whether a path is a folder, and no link to one, that holds nothing."""
    try:
        return path.is_dir() and not path.is_symlink() and not any(path.iterdir())
    except OSError:  # nobody may look into it
        return False


def check_replaceable(folder: Path) -> None:
    """Refuse to replace a folder that holds anybody else's work.

    Raises
    ------
    OutputExistsError
    """
    reason = why_not_ours(folder)
    if reason is not None:
        raise OutputExistsError(
            f"{reason}; --force replaces only our own files: move these files away, or "
            "give another output"
        )


def check_parent(path: Path) -> None:
    """Refuse a path below a file, or in a folder where nothing may be written.

    Raises
    ------
    UsageError, OutputError
    """
    for parent in path.absolute().parents:
        if not os.path.lexists(parent):
            continue
        if not parent.is_dir():
            raise UsageError(f"{path} cannot be written: {parent} is no folder; give another path")
        if not os.access(parent, os.W_OK | os.X_OK):
            raise OutputError(
                f"{path} cannot be written: {parent} may not be written to; give another"
            )
        return


def check_apart(output: Path, read: str | Path) -> None:
    """Refuse an output and a folder that is read where one lies in the other.

    Raises
    ------
    OutputError
    """
    path = Path(read).expanduser()
    if os.path.lexists(path) and (_holds(output, path) or _holds(path, output)):
        raise _in_each_other(output, read)


def check_file(
    name: str | Path,
    *,
    force: bool | None,
    what: str = "such a file",
    is_ours: Callable[[Path], bool] | None = None,
    make_parent: bool = False,
) -> Path:
    """Return the path of a file that is to be written, or refuse it.

    With `force` a file may be replaced by one of its kind only: `is_ours` tells that. An empty file
    is of every kind.

    Parameters
    ----------
    name : str or Path
    force : bool or None
        None where the user has no --force to give.
    what : str
        The kind, for a message.
    is_ours : callable(path), optional
        See `begins_with` and `safetensors_with`.
    make_parent : bool
        Whether the writer makes the file's folder.

    Raises
    ------
    UsageError
    OutputExistsError
        If it exists and `force` is not given, or it is of another kind.
    """
    path = output_path(name)
    if path.is_dir():
        raise UsageError(f"{path} cannot be written: it is a folder; name a file in it")
    check_parent(path)
    if not make_parent and not path.parent.is_dir():
        raise UsageError(f"{path} cannot be written: no folder {path.parent}; make it first")
    if not os.path.lexists(path):
        return path
    if not force:
        advice = "name another file" if force is None else "choose another or add --force"
        raise OutputExistsError(f"{path} exists already: {advice}")
    facts = path.lstat()
    if not stat.S_ISREG(facts.st_mode):
        raise OutputExistsError(f"{path} is a link or a device: name the file itself, or another")
    if is_ours is not None and facts.st_size and not is_ours(path):
        raise OutputExistsError(
            f"{path} is not {what}, and --force replaces nothing else: choose another name"
        )
    return path


def begins_with(*beginnings: bytes) -> Callable[[Path], bool]:
    """Return a test whether a file begins with one of some bytes."""

    def test(path: Path) -> bool:
        with path.open("rb") as file:
            return file.read(max(map(len, beginnings))).startswith(beginnings)

    return test


def safetensors_with(key: str, value: str | None = None) -> Callable[[Path], bool]:
    """Return a test whether a safetensors file's metadata has a key, and that value."""

    def test(path: Path) -> bool:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > LONGEST_HEADER:
                return False
            try:
                metadata = json.loads(file.read(length))["__metadata__"]
                return key in metadata and value in (None, metadata[key])
            except (ValueError, KeyError, TypeError, RecursionError):
                return False

    return test


def _holds(folder: Path, path: Path) -> bool:
    # Unlike Path.resolve, it takes links that go round.
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def _in_each_other(output: Path, read: str | Path) -> OutputError:
    return OutputError(
        f"the output {output} and {read}, which is read, lie in each other; give another output"
    )
