"""Finished checkpoints beside one another: as a comparison, and by file or language."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from tokensurgeon.report import words
from tokensurgeon.report.tables import figures_table, say

if TYPE_CHECKING:
    from rich.console import Console

    from tokensurgeon.evaluation import EntryResult, Evaluation
    from tokensurgeon.evaluation.by_group import GroupResult


def short_names(names: Sequence[str]) -> list[str]:
    """Return the last part of each path, the whole path where two would be alike.

    Examples
    --------
    >>> short_names(["runs/a", "runs/b", "old/b"])
    ['a', 'runs/b', 'old/b']
    """
    short = [PurePath(name).name or name for name in names]
    return [name if short.count(one) > 1 else one for name, one in zip(names, short, strict=True)]


def as_comparison(evaluation: Evaluation, by: str | None = None) -> dict[str, Any]:
    """Return an evaluation of checkpoints with the keys that a comparison of methods has.

    ``rows`` holds the first checkpoint, then the others by bits per byte; with `by`, ``groups`` has
    such rows of each file or language, by its name.
    """
    data = evaluation.to_dict()
    names = short_names([entry.name for entry in evaluation.entries])
    for entry, name in zip(data["entries"], names, strict=True):
        entry["name"] = name
    rows = [_row(name, one) for name, one in zip(names, evaluation.entries, strict=True)]
    unknown = float("inf")
    rows[1:] = sorted(rows[1:], key=lambda row: row["bits_per_byte"] or unknown)
    groups = {
        group: [
            _row(name, one.by_group[group])
            for name, one in zip(names, evaluation.entries, strict=True)
            if one.by_group and group in one.by_group
        ]
        for group in evaluation.entries[0].by_group or ()
    }
    facts = {
        "source": names[0],
        "checkpoints": names,
        "paths": [entry.name for entry in evaluation.entries],
        "by": by,
        "notes": list(evaluation.notes),
    }
    return {"facts": facts, "rows": rows, "groups": groups, "evaluation": data}


def _row(name: str, result: EntryResult | GroupResult) -> dict[str, Any]:
    gap = result.difference
    return {
        "method": name,
        "bits_per_byte": result.bits_per_byte,
        "gap": gap.estimate if gap else None,
        "interval": [gap.low, gap.high] if gap else None,
        "perplexity_ratio": getattr(result, "perplexity_ratio", None),
        "bytes_per_token": result.bytes_per_token,
        "tokens_saved": result.tokens_saved,
        "error": None,
    }


def as_csv(comparison: Mapping[str, Any]) -> str:
    """Return the rows as CSV with a header; those of a file or language name it under ``group``."""
    buffer = io.StringIO()
    keys = ("bits_per_byte", "gap", "low", "high", "perplexity_ratio", "bytes_per_token",
            "tokens_saved")  # fmt: skip
    writer = csv.DictWriter(buffer, ("method", "group", *keys), lineterminator="\n")
    writer.writeheader()
    for group, rows in {"": comparison["rows"], **comparison["groups"]}.items():
        for row in rows:
            low, high = row["interval"] or (None, None)
            known = {**row, "low": low, "high": high}
            figures = {key: known[key] for key in keys}
            writer.writerow({"method": row["method"], "group": group, **figures})
    return buffer.getvalue()


def print_checkpoints(console: Console, comparison: Mapping[str, Any]) -> None:
    """Print the table of checkpoints, and what they are on each file or language."""
    headings = (*words.SHORT_HEADINGS, "tokens")
    table = figures_table("checkpoint", *headings)
    for row in comparison["rows"]:
        table.add_row(row["method"], *words.figure_of(row).cells(), saved(row["tokens_saved"]))
    console.print(table)
    print_groups(console, comparison)
    text = comparison["evaluation"]["text"]
    say(
        console,
        f"{words.count(text['documents'], 'document')}, {words.count(text['bytes'], 'byte')}",
        *words.notes([words.figure_of(entry) for entry in comparison["evaluation"]["entries"]]),
        *comparison["facts"]["notes"],
    )


def print_groups(console: Console, comparison: Mapping[str, Any]) -> None:
    """Print a line for each checkpoint on each file or language; nothing where there are none."""
    if not comparison["groups"]:
        return
    table = figures_table(comparison["facts"]["by"] or "", "", *group_headings())
    for group, rows in comparison["groups"].items():
        for i, row in enumerate(rows):
            table.add_row("" if i else group, row["method"], *group_cells(row))
    console.print()
    console.print(table)


def group_headings() -> tuple[str, ...]:
    """Return what stands over `group_cells`."""
    return (*words.SHORT_HEADINGS[:3], words.SHORT_HEADINGS[4], "tokens")


def group_cells(row: Mapping[str, Any]) -> list[str]:
    """Return bits per byte, gap, interval, bytes per token and tokens as they are shown."""
    cells = words.figure_of(row).cells()
    return [*cells[:3], cells[4], saved(row["tokens_saved"])]


def saved(share: float | None) -> str:
    """Say a share of tokens that is saved as the change that it is, "–" where there is none."""
    return "–" if share is None else f"{-100 * share:+z.1f} %"


def group_rows(comparison: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows to draw: the checkpoints, then each of them on each file or language."""
    rows: list[dict[str, Any]] = list(comparison["rows"])
    several = len(rows) > 2
    for group, own in (comparison.get("groups") or {}).items():
        for row in own[1:]:
            name = f"{group}, {row['method']}" if several else str(group)
            rows.append({**row, "method": name})
    return rows
