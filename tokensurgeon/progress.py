"""What long work says of itself: where it stands, how long it took and may take, its memory."""

from __future__ import annotations

import contextlib
import math
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import SupportsFloat

Progress = Callable[[int, int, str], None]
"""Called with what is done, of how much (0 where that is unknown), and what it is."""


Tracker = Callable[[str, int, Mapping[str, float]], None]
"""Called with what is trained, the steps taken, and figures by name, such as the loss."""


def no_progress(done: int, total: int, what: str) -> None:
    """Show nothing."""


class TrackedProgress:
    """A `Progress` that hands the figures of trainings on as well.

    Parameters
    ----------
    progress : callable(done, total, what)
    tracker : callable(what, step, figures)
    """

    def __init__(self, progress: Progress, tracker: Tracker) -> None:
        self.progress, self.tracker = progress, tracker

    def __call__(self, done: int, total: int, what: str) -> None:
        """Show where the work stands."""
        self.progress(done, total, what)


class StepLines:
    """A `Progress` for a log: what is done, once, as soon as nothing was said for some seconds.

    Parameters
    ----------
    say : callable(line)
    seconds : float
    now : callable() -> float
        Seconds of a clock that never goes back.

    Examples
    --------
    >>> time_of_day = iter([0.0, 1.0, 12.0, 14.0, 30.0])
    >>> lines = StepLines(print, 10.0, now=lambda: next(time_of_day))
    >>> for done in range(3):
    ...     lines(done, 3, "reading")
    reading
    >>> lines(0, 1, "measuring")
    measuring
    """

    def __init__(
        self,
        say: Callable[[str], object],
        seconds: float,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._say, self._seconds, self._now, self._last = say, seconds, now, now()
        self._said = set[str]()

    def __call__(self, done: int, total: int, what: str) -> None:
        """Say what is done, if it is time."""
        now = self._now()
        if what not in self._said and now - self._last >= self._seconds:
            self._said.add(what)
            self._last = now
            self._say(what)


def track(progress: Progress, what: str, step: int, **figures: SupportsFloat) -> None:
    """Hand on figures of a training, where its progress is tracked; else read none of them.

    Parameters
    ----------
    progress : callable(done, total, what)
    what : str
        What is trained.
    step : int
        Steps of the gradient that were taken.
    **figures
        Numbers, or tensors of one.

    Examples
    --------
    >>> track(TrackedProgress(no_progress, print), "healing", 3, loss=2.5)
    healing 3 {'loss': 2.5}
    >>> track(no_progress, "healing", 3, loss=2.5)
    """
    if isinstance(progress, TrackedProgress):
        numbers = {name: float(figure) for name, figure in figures.items()}
        progress.tracker(what, step, numbers)


class Timings:
    """Seconds by part of the work; parts of one name add up.

    Examples
    --------
    >>> timings = Timings()
    >>> with timings.timed("align"):
    ...     pass
    >>> list(timings.seconds)
    ['align']
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Time what is done inside."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


class Clock:
    """A deadline that several pieces of work share; it runs from when it is made.

    Parameters
    ----------
    seconds : float
        Until the deadline; infinite for none.
    now : callable() -> float
        Seconds of a clock that never goes back.

    Examples
    --------
    >>> time_of_day = iter([0.0, 40.0, 40.0])
    >>> clock = Clock(60.0, now=lambda: next(time_of_day))
    >>> clock.left(), clock.over
    (20.0, False)
    """

    def __init__(self, seconds: float = math.inf, now: Callable[[], float] = time.perf_counter):
        self.seconds, self.now = seconds, now
        self._end = now() + seconds

    def left(self) -> float:
        """Return the seconds that are left; negative where the deadline is past."""
        return self._end - self.now()

    @property
    def over(self) -> bool:
        """Whether the deadline is past."""
        return self.left() <= 0

    def keeping(self, seconds: float) -> Clock:
        """Return a clock that ends so many seconds earlier, which are kept for what comes after."""
        return Clock(self.left() - seconds, self.now)

    def within(self, seconds: float) -> Clock:
        """Return a clock that ends after so many seconds, and never later than this one."""
        return Clock(min(self.left(), seconds), self.now)


def peak_memory() -> int:
    """Return the largest resident size of this process so far, in bytes."""
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024
