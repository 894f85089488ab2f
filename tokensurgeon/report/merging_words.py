"""What merging tokens at run time does to a text, on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokensurgeon.report import words
from tokensurgeon.report.merging_facts import MergingFacts
from tokensurgeon.report.tables import figures_table, say

if TYPE_CHECKING:
    from rich.console import Console

INSIDE = {"frequency": "inside words", "identifiers": "of identifiers", "meaning": "inside lines"}
"""Where each policy merges."""


def print_merging(console: Console, facts: MergingFacts) -> None:
    """Print lengths, the loss by method of rows, and times."""
    say(
        console,
        f"{facts.checkpoint} ({facts.kind}), policy {facts.policy}, positions {facts.positions}",
        f"read: {words.count(facts.n_texts, 'text')} ({words.size(facts.n_bytes)}) in "
        f"{words.count(facts.n_batches, 'batch', 'batches')}",
        f"tokens: {facts.tokens_before:,} before, {facts.tokens_after:,} after: "
        f"{100 * facts.saving:.1f} % saved {INSIDE[facts.policy]} by {facts.n_merges:,} merges, "
        f"{facts.n_merged:,} merged tokens",
        "",
    )
    if facts.bits_plain is not None:
        table = figures_table(
            "rows", "bits/byte", "above plain", "rows made", "ms/row", "ms/row, kept"
        )
        table.add_row("plain", f"{facts.bits_plain:.4f}", "–", "–", "–", "–")
    else:
        table = figures_table(
            "rows", "drift", "same nearest", "rows made", "ms/row", "ms/row, kept"
        )
    for row in facts.rows:
        each = 1e3 / max(1, row.n_rows)
        if row.bits_per_byte is not None and facts.bits_plain is not None:
            figures = [f"{row.bits_per_byte:.4f}", f"{row.bits_per_byte - facts.bits_plain:+.4f}"]
        else:
            figures = [
                "–" if row.drift is None else f"{row.drift:.4f}",
                "–" if row.same_nearest is None else f"{100 * row.same_nearest:.0f} %",
            ]
        made, kept = f"{each * row.seconds_made:.3g}", f"{each * row.seconds_kept:.3g}"
        table.add_row(row.name, *figures, f"{row.n_rows:,}", made, kept)
    console.print(table)
    say(
        console,
        "",
        f"{facts.clock} time: forward pass {facts.seconds_plain:.2f} s plain, "
        f"{facts.seconds_merged:.2f} s merged: {100 * facts.time_saved:.0f} % saved; merging took "
        f"{facts.seconds_merging:.3f} s, {100 * facts.merging_share:.1f} % of the plain pass",
    )
