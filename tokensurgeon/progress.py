"""How long work says where it stands, how long it took, and how much memory it has held."""

from __future__ import annotations

import contextlib
import resource
import sys
import time
from collections.abc import Callable, Iterator

Progress = Callable[[int, int, str], None]
"""Called with what is done, of how much (0 where that is unknown), and what it is."""


def no_progress(done: int, total: int, what: str) -> None:
    """Show nothing."""


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


def peak_memory() -> int:
    """Return the largest resident size of this process so far, in bytes."""
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024
