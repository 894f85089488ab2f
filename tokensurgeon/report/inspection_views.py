"""An inspection on a terminal, and as one HTML page that loads nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tokensurgeon.outputs import write_whole
from tokensurgeon.report import inspection_words as said
from tokensurgeon.report.pages import fill
from tokensurgeon.report.tables import say

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from tokensurgeon.inspection import Excerpt, Inspection, Span

STYLES = ("black on #a8d1ff", "black on #ffd9a0")
"""Of tokens in turn, so that each is seen to end."""
NARROWEST = 36
"""Columns that a tokenizer's cuts take at least; where there is less room, they stand below."""
LONGEST_NAME = 28
"""Characters of the name of a figure; with two tokenizers the table fits 80 columns."""
NOTHING = "∅"
"""Stands for a token that adds no text."""


def print_inspection(console: Console, inspection: Inspection) -> None:
    """Print figures, lists of tokens, how texts are cut, and notes."""
    console.print(_figures_table(inspection, console.width))
    shares = said.shares(inspection)
    if shares:
        console.print()
        console.print("Mixture of the training text", style="bold")
        width = max(len(name) for name, _ in shares)
        for name, share in shares:
            bar = "█" * round(40 * share)
            console.print(f"{name:{width}} {100 * share:6.1f} % {bar}", markup=False)
    for listing in said.listings(inspection):
        console.print()
        console.print(listing.title, style="bold", markup=False, soft_wrap=True)
        say(console, *(f"  {token}  {about}".rstrip() for token, about in listing.items))
        if listing.more:
            say(console, f"  and {listing.more:,} more")
    for excerpt in inspection.excerpts:
        console.print()
        console.print(f"Cut: {excerpt.name}", style="bold", markup=False)
        names = [entry.name for entry in inspection.entries]
        console.print(_cuts(excerpt, names, console))
    say(console, "", *said.notes(inspection))


def _figures_table(inspection: Inspection, width: int) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    rows = said.rows(inspection)
    for i, entry in enumerate(inspection.entries):
        longest = max(len(word) for row in rows if row.cells for word in row.cells[i].split())
        heading = Text(entry.name, overflow="fold")
        table.add_column(heading, justify="right", overflow="fold", min_width=longest)
    explained = width >= LONGEST_NAME + 40 + 17 * len(inspection.entries)
    if explained:
        table.add_column("", no_wrap=True)
    for row in rows:
        if row.heading:
            table.add_row(Text(row.name, style="bold"))
            continue
        name = row.name
        if len(name) > LONGEST_NAME:  # the end of a file's name says most
            name = "…" + name[1 - LONGEST_NAME :]
        cells = [Text("  " + name), *map(Text, row.cells)]
        table.add_row(*cells, *([Text(row.about, style="dim")] if explained else []))
    return table


def _cuts(excerpt: Excerpt, names: Sequence[str], console: Console) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    titles = [
        f"{name}, {len(spans):,} tokens" for name, spans in zip(names, excerpt.cuts, strict=True)
    ]
    shown = [cut_text(spans, colour=console.color_system is not None) for spans in excerpt.cuts]
    if console.width >= NARROWEST * len(names):
        for title in titles:
            table.add_column(Text(title), overflow="fold", ratio=1)
        table.add_row(*shown)
        return table
    table.add_column("", overflow="fold")
    for title, text in zip(titles, shown, strict=True):
        table.add_row(Text(title, style="dim"))
        table.add_row(text)
    return table


def cut_text(spans: Sequence[Span], *, colour: bool) -> Text:
    """Return spans as text on alternating backgrounds; without colour, parted by bars."""
    from rich.text import Text

    text = Text()
    for number, span in enumerate(spans):
        shown = span.shown or NOTHING
        if colour:
            text.append(shown, style=STYLES[number % 2])
        else:
            text.append(shown if not number else "|" + shown)
    return text


def page(inspection: Inspection) -> str:
    """Return the page: every text escaped, no script, nothing loaded."""
    return fill(
        "inspection.html.jinja",
        entries=inspection.entries,
        excerpts=inspection.excerpts,
        rows=said.rows(inspection),
        listings=said.listings(inspection, 60),
        notes=said.notes(inspection),
        shares=said.shares(inspection),
        nothing=NOTHING,
    )


def write_page(path: str | Path, inspection: Inspection) -> None:
    """Write the page to a file: whole, or not at all."""
    write_whole(path, page(inspection).encode("utf-8", "backslashreplace"))
