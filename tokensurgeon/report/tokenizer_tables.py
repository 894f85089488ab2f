"""Two tokenizers side by side, and a vocabulary that was trained, on a terminal and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tokensurgeon.report import words
from tokensurgeon.report.tables import say

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from tokensurgeon.alignment import Alignment
    from tokensurgeon.trainers import CountTables, TrainedVocabulary

FACTS = {
    "model": "model",
    "pre_tokenizer": "pre-tokenizer",
    "normalizer": "normaliser",
    "numbers": "digit runs",
    "prefix_space": "space before a text",
    "lower_cases": "lower-cases",
    "byte_coverage": "byte values it can write",
    "lossless": "gives text back",
    "gguf": "llama.cpp calls it",
}
"""What is said of how each tokenizer cuts text, by the keys of `Vocabulary.segmentation`."""
LISTED_CONTROLS = 12
"""Unmatched controls that are named: a few lines, where vocabularies reserve hundreds."""


def print_alignment(
    console: Console,
    alignment: Alignment,
    on_text: Mapping[str, float] | None,
    missing: Sequence[Mapping[str, Any]],
) -> None:
    """Print what two tokenizers share, how each cuts text, examples of missing tokens, warnings.

    `on_text` and `missing` are what `tokensurgeon.inspection.tokenizer_pair` returns.
    """
    console.print(_counts_table(alignment))
    console.print(_facts_table(alignment, on_text))
    if on_text is not None:
        say(
            console,
            f"Of the {on_text['source_boundaries']:,} places where the source parts two tokens of "
            f"this text, the target parts {100 * on_text['boundary_share']:.1f} % too. Of the "
            f"{on_text['target_boundaries']:,} where the target does, the source knows "
            f"{100 * on_text['known_boundary_share']:.1f} %: elsewhere shared tokens begin where "
            "the source never saw one begin, and no new row mends that. Of two targets the one "
            "with the higher share loses less as a rule.",
        )
    if missing:
        say(console, f"Missing, for example: {', '.join(example['text'] for example in missing)}")
    unmatched = alignment.unmatched_controls
    if len(unmatched):
        named = [alignment.target.spellings[i] or "" for i in unmatched[:LISTED_CONTROLS]]
        more = len(unmatched) - len(named)
        tail = f" and {more} more" if more else ""
        listed = f"{', '.join(named)}{tail}"
        say(console, f"Unmatched controls: {listed} (--map TARGET=SOURCE names a match)")
    say(console, *(f"Warning: {warning}" for warning in alignment.warnings))


def alignment_data(
    alignment: Alignment,
    on_text: Mapping[str, float] | None,
    missing: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Return the same as JSON values."""
    target = alignment.target
    return {
        **alignment.summary(),
        "segmentation": {
            "source": alignment.source.segmentation,
            "target": target.segmentation,
        },
        "text": on_text,
        "missing_examples": missing,
        "unmatched_control_spellings": [target.spellings[i] for i in alignment.unmatched_controls],
        "duplicate_examples": {
            duplicates.side: [
                {"bytes": data.hex(), "ids": ids} for data, ids in duplicates.examples
            ]
            for duplicates in alignment.duplicates
        },
    }


def _counts_table(alignment: Alignment) -> Table:
    """Return the table of what became of the target's ids."""
    from rich.table import Column, Table

    summary = alignment.summary()
    columns = ("", Column(justify="right"), "")
    table = Table(*columns, title=_title(alignment), title_justify="left", show_header=False)

    def count(name: str, n: int, meaning: str) -> None:
        table.add_row(name, f"{n:,}", meaning)

    share = f"{100 * summary['share_of_text_tokens']:.1f} % of the target's text tokens"
    count("shared", summary["shared"], share)
    for name, meaning in words.MATCHES.items():
        if summary["by_match"].get(name):
            count(f"  {name}", summary["by_match"][name], meaning)
    count("missing", summary["missing"], "new rows are to be made")
    count("unmatched controls", summary["unmatched_controls"], "markers, reserved")
    if summary["padding"]:
        count("holes", summary["padding"], "ids without a token")
    for duplicates in alignment.duplicates:
        if duplicates.count:
            meaning = "byte strings that several ids stand for"
            count(f"duplicates, {duplicates.side}", duplicates.count, meaning)
    if summary["collisions"]:
        count("collisions", summary["collisions"], "source rows that several target ids have")
    return table


