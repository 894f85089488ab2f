"""What goes to other programs, on a terminal: a projection that was written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tokensurgeon.report.tables import say

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
