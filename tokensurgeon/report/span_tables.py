"""The loss by how tokens stand to the source's tokens, as a table and in one line.

What is read here is the ``by_span`` of the entries of an evaluation (`evaluation.span_relations`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tokensurgeon.report import words

ONE = "one source token"
"""The only relation for which tables show what rows lose on the source's states.

The others have it in JSON: on its own it says what is wrong only where the source wrote this token.
"""
ON_STATES = "on the source's states"
IN_PARTS = ("first part", "inside")
"""Relations that share the loss of one source token."""


def headings(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the headings over `rows`; empty where no entry has the split."""
    found: dict[str, None] = {}
    for part in (part for entry in entries for part in entry.get("by_span") or ()):
        found[part["relation"]] = None
        if part["relation"] == ONE:
            found[ON_STATES] = None
    return list(found)


def rows(entries: Sequence[Mapping[str, Any]], source: str = "source") -> list[list[str]]:
    """Return the lines of a table: tokens, share of bytes and the source's loss, then each model.

    `source` is what the table calls the model whose tokens they are related to.

    The first cell of each is its name. The first three are of the first model that has the split;
    models of one table that have it have one tokenizer.
    """
    columns = headings(entries)
    split = [
        (entry["name"], {part["relation"]: part for part in entry["by_span"]})
        for entry in entries
        if entry.get("by_span")
    ]
    if not split:
        return []

    def line(name: str, cells: Mapping[str, str]) -> list[str]:
        return [name, *(cells.get(column, "") for column in columns)]

    first = split[0][1]
    lines = [
        line("tokens", {name: f"{part['tokens']:,}" for name, part in first.items()}),
        line(
            "share of bytes", {name: f"{100 * part['share']:.1f} %" for name, part in first.items()}
        ),
        line(
            source,
            {name: words.number(p["source_bits_per_byte"], 4) for name, p in first.items()},
        ),
    ]
    for name, parts in split:
        cells = {key: words.number(part["bits_per_byte"], 4) for key, part in parts.items()}
        if ONE in parts:
            cells[ON_STATES] = words.number(parts[ONE]["on_source_states"], 4)
        lines.append(line(name, cells))
    return lines


def in_short(entry: Mapping[str, Any] | None) -> str | None:
    """Say an entry's split on one line; None where it has none."""
    parts = {part["relation"]: part for part in (entry or {}).get("by_span") or ()}
    if not parts:
        return None

    def said(name: str, *relations: str, more: str = "") -> str | None:
        found = [parts[key] for key in relations if key in parts]
        if not found:
            return None
        patched, source = (
            words.number(sum(part[key] for part in found), 4)
            for key in ("bits_per_byte", "source_bits_per_byte")
        )
        return f"{name} {patched} (source {source}{more})"

    on_states = parts.get(ONE, {}).get("on_source_states")
    more = "" if on_states is None else f", these rows on its states {words.number(on_states, 4)}"
    listed = [
        said(ONE, ONE, more=more),
        said("parts of one", *IN_PARTS),
        said("longer", "longer"),
    ]
    return f"Bits per byte of tokens that are {', '.join(one for one in listed if one)}"
