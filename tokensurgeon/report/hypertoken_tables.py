"""Hypertokens on a terminal: what they save by file, what a training of them gave."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tokensurgeon.report import words
from tokensurgeon.report.tables import figures_table, say

if TYPE_CHECKING:
    from rich.console import Console


MOST_NAMED = 8
"""Files that a line names."""


def print_compression(console: Console, facts: Mapping[str, Any]) -> None:
    """Print what `Compression.to_dict` says."""
    measured = any(one["plain"] is not None for one in facts["files"])
    headings = ["bytes", "tokens", "codes", "shorter", "hypertokens", "share of codes"]
    if measured:
        headings += ["bits per byte", "with hypertokens"]
    table = figures_table("file", *headings)
    for one in facts["files"]:
        cells = [
            f"{one['n_bytes']:,}",
            f"{one['n_ids']:,}",
            f"{one['n_codes']:,}",
            f"{100 * one['saved']:.1f} %",
            f"{one['n_hypertokens']:,}",
            f"{100 * one['n_used'] / one['n_codes']:.1f} %",
        ]
        if measured:
            cells += [f"{one['plain']:.4f}", f"{one['zipped']:.4f}"]
        table.add_row(one["file"], *cells)
    console.print(table)
    lost = sum(one["n_lost"] for one in facts["files"])
    line = (
        f"chunks of at most {facts['context_bytes']:,} bytes, at most "
        f"{facts['max_hypertokens']:,} hypertokens of at most {facts['max_ids']} tokens in each"
    )
    if measured:
        total = sum(one["n_measured"] for one in facts["files"])
        line += f"; bits per byte on {total:,} bytes, rows by {facts['composer']}"
    say(
        console,
        line,
        _not_all(facts),
        f"{lost:,} chunks are left out: the tokenizer loses text on them, or the model has too few "
        "positions"
        if lost
        else None,
    )


def _not_all(facts: Mapping[str, Any]) -> str | None:
    """Say where reading ended, and which files come after that; None where all was read."""
    if facts["max_bytes"] is None:
        return None
    last, rest = facts["files"][-1], facts["not_read"]
    line = f"reading ended after {last['n_read']:,} bytes of {last['file']}"
    if rest:
        line += f"; {words.count(len(rest), 'file')} not read: {', '.join(rest[:MOST_NAMED])}"
    return line + (" …" if len(rest) > MOST_NAMED else "")


def print_composer(console: Console, facts: Mapping[str, Any]) -> None:
    """Print what `train_composer` returns."""
    table = figures_table("bits per byte of held-out text", f"{facts['held_bytes']:,} bytes")
    table.add_row("plain", f"{facts['bits_per_byte_plain']:.4f}")
    table.add_row(f"hypertokens, {facts['start']}", f"{facts['bits_per_byte_before']:.4f}")
    table.add_row("hypertokens, trained", f"{facts['bits_per_byte_after']:.4f}")
    console.print(table)
    lora = f", LoRA of rank {facts['lora_rank']}" if facts["lora_rank"] else ""
    say(console, f"{facts['output']}: {facts['steps']:,} steps on {facts['codes']:,} codes{lora}")
