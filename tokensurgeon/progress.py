"""How long work says where it stands."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int, str], None]
"""Called with what is done, of how much (0 where that is unknown), and what it is."""


def no_progress(done: int, total: int, what: str) -> None:
    """Show nothing."""
