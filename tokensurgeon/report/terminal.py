"""A report and a comparison as rich tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tokensurgeon.report import added_tokens, decisions, gap, span_tables, words
from tokensurgeon.report.surgery_report import SideReport, SurgeryReport
from tokensurgeon.report.tables import figures_table, say

if TYPE_CHECKING:
    from rich.console import Console, Group

SHORTEST_NAME, SHORTEST_GIVEN = 16, 14
"""Columns that a method's name and what it was given take at least, where both are shown."""
NARROWEST_NAME = 7
"""Columns that are left for a name on a terminal of 70 columns with the figures there always are;
with one more, others have to go."""


def print_report(console: Console, report: SurgeryReport) -> None:
    """Print what was done, the table of figures, and every warning."""
    for label, text in facts(report):
        console.print(f"[bold]{label:8}[/bold]", text, sep="", markup=True, soft_wrap=True)
    if report.steps:
        table = figures_table(*decisions.STEP_HEADINGS)
        for row in decisions.step_rows(report):
            table.add_row(*row)
        console.print(table)
    figures = words.figures(report)
    if figures:
        console.print()
        table = figures_table("", *words.SHORT_HEADINGS)
        for figure in figures:
            table.add_row(figure.name, *figure.cells())
        console.print(table)
        parts = gap.patched_parts(report)
        spans = span_tables.in_short(words.entry_of(report.evaluation, "patched"))
        say(console, *words.notes(figures), gap.in_short(parts), gap.largest(parts), spans)
        say(console, gap.on_numbers(report))
    elif not report.dry_run and report.not_evaluated:
        say(console, f"not measured: {report.not_evaluated}")
    there = words.figures(report, "elsewhere")
    if there:
        say(console, "", "On text of another kind:")
        table = figures_table("", *words.SHORT_HEADINGS)
        for figure in there:
            table.add_row(figure.name, *figure.cells())
        console.print(table)
    say(console, *decisions.in_short(report))
    lines = [f"audit: {line}" for line in words.rows_to_look_at(report)]
    lines += [f"warning: {warning}" for warning in report.warnings]
    if lines:
        say(console, "", *lines)


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
        rows = f"rows for {donor.known_missing:,} of the missing tokens"
        lines.append(("donor", f"{donor.path} (width {donor.width:,}; {rows})"))
    for name, one in report.sides("rows"):
        lines.append((name, side(one, report.rows.total, report.dry_run)))
    lines += added_tokens.lines(report)
    body = words.body(report)
    if body is not None:
        lines.append(("body", body.removeprefix("body ")))
    untying = words.untying(report)
    if untying is not None:
        lines.append(("untied", untying))
    if report.dry_run:
        known = report.estimate or {}
        parts = [f"about {words.seconds(known['seconds'])}"] if "seconds" in known else []
        for key, what in (("memory_bytes", "of memory"), ("output_bytes", "on disk")):
            if key in known:
                parts.append(f"{words.size(known[key])} {what}")
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
    others = (
        (report.unspellable, "that nothing spells"),
        (report.controls, "unmatched control" if report.controls == 1 else "unmatched controls"),
        (report.padding, "of padding"),
        (report.aliases, "that another id stands for"),
        (report.unreached, "never written as digits are cut"),
    )
    return ", ".join([*parts, *(f"{n:,} {what}" for n, what in others if n)])


def print_comparison(console: Console, comparison: Mapping[str, Any]) -> None:
    """Print a comparison's table, its notes, and where the best method loses most.

    `comparison` is as the JSON of `tokensurgeon compare`.
    """
    facts = comparison["facts"]
    after_steps = words.after_steps_heading(facts)
    console.print(comparison_table(comparison["rows"], console.width, after_steps))
    best, parts = gap.of_best(comparison)
    worst = gap.largest(parts)
    spans = span_tables.in_short(words.entry_of(comparison["evaluation"], best))
    said = [f"{best}: {line}" for line in (worst, spans) if line]
    say(console, *words.after_steps(facts), *facts["notes"], *said)


def comparison_table(
    rows: Sequence[Mapping[str, Any]], width: int = 120, after_steps: str | None = None
) -> Group:
    """Return a comparison's table; a method that failed has its reason below it.

    `after_steps` heads the figure after further training, where that was measured. On a narrow
    terminal seconds and what a method was given are left out, beside that figure also the ratio and
    the bytes per token; no figure that is shown is ever cut.
    """
    from rich.console import Group
    from rich.markup import escape
    from rich.text import Text

    figures = [words.figure_of(row) for row in rows]
    measured = [figure for figure in figures if figure.error is None]
    columns = dict(
        zip(words.SHORT_HEADINGS, zip(*(f.cells() for f in measured), strict=True), strict=True)
    )
    if after_steps is not None:
        first = words.SHORT_HEADINGS[0]
        second = tuple(words.number(figure.after_steps, 4) for figure in measured)
        columns = {first: columns.pop(first), after_steps: second, **columns}
    if any(figure.closed is not None for figure in measured):
        columns["closed"] = tuple(words.percent(figure.closed) for figure in measured)
    if any(figure.gap_adapted is not None for figure in measured):
        adapted = (words.number(figure.gap_adapted, 4, sign=True) for figure in measured)
        columns["gap, adapted"] = tuple(adapted)
    if any(figure.body_numbers for figure in measured):
        columns["body"] = tuple("changed" if figure.body_numbers else "" for figure in measured)
    seconds = tuple(words.number(figure.seconds, 1) for figure in measured)
    longest = max(len(figure.name) for figure in measured)
    if after_steps is not None and width - _taken(columns) < NARROWEST_NAME:
        for heading in words.SHORT_HEADINGS[-2:]:
            del columns[heading]
    room = width - _taken(columns) - max(7, *map(len, seconds)) - 4
    wide = room >= SHORTEST_NAME + SHORTEST_GIVEN
    if wide:
        columns["seconds"] = seconds

    table = figures_table("method", *columns)
    if wide:
        table.columns[0].min_width = min(longest, room - SHORTEST_GIVEN)
        table.add_column("given")
    for i, figure in enumerate(measured):
        cells = [column[i] for column in columns.values()]
        if wide:
            cells.append("" if figure.name == "source" else figure.given)
        table.add_row(escape(figure.name), *cells)
    notes = [Text(note) for note in words.notes(measured)]
    failed = [Text(f"{f.name}: {f.error}") for f in figures if f.error is not None]
    return Group(table, *notes, *failed)


def _taken(columns: Mapping[str, Sequence[str]]) -> int:
    """Return how many characters of a line columns take, with the space before each."""
    return sum(max(map(len, (name, *cells))) + 2 for name, cells in columns.items())
