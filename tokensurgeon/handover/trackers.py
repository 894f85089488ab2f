"""Figures of trainings for TensorBoard and Trackio, written while the training runs."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokensurgeon.errors import MissingExtraError, OutputExistsError, UsageError, reason
from tokensurgeon.outputs.paths import check_parent, output_path
from tokensurgeon.vocabulary.originals import installed

TENSORBOARD, TRACKIO = "tensorboard", "trackio"
EVENTS = "events.out.tfevents"
"""How the names of TensorBoard's files begin."""


class TrackedRun:
    """A run of TensorBoard or Trackio, begun by the first figure; a `Tracker`.

    What a tracker cannot write ends the tracking, and never the training.

    Parameters
    ----------
    where : str
        ``tensorboard:DIR`` or ``trackio:PROJECT``.
    apart : sequence of str or Path
        Folders that are read or written whole, in which its own must not lie.

    Attributes
    ----------
    steps : dict of str to int
        The last step of each training; a training that begins anew is another one.
    failure : str or None
        Why the tracking ended before the trainings did.

    Raises
    ------
    UsageError, OutputError, OutputExistsError
        If `where` names no tracker, or its folder cannot be written or holds a run already.
    MissingExtraError
        If the tracker is not installed.
    """

    def __init__(self, where: str, apart: Sequence[str | Path] = ()) -> None:
        self.kind, colon, self.name = where.partition(":")
        if self.kind not in (TENSORBOARD, TRACKIO) or not colon or not self.name.strip():
            raise UsageError(
                f"'{where}' names no tracker; give {TENSORBOARD}:DIR or {TRACKIO}:PROJECT"
            )
        if not installed(self.kind):
            raise MissingExtraError(
                f"{where} needs {self.kind}; pip install 'tokensurgeon[{self.kind}]'"
            )
        if self.kind == TENSORBOARD:
            _check_folder(output_path(self.name), apart)
        self.where, self.steps = where, dict[str, int]()
        self.failure: str | None = None
        self._write: Any = None
        self._names: dict[str, str] = {}

    def __call__(self, what: str, step: int, figures: Mapping[str, float]) -> None:
        """Write figures of a step; see `tokensurgeon.progress.track`."""
        if self.failure is not None:
            return
        name = self._series(what, step)
        named = {f"{name}/{key}": figure for key, figure in figures.items()}
        try:
            # A tracker greets on stdout, which is for results.
            with contextlib.redirect_stdout(sys.stderr):
                if self._write is None:
                    self._write = _begin(self.kind, self.name)
                self._write.log(named, step)
        except Exception as error:  # noqa: BLE001 - whatever it is, the training goes on
            self.failure = f"{self.where} took no figure at step {step} of {name}: {reason(error)}"
            return
        self.steps[name] = step

    def close(self) -> None:
        """Write what is left."""
        if self._write is None:
            return
        try:
            with contextlib.redirect_stdout(sys.stderr):
                self._write.close()
        except Exception as error:  # noqa: BLE001 - as above
            self.failure = self.failure or f"{self.where} was not closed: {reason(error)}"

    def _series(self, what: str, step: int) -> str:
        """Return a name for a training: the same until its steps begin anew."""
        plain = re.sub(r"\W+", "-", what.rpartition(": ")[2]).strip("-")
        name = self._names.setdefault(plain, plain)
        if step < self.steps.get(name, 0):
            number = sum(one.partition(".")[0] == plain for one in self.steps)
            name = self._names[plain] = f"{plain}.{number + 1}"
        return name


class _TensorBoard:
    """TensorBoard's files in a folder."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(folder))

    def log(self, figures: Mapping[str, float], step: int) -> None:
        for name, figure in figures.items():
            self._writer.add_scalar(name, figure, step)

    def close(self) -> None:
        self._writer.close()


class _Trackio:
    """A run of a Trackio project."""

    def __init__(self, project: str) -> None:
        import trackio

        self._run: Any = trackio.init(project=project)

    def log(self, figures: Mapping[str, float], step: int) -> None:
        self._run.log(dict(figures), step=step)

    def close(self) -> None:
        self._run.finish()


def _begin(kind: str, name: str) -> _TensorBoard | _Trackio:
    return _TensorBoard(output_path(name)) if kind == TENSORBOARD else _Trackio(name)


def _check_folder(folder: Path, apart: Sequence[str | Path]) -> None:
    """Refuse a folder that cannot be written, or in which two runs would be drawn as one."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is no folder; give another one to {TENSORBOARD}")
    check_parent(folder / EVENTS)
    if folder.is_dir() and any(one.name.startswith(EVENTS) for one in folder.iterdir()):
        raise OutputExistsError(f"{folder} holds a run of {TENSORBOARD} already: give another")
    for other in apart:
        if folder.resolve().is_relative_to(Path(other).expanduser().resolve()):
            raise UsageError(
                f"{folder} lies in {other}, which is read or written whole: give another"
            )


@contextlib.contextmanager
def tracked(where: str, apart: Sequence[str | Path] = ()) -> Iterator[TrackedRun]:
    """Give a run to track trainings with, and close it in the end; see `TrackedRun`."""
    run = TrackedRun(where, apart)
    try:
        yield run
    finally:
        run.close()
