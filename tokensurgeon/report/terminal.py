"""A report and a comparison as rich tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tokensurgeon.report import decisions, gap, words
from tokensurgeon.report.surgery_report import SideReport, SurgeryReport

if TYPE_CHECKING:
    from rich.console import Console, Group
    from rich.table import Table

SHORTEST_NAME, SHORTEST_GIVEN = 16, 14
"""Columns that a method's name and what it was given take at least, where both are shown."""


def print_report(console: Console, report: SurgeryReport) -> None:
    """Print what was done, the table of figures, and every warning."""
    for label, text in facts(report):
        console.print(f"[bold]{label:8}[/bold]", text, sep="", markup=True, soft_wrap=True)
    figures = words.figures(report)
    if figures:
        console.print()
        console.print(figures_table(figures))
        parts = gap.patched_parts(report)
        for note in (*words.notes(figures), gap.in_short(parts), gap.largest(parts)):
            if note is not None:
                console.print(note, markup=False, soft_wrap=True)
    elif not report.dry_run and report.not_evaluated:
        console.print(f"not measured: {report.not_evaluated}", markup=False, soft_wrap=True)
    for line in decisions.in_short(report):
        console.print(line, markup=False, soft_wrap=True)
    lines = words.rows_to_look_at(report)
    if report.warnings or lines:
        console.print()
    for line in lines:
        console.print(f"audit: {line}", markup=False, soft_wrap=True)
    for warning in report.warnings:
        console.print(f"warning: {warning}", markup=False, soft_wrap=True)


def facts(report: SurgeryReport) -> list[tuple[str, str]]:
    """Return the report's facts as labelled lines."""
    from rich.markup import escape

    source, target = report.source, report.target
    tied = "tied" if source.tied else "untied"
    lines = [
        (
            "source",
            f"{source.path} ({source.model_type}, {words.count(source.n_tokens, 'token')}, "
            f"width {source.width:,}, {tied}, {source.dtype})",
        ),
        ("target", f"{target.path or 'trained'} ({words.count(target.n_tokens, 'token')})"),
    ]
    if report.donor is not None:
        donor = report.donor
        lines.append(
            (
                "donor",
                f"{donor.path} (width {donor.width:,}; rows for {donor.known_missing:,} of the "
                "missing tokens)",
            )
        )
    if report.tied:
        sides = [("rows", report.output)]
    else:
        sides = [("input", report.input), ("output", report.output)]
    lines += [(name, side(one, report.rows.total, report.dry_run)) for name, one in sides]
    untying = words.untying(report)
    if untying is not None:
        lines.append(("untied", untying))
    if report.dry_run:
        known = report.estimate or {}
        parts = []
        if "seconds" in known:
            parts.append(f"about {words.seconds(known['seconds'])}")
        if "memory_bytes" in known:
            parts.append(f"{words.size(known['memory_bytes'])} of memory")
        if "output_bytes" in known:
            parts.append(f"{words.size(known['output_bytes'])} on disk")
        lines.append(("dry run", ", ".join(parts) or "nothing was computed or written"))
    else:
        where = report.written_to or "nowhere (no output was asked)"
        took = report.timings.get("total", sum(report.timings.values()))
        memory = f", peak memory {words.size(report.peak_memory)}" if report.peak_memory else ""
        lines.append(("written", f"{where} ({words.seconds(took)}{memory})"))
    return [(label, escape(text)) for label, text in lines]


def side(report: SideReport, total: int, planned: bool = False) -> str:
    """Say in one line where a side's rows came from."""
    parts = [
        f"{words.count(total, 'row')}: {words.copied(report, total, ' copied')}",
        f"{report.initialised:,} {'to be ' if planned else ''}made by {report.method}",
    ]
    if report.unspellable:
        parts.append(f"{report.unspellable:,} that nothing spells")
    if report.controls:
        parts.append(words.count(report.controls, "unmatched control"))
    if report.padding:
        parts.append(f"{report.padding:,} of padding")
    if report.aliases:
        parts.append(f"{report.aliases:,} that another id stands for")
    return ", ".join(parts)


def figures_table(figures: Iterable[words.Figure]) -> Table:
    """Return the table of a report's figures."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("", overflow="fold")
    _add_figure_columns(table)
    for figure in figures:
        table.add_row(figure.name, *figure.cells())
    return table


def _add_figure_columns(table: Table) -> None:
    """Add a column per heading; on a narrow terminal the names beside them break, not they."""
    for heading in words.SHORT_HEADINGS:
        table.add_column(heading, justify="right", no_wrap=True)


def print_comparison(console: Console, comparison: Mapping[str, Any]) -> None:
    """Print a comparison's table, its notes, and where the best method loses most.

    `comparison` is as the JSON of `tokensurgeon compare`.
    """
    rows, entries = comparison["rows"], comparison["evaluation"]["entries"]
    console.print(comparison_table(rows, console.width))
    best = next((row["method"] for row in rows if row["gap"] is not None), None)
    notes = [str(note) for note in comparison["facts"]["notes"]]
    entry = next((entry for entry in entries if entry["name"] == best), None)
    worst = gap.largest(gap.parts(entry))
    if worst is not None:
        notes.append(f"{best}: {worst}")
    for note in notes:
        console.print(note, markup=False, soft_wrap=True)


def comparison_table(rows: Sequence[Mapping[str, Any]], width: int = 120) -> Group:
    """Return a comparison's table; a method that failed has its reason below it.

    On a narrow terminal seconds and what a method was given are left out; no figure is ever cut.
    """
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table
    from rich.text import Text

    figures = [words.figure_of(row) for row in rows]
    measured = [figure for figure in figures if figure.error is None]
    columns = dict(
        zip(words.SHORT_HEADINGS, zip(*(f.cells() for f in measured), strict=True), strict=True)
    )
    if any(figure.closed is not None for figure in measured):
        columns["closed"] = tuple(words.percent(figure.closed) for figure in measured)
    if any(figure.gap_adapted is not None for figure in measured):
        adapted = (words.number(figure.gap_adapted, 4, sign=True) for figure in measured)
        columns["gap, adapted"] = tuple(adapted)
    seconds = tuple(words.number(figure.seconds, 1) for figure in measured)
    longest = max(len(figure.name) for figure in measured)
    taken = sum(max(map(len, (name, *cells))) + 2 for name, cells in columns.items())
    room = width - taken - max(7, *map(len, seconds)) - 4
    wide = room >= SHORTEST_NAME + SHORTEST_GIVEN
    if wide:
        columns["seconds"] = seconds

    table = Table(box=None, pad_edge=False, header_style="bold")
    least = min(longest, room - SHORTEST_GIVEN) if wide else None
    table.add_column("method", overflow="fold", min_width=least)
    for heading in columns:
        table.add_column(heading, justify="right", no_wrap=True)
    if wide:
        table.add_column("given")
    for i, figure in enumerate(measured):
        cells = [column[i] for column in columns.values()]
        if wide:
            cells.append("" if figure.name == "source" else figure.given)
        table.add_row(escape(figure.name), *cells)
    notes = [Text(note) for note in words.notes(measured)]
    failed = [Text(f"{f.name}: {f.error}") for f in figures if f.error is not None]
    return Group(table, *notes, *failed)
