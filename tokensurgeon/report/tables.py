"""What all that is shown on a terminal has in common: tables without a frame, and sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def figures_table(first: str, *headings: str) -> Table:
    """Return an empty table; all columns but the first are figures, which no line break parts."""
    from rich.table import Column, Table

    figures = (Column(heading, justify="right", no_wrap=True) for heading in headings)
    return Table(Column(first, overflow="fold"), *figures, box=None, pad_edge=False)


def say(console: Console, *lines: str | None) -> None:
    """Print lines as they are, and nothing for None."""
    for line in lines:
        if line is not None:
            console.print(line, markup=False, soft_wrap=True)