def _title(alignment: Alignment) -> str:
    """Return one line that says what the two are to each other."""
    if alignment.is_identity:
        return "One vocabulary: the same tokens under the same ids"
    if alignment.is_permutation:
        return "One vocabulary: the same tokens under other ids"
    return f"{alignment.n_source:,} source rows, {alignment.n_target:,} target rows"


def _facts_table(alignment: Alignment, on_text: Mapping[str, float] | None) -> Table:
    """Return the table of how each side cuts text."""
    from rich.table import Table

    table = Table("", "source", "target")
    sides = (alignment.source.segmentation, alignment.target.segmentation)
    for key, label in FACTS.items():
        table.add_row(label, *(_cell(facts[key]) for facts in sides))
    if on_text is not None:
        values = (on_text[f"{side}_bytes_per_token"] for side in ("source", "target"))
        table.add_row("bytes per token", *(f"{value:.3f}" for value in values))
        shares = {
            "documents that lose text": ("source_lossy_share", "target_lossy_share"),
            "tokens of it that are shared": (None, "shared_token_share"),
            "boundaries the other has": ("boundary_share", "known_boundary_share"),
        }
        for label, keys in shares.items():
            table.add_row(label, *(f"{100 * on_text[key]:.1f} %" if key else "" for key in keys))
    return table


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(value) or "none"
    return "–" if value is None else str(value)


def print_trained(console: Console, trained: TrainedVocabulary) -> None:
    """Print the figures of a vocabulary that was trained, and where it is."""
    from rich.markup import escape
    from rich.table import Table

    from tokensurgeon.trainers.vocabulary_card import figure_lines

    corpus = trained.corpus
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_row("tokens", f"{trained.size:,}")
    for name, value in figure_lines(trained.settings, trained.figures):
        table.add_row(name, value)
    table.add_row("text", f"{corpus['documents']:,} documents, {corpus['bytes']:,} bytes")
    if corpus.get("replaced_characters"):
        table.add_row("not UTF-8", f"{corpus['replaced_characters']:,} characters replaced")
    for control, count in corpus.get("control_strings", {}).items():
        table.add_row("ends of documents", f"{count:,} {escape(control)} in the text")
    for name, count in corpus.get("dropped_occurrences", {}).items():
        if count:
            table.add_row("dropped for memory", f"{count:,} occurrences of rare {name}")
    for name, left_out in corpus.get("left_out", {}).items():
        if "one_in" in left_out:
            table.add_row(f"rare {name}", f"1 in {left_out['one_in']:,} read, for all")
        else:
            at_most = f"{left_out['pair_too_low_by']:,} too low at most, for {name} left out"
            table.add_row("counts of pairs", at_most)
    table.add_row("written to", str(trained.path))
    console.print(table)
    console.print(
        "Fewer tokens is not a better model: the report of a transplant says what a vocabulary "
        "costs.",
        style="dim",
    )


def print_counts(console: Console, counts: CountTables) -> None:
    """Print what tables of counts hold, and where they are."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("table", "part", "segments", "occurrences"):
        table.add_column(name, justify="left" if name in ("table", "part") else "right")
    for name, facts in counts.tables.items():
        for part, rows, n in zip(counts.counted.parts, facts.rows, facts.occurrences, strict=True):
            table.add_row(name, part, f"{rows:,}", f"{n:,}")
    console.print(table)
    counted = counts.counted
    console.print(
        f"{sum(counted.n_documents):,} documents, {sum(counted.n_bytes):,} bytes counted; "
        f"{words.count(sum(map(len, counted.held_out.values())), 'document')} held out"
    )
    for name, facts in counts.tables.items():
        if facts.dropped:
            console.print(
                f"{facts.dropped:,} occurrences of rare {name} were dropped: a count is at most "
                f"{facts.bound:,} too low"
            )
    console.print(f"written to {counts.path}")
