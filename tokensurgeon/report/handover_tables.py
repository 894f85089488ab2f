"""What goes to other programs, on a terminal: a projection that was written, a push."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tokensurgeon.report.tables import figures_table, say

if TYPE_CHECKING:
    from rich.console import Console


def print_projection(console: Console, facts: Mapping[str, Any]) -> None:
    """Print what `Projection.facts` says, with the ``file`` and its ``bytes``."""
    lines = [
        f"Projection: {facts['rows']:,} rows over {facts['columns']:,} columns, "
        f"{facts['weights']:,} weights, at most {facts['widest_row']:,} in a row; "
        f"{facts['matched']:,} rows are one token of the other vocabulary, "
        f"{facts['empty_rows']:,} are empty. {facts['file']}: {facts['bytes']:,} bytes"
    ]
    if facts["from_records"]:
        lines.append(
            f"{facts['from_records']:,} rows have the weights of the checkpoint, "
            f"{facts['fallback']:,} those of the rule '{facts['rule']}': nothing positive is "
            f"recorded for them. Negative weights are left out, at most "
            f"{100 * facts['dropped']:.0f} % of a row"
        )
    say(console, *lines)


def print_push(console: Console, facts: Mapping[str, Any]) -> None:
    """Print what of a checkpoint goes where: `PushedCopy.facts`, with ``private`` and the like."""
    table = figures_table("file", "bytes", "")
    changed = set(facts["changed"])
    for name, size in facts["files"].items():
        table.add_row(name, f"{size:,}", "a copy without paths" if name in changed else "")
    table.add_row(f"{len(facts['files'])} files", f"{facts['bytes']:,}", "")
    console.print(table)
    kind = "private" if facts["private"] else "public"
    where = f"repository     {facts['repository']}, {kind} if it is made anew"
    if facts["branch"]:
        where += f"; branch {facts['branch']}"
    if facts["pull_request"]:
        where += "; as a pull request"
    left_out = ", ".join(facts["left_out"]) or "nothing"
    n_paths = facts["paths_replaced"]
    source = facts["base_model"] or "not known; name it with --base-model, or the card has none"
    licence = f"{facts['license']} ({facts['license_from']})"
    if facts["license"] is None:
        licence = f"not known: {facts['license_from']}; name it with --license"
    say(
        console,
        where,
        f"left out       {left_out}",
        f"paths          {n_paths} of this machine, names in their place" if n_paths else None,
        f"base model     {source}",
        f"licence        {licence}",
    )


def print_pushed(console: Console, pushed: Mapping[str, Any]) -> None:
    """Print what came of a push: the fields of `Pushed`."""
    removed = ", ".join(pushed["removed"])
    say(
        console,
        f"pushed         {pushed['url']}, commit {pushed['commit'][:12]}",
        f"removed there  {removed}; the older commits keep them" if removed else None,
    )
