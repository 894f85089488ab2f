"""Evaluations, drafts and trained limits as tables on a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from tokensurgeon.report import span_tables, words
from tokensurgeon.report.checkpoint_tables import short_names
from tokensurgeon.report.tables import figures_table, say

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from tokensurgeon.checkpoint.draft_engines import EngineRule
    from tokensurgeon.evaluation import DraftResult, EntryResult, Evaluation, Part

ENDED_ABOVE = (
    "the training ended above the rows that it began with: what it learnt of the calibration text "
    "does not carry over to the text measured on, so this is no limit"
)


def print_evaluation(console: Console, evaluation: Evaluation) -> None:
    """Print the figures of each model, those of the last by kind of token, and notes."""
    console.print(_figures(evaluation))
    entry = evaluation.entries[-1]
    if any(one.exact_bytes for one in evaluation.entries):
        console.print(_exact_bytes(evaluation.entries))
    if entry.by_match:
        console.print(_parts("tokens that the first has, or lacks", entry.by_match))
    if entry.by_span:
        console.print(_spans(evaluation.entries[0].name, entry))
    if entry.by_kind:
        console.print(_parts("by kind of token", entry.by_kind))
    say(console, *_notes(evaluation))


def _figures(evaluation: Evaluation) -> Table:
    from rich.table import Column, Table
    from rich.text import Text

    entries = evaluation.entries
    short = [PurePath(entry.name).name or entry.name for entry in entries]
    shown = [n if short.count(n) == 1 else e.name for e, n in zip(entries, short, strict=True)]
    columns = (Column(Text(name, overflow="fold"), justify="right") for name in shown)
    table = Table("", *columns, box=None, pad_edge=False)
    rows = [
        ("bits per byte", [words.number(entry.bits_per_byte, 4) for entry in entries]),
        ("above the first", [_difference(entry) for entry in entries]),
        ("perplexity per token", [words.number(entry.perplexity, 2) for entry in entries]),
        ("perplexity ratio", [words.number(entry.perplexity_ratio, 3) for entry in entries]),
        ("bytes per token", [words.number(entry.bytes_per_token, 3) for entry in entries]),
        ("bits per digit", [_per_digit(entry) for entry in entries]),
        ("bytes", [f"{entry.n_bytes:,}" for entry in entries]),
    ]
    if any(entry.n_lost for entry in entries):
        rows.append(("chunks not comparable", [f"{entry.n_lost:,}" for entry in entries]))
    written = [entry.generation for entry in entries]
    bytes_per_token = [words.number(one.bytes_per_token, 3) if one else "–" for one in written]
    canonical = [f"{one.non_canonical_tokens:.1%}" if one else "–" for one in written]
    rows += [("bytes per token, generated", bytes_per_token), ("tokens not canonical", canonical)]
    for name, cells in rows:
        if any(cell != "–" for cell in cells):
            table.add_row(name, *cells)
    return table


def _difference(entry: EntryResult) -> str:
    gap = entry.difference
    return "–" if gap is None else f"{gap.estimate:+.4f} ({gap.low:+.4f} to {gap.high:+.4f})"


def _per_digit(entry: EntryResult) -> str:
    return words.number(entry.numbers.bits_per_digit if entry.numbers else None, 4)


def _parts(title: str, parts: dict[str, Part]) -> Table:
    table = figures_table(title, "bits per byte", "tokens", "nats per token")
    for name, part in parts.items():
        table.add_row(
            name, f"{part.bits_per_byte:.4f}", f"{part.tokens:,}", f"{part.mean_nats:.3f}"
        )
    return table


def _exact_bytes(entries: Sequence[EntryResult]) -> Table:
    table = figures_table("exact bytes", "exact", "at most", "canonical", "gap", "bytes", "covers")
    for entry in entries:
        one = entry.exact_bytes
        if one is not None:
            figures = (one.bits_per_byte, one.at_most, one.canonical, one.gap)
            cells = [f"{figure:.4f}" for figure in figures]
            name = PurePath(entry.name).name or entry.name
            table.add_row(name, *cells, f"{one.n_bytes:,}", f"{one.mean_covers:.1f}")
    return table


def _spans(first: str, entry: EntryResult) -> Table:
    source, name = short_names([first, entry.name])
    entries = [{**entry.to_dict(), "name": name}]
    names, *columns = span_tables.headings(entries), *span_tables.rows(entries, source)
    table = figures_table("how tokens stand to the first's", *(column[0] for column in columns))
    for name, *cells in zip(names, *(column[1:] for column in columns), strict=True):
        table.add_row(name, *cells)
    return table


def _notes(evaluation: Evaluation) -> list[str]:
    from tokensurgeon.checkpoint.embeddings import CAUSAL
    from tokensurgeon.evaluation.model_kinds import PROTOCOLS

    notes = [
        f"{words.count(evaluation.n_documents, 'document')}, "
        f"{words.count(evaluation.n_chunks, 'chunk')} of at most "
        f"{evaluation.chunk_bytes:,} bytes, {words.count(evaluation.n_bytes, 'byte')}"
    ]
    if evaluation.n_replaced:
        notes.append(
            f"{evaluation.n_replaced:,} characters of the text that was read are not UTF-8 and "
            "count as U+FFFD"
        )
    if evaluation.n_too_long:
        notes.append(
            f"{evaluation.n_too_long:,} chunks have too many tokens for a model and are left out "
            "for all"
        )
    if evaluation.kind != CAUSAL:
        notes.append(PROTOCOLS[evaluation.kind])
    elif evaluation.n_left_out_bytes:
        notes.append(
            f"{evaluation.n_left_out_bytes:,} bytes at the start of chunks are left out for all: "
            "a model has neither BOS nor EOS"
        )
    for entry in evaluation.entries:
        if entry.n_lost:
            notes.append(
                f"{entry.name} loses text on {words.count(entry.n_lost, 'chunk')}: not comparable "
                "there, and not to be ranked"
            )
    return [*notes, *evaluation.notes]


def print_draft(console: Console, draft: DraftResult) -> None:
    """Print what is accepted of a draft, and of what needs no surgery."""
    cut = draft.cut_head
    of_cut = {} if cut is None else {f"head cut to {cut.n_kept:,}": cut.accepted}
    written = {} if draft.written is None else {"written by itself": draft.written}
    for name, one in {"": draft, **of_cut, **written, **draft.without_surgery}.items():
        heading = f"{name}: drafted at once" if name else "drafted at once"
        table = figures_table(heading, "accepted, sampling", "accepted, greedy", "tokens a pass")
        table.add_row("0", "", "", "1.00 … 1.00")
        for n, accepted in one.accepted.items():
            greedy = one.accepted_greedy[n]
            passes = f"{1 + accepted:.2f} … {1 + greedy:.2f}"
            table.add_row(str(n), f"{accepted:.2f}", f"{greedy:.2f}", passes)
        console.print(table)
        console.print(
            f"acceptance {one.acceptance:.1%} by sampling, {one.agreement:.1%} greedy, at "
            f"{one.n_positions:,} places of {draft.n_bytes:,} bytes"
        )
    if cut is not None:
        console.print(
            f"a drafted token takes {1000 * cut.whole_seconds:.1f} ms, and "
            f"{1000 * cut.cut_seconds:.1f} ms with the cut head"
        )
    print_engines(console, draft.engines)


def print_engines(console: Console, engines: Sequence[EngineRule]) -> None:
    """Print a line for each engine: whether it takes a draft, and by which rule."""
    for engine in engines:
        said = "takes the draft" if engine.broken is None else f"does not: {engine.broken}"
        say(console, f"{engine.engine}: {said} (its rule: {engine.rule})")


def print_limit(console: Console, limit: Mapping[str, Any]) -> None:
    """Print the trained limit of a pair, beside the source as it was and as it was trained.

    `limit` is what `tokensurgeon trained-limit` gives as JSON.
    """
    table = figures_table("", "bits per byte", "gap", "gap, adapted", "closed")
    recoverable = limit["start"] > limit["limit"]
    alike = [("source, trained alike", "source_trained", "")] if limit["source_training"] else []
    for name, key, closed in (
        ("source", "source", ""),
        *alike,
        (f"start ({limit['start_method']})", "start", "0%"),
        (f"before training ({'/'.join(limit['trained_from'])})", "before", ""),
        ("trained limit", "limit", "100%"),
    ):
        bits = limit[key]
        gaps = (bits - limit["source"], bits - limit["source_trained"])
        cells = (f"{bits:.4f}", *(f"{gap:+.4f}" for gap in gaps), closed if recoverable else "")
        table.add_row(name, *cells)
    console.print(table)
    for name in ("target", "source") if alike else ("target",):
        training = limit[f"{name}_training"]
        end = "the loss falls no further" if training["converged"] else "the time or the text is up"
        console.print(
            f"{name}: {training['n_tokens']:,} tokens in {training['cpu_seconds']:.0f} s of "
            f"processor time; {end}"
        )
    if limit["limit"] > limit["before"]:
        say(console, ENDED_ABOVE)
    say(console, *limit["facts"]["notes"])


def print_network(console: Console, card: Mapping[str, Any]) -> None:
    """Print the steps in which a hypernetwork was trained, and which were kept."""
    table = figures_table(
        "step", "error on held-out tokens", "bits per byte", "steps", "seconds", ""
    )
    for stage in card["rungs"]:
        bits = stage["bits_per_byte"]
        table.add_row(
            stage["name"],
            f"{stage['held_out']:.4f}",
            "" if bits is None else f"{bits:.4f}",
            f"{stage['steps']:,}" if stage["steps"] else "",
            f"{stage['seconds']:.1f}",
            "kept" if stage["kept"] else "no better",
        )
    console.print(table)
