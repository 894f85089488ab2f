"""What probes found: as a table on a terminal, as a Markdown page, and as a record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from tokensurgeon.outputs import check_file, write_whole
from tokensurgeon.outputs.paths import begins_with
from tokensurgeon.report import words
from tokensurgeon.report.json_values import finite
from tokensurgeon.report.tables import figures_table, say

if TYPE_CHECKING:
    from rich.console import Console

    from tokensurgeon.evaluation.metrics import Interval
    from tokensurgeon.evaluation.probes import Figure, ProbeTable, Sample

HEADING = "# Probes"
"""What a page begins with."""
RECORD = '{\n  "models":'
"""What a record begins with."""
SHOWN = 160
"""Characters of a sample that are shown: what a model is asked for."""


def print_probes(console: Console, table: ProbeTable) -> None:
    """Print the figures, the samples, and notes."""
    names = [*_models(table), *(["difference"] if len(table.models) > 1 else [])]
    shown = figures_table("probe", "items", *names)
    probe = None
    for figure in table.figures:
        if figure.probe != probe:
            shown.add_row(f"[bold]{figure.probe}[/bold]")
            probe = figure.probe
        shown.add_row(f"  {_name(figure)}", f"{figure.n_items:,}", *_cells(figure))
    console.print(shown)
    say(console, *_notes(table))
    for sample in table.samples:
        console.print()
        say(console, *_sample(table, sample))


def check_output(file: str | None, *, force: bool) -> Path | None:
    """Refuse a file that cannot be written, before anything is asked; None is no file.

    With `force` a table of ours may be replaced, and no other file.
    """
    if file is None:
        return None
    ours = begins_with(HEADING.encode(), RECORD.encode())
    return check_file(file, force=force, what="a table of probes", is_ours=ours)


def write_probes(path: Path, table: ProbeTable) -> None:
    """Write the table to a file: a page if its name ends in .md, else a record in JSON."""
    if path.suffix == ".md":
        text = markdown(table)
    else:
        text = json.dumps(finite(table.to_dict()), ensure_ascii=False, indent=2) + "\n"
    write_whole(path, text.encode())


def markdown(table: ProbeTable) -> str:
    """Return the table, the samples and the notes as a Markdown page."""
    two = len(table.models) > 1
    headings = ["probe", "figure", "items", *_models(table), *(["difference"] if two else [])]
    lines = [HEADING, "", _row(headings), _row(["---"] * len(headings))]
    for figure in table.figures:
        name = _name(figure)
        lines.append(_row([figure.probe, name, f"{figure.n_items:,}", *_cells(figure)]))
    lines += ["", *(f"- {note}" for note in _notes(table)), ""]
    if table.samples:
        lines += ["## Samples", ""]
    for sample in table.samples:
        lines += ["```text", *(line.replace("```", "'''") for line in _sample(table, sample))]
        lines += ["```", ""]
    return "\n".join(lines)


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _models(table: ProbeTable) -> list[str]:
    """Return what to call the models: two are the source and the patched one."""
    return ["source", "patched"] if len(table.models) > 1 else [words.short(table.models[0])]


def _name(figure: Figure) -> str:
    arrow = {True: " ↑", False: " ↓", None: ""}[figure.higher_is_better]
    unit = "" if figure.unit in ("share", "bytes per token") else f", {figure.unit}"
    return f"{figure.name}{unit}{arrow}"


def _cells(figure: Figure) -> list[str]:
    digits = 2 if figure.unit in ("bits", "bytes per token") else 3
    cells = [_interval(value, digits) for value in figure.values]
    if len(cells) > 1:
        cells.append(_interval(figure.difference, digits, sign=True))
    return cells


def _interval(value: Interval | None, digits: int, *, sign: bool = False) -> str:
    if value is None:
        return "–"
    low, high = (words.number(end, digits, sign=sign) for end in (value.low, value.high))
    return f"{words.number(value.estimate, digits, sign=sign)} ({low} … {high})"


def _notes(table: ProbeTable) -> list[str]:
    cut = ", ".join(
        f"{name} {scheme}" for name, scheme in zip(_models(table), table.digits, strict=True)
    )
    files = [Path(file).name for file in table.text["files"]]
    where = f" of {', '.join(files[:3])}{' and more' if len(files) > 3 else ''}" if files else ""
    paired = "; of a difference, the same items are drawn for both" if len(table.models) > 1 else ""
    lines = [
        ", ".join(
            f"{name}: {model}"
            for name, model in zip(_models(table), table.models, strict=True)
            if name != model
        ),
        "in brackets: 95 % intervals over items, Wilson's where an item is right or wrong, else by "
        f"bootstrap{paired}",
        f"shares unless a unit is named; ↑ more is better, ↓ less; digits are cut: {cut}",
        f"{words.count(table.items, 'item')} at most of each figure, seed {table.seed}, from "
        f"{words.size(table.text['bytes'])}{where}",
    ]
    return [*filter(None, lines), *table.notes]


def _sample(table: ProbeTable, sample: Sample) -> list[str]:
    names = ["prompt", *_models(table)]
    width = max(map(len, names))
    texts = [sample.prompt, *(text[:SHOWN] for text in sample.texts)]
    return [
        f"{name:{width}}  {' ⏎ '.join(text.splitlines()).strip()}"
        for name, text in zip(names, texts, strict=True)
    ]
