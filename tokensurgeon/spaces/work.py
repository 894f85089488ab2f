"""How a piece of arithmetic is to be done: where, in how much memory, and who hears of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Steps = Callable[[int, int], None]
"""Called with what is done, of how much, by work that its caller has named."""


def no_steps(done: int, total: int) -> None:
    """Show nothing."""


@dataclass(frozen=True)
class Work:
    """How a piece of arithmetic is to be done.

    Attributes
    ----------
    device : str
        A torch device.
    memory_budget : int
        Bytes that may be taken beyond the result.
    progress : callable(done, total)
    """

    device: str = "cpu"
    memory_budget: int = 2 << 30
    progress: Steps = no_steps


ON_CPU = Work()
"""On CPU, in 2 GiB: for whoever does not say."""
