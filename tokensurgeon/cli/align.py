"""``tokensurgeon align``: what two tokenizers share, what is missing, where they disagree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from tokensurgeon.cli import console
from tokensurgeon.cli.recipe_options import export_map_option, map_option

if TYPE_CHECKING:
    from rich.table import Table

    from tokensurgeon.alignment import Alignment

MATCHES = {
    "exact": "bytes, kind and spelling equal",
    "byte": "bytes equal",
    "control": "a control of the same spelling or role",
    "normalised": "equal once the source has normalised it",
    "map": "named by --map",
}
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


@click.command(short_help="What two tokenizers share, and what is missing.")
@click.argument("source")
@click.argument("target")
@map_option
@click.option(
    "--text",
    "texts",
    multiple=True,
    metavar="FILE",
    help="Text on which to compare how the two cut; may be repeated.",
)
@click.option(
    "--examples",
    type=click.IntRange(min=0),
    default=12,
    show_default=True,
    help="Missing tokens to show.",
)
@export_map_option
@console.json_option
def command(
    source: str,
    target: str,
    map: dict[str, str],
    texts: tuple[str, ...],
    examples: int,
    export_map: str | None,
    as_json: bool,
) -> None:
    """Align the tokenizer TARGET with the tokenizer SOURCE, by exact bytes.

    Each is a folder with a tokenizer, its file, or a model on the hub. Nothing is written
    but the map that --export-map names.
    """
    from tokensurgeon.alignment import align
    from tokensurgeon.vocabulary import load_vocabulary

    alignment = align(load_vocabulary(source), load_vocabulary(target), map)
    if export_map is not None:
        from tokensurgeon.surgery.prepare import spell
        from tokensurgeon.surgery.token_map import check_map_path, write_token_map

        check_map_path(export_map)
        write_token_map(alignment, spell(alignment, alignment.source.n_rows)[0], export_map)
    on_text = measure(alignment, texts) if texts else None
    missing = example_tokens(alignment, examples)
    if as_json:
        console.write_json(as_data(alignment, on_text, missing))
        return
    out = console.stdout()
    out.print(counts_table(alignment))
    out.print(facts_table(alignment, on_text))
    if on_text is not None:
        out.print(cuts(on_text), markup=False, soft_wrap=True)
    if missing:
        shown = ", ".join(each["text"] for each in missing)
        out.print(f"Missing, for example: {shown}", markup=False, soft_wrap=True)
    controls = [alignment.target.spellings[i] or "" for i in alignment.unmatched_controls[:12]]
    if controls:
        more = len(alignment.unmatched_controls) - len(controls)
        tail = f" and {more} more" if more else ""
        out.print(
            f"Unmatched controls: {', '.join(controls)}{tail} (--map TARGET=SOURCE names a match)",
            markup=False,
            soft_wrap=True,
        )
    for warning in alignment.warnings:
        out.print(f"Warning: {warning}", markup=False, soft_wrap=True)


def measure(alignment: Alignment, files: tuple[str, ...]) -> dict[str, float]:
    """Return what the two tokenizers do to a text: boundaries kept, bytes per token, loss.

    `source_boundaries` and `target_boundaries` count the places inside documents where each parts
    two tokens; `boundary_share` is the share of the source's that the target keeps,
    `known_boundary_share` the share of the target's that the source has, `boundary_agreement`
    those in common over those of either. `shared_token_share` is the share of the target's tokens
    on the text that the source has.
    """
    import numpy as np

    from tokensurgeon.evaluation.boundaries import boundaries
    from tokensurgeon.text.corpus import read_documents

    documents = [document.text for document in read_documents(list(files))]
    cuts = boundaries(alignment.source, alignment.target, documents)
    figures: dict[str, float] = {
        "source_boundaries": cuts.source,
        "target_boundaries": cuts.target,
        "boundary_share": cuts.kept,
        "known_boundary_share": cuts.known,
        "boundary_agreement": cuts.agreement,
    }
    for side, vocabulary in (("source", alignment.source), ("target", alignment.target)):
        encodings = vocabulary.encode_many(documents)
        n_tokens = sum(len(each) for each in encodings)
        n_bytes = sum(each.n_bytes for each in encodings)
        figures["n_bytes"] = n_bytes
        if side == "target":
            missing = np.zeros(vocabulary.n_rows, dtype=bool)
            missing[alignment.missing] = True
            n_missing = sum(int(missing[each.ids].sum()) for each in encodings)
            figures["shared_token_share"] = 1 - n_missing / n_tokens if n_tokens else 1.0
        figures[f"{side}_bytes_per_token"] = n_bytes / n_tokens if n_tokens else 0.0
        lossy = sum(not each.lossless for each in encodings)
        figures[f"{side}_lossy_share"] = lossy / len(encodings) if encodings else 0.0
    return figures


def example_tokens(alignment: Alignment, n: int) -> list[dict[str, Any]]:
    """Return some missing tokens, evenly over the ids, each with the source's pieces."""
    ids = alignment.missing
    chosen = ids[:: max(1, len(ids) // n)][:n].tolist() if n and len(ids) else []
    found = []
    for i in chosen:
        data = alignment.target.token_bytes[i] or b""
        pieces = alignment.source.pieces_of(data)
        found.append(
            {
                "id": i,
                "text": show(data),
                "pieces": None
                if pieces is None
                else [show(alignment.source.token_bytes[p] or b"") for p in pieces],
            }
        )
    return found


def show(data: bytes) -> str:
    """Return bytes as quoted text, or as hexadecimal where they are not whole UTF-8."""
    try:
        return repr(data.decode("utf-8"))
    except UnicodeDecodeError:
        return f"0x{data.hex()}"


def as_data(
    alignment: Alignment, on_text: dict[str, float] | None, missing: list[dict[str, Any]]
) -> dict[str, Any]:
    """Return everything as JSON values."""
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
            each.side: [{"bytes": data.hex(), "ids": ids} for data, ids in each.examples]
            for each in alignment.duplicates
        },
    }


def counts_table(alignment: Alignment) -> Table:
    """Return the table of what became of the target's ids."""
    from rich.table import Table

    summary = alignment.summary()
    table = Table(title=title(alignment), title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_column()
    share = f"{100 * summary['share_of_text_tokens']:.1f} % of the target's text tokens"
    table.add_row("shared", f"{summary['shared']:,}", share)
    for name, meaning in MATCHES.items():
        count = summary["by_match"][name]
        if count:
            table.add_row(f"  {name}", f"{count:,}", meaning)
    table.add_row("missing", f"{summary['missing']:,}", "new rows are to be made")
    table.add_row("unmatched controls", f"{summary['unmatched_controls']:,}", "markers, reserved")
    if summary["padding"]:
        table.add_row("holes", f"{summary['padding']:,}", "ids without a token")
    for each in alignment.duplicates:
        if each.count:
            meaning = "byte strings that several ids stand for"
            table.add_row(f"duplicates, {each.side}", f"{each.count:,}", meaning)
    if summary["collisions"]:
        meaning = "source rows that several target ids have"
        table.add_row("collisions", f"{summary['collisions']:,}", meaning)
    return table


def title(alignment: Alignment) -> str:
    """Return one line that says what the two are to each other."""
    if alignment.is_identity:
        return "One vocabulary: the same tokens under the same ids"
    if alignment.is_permutation:
        return "One vocabulary: the same tokens under other ids"
    return f"{alignment.n_source:,} source rows, {alignment.n_target:,} target rows"


def facts_table(alignment: Alignment, on_text: dict[str, float] | None) -> Table:
    """Return the table of how each side cuts text."""
    from rich.table import Table

    table = Table("", "source", "target")
    sides = (alignment.source.segmentation, alignment.target.segmentation)
    for key, label in FACTS.items():
        table.add_row(label, *(_cell(facts[key]) for facts in sides))
    if on_text is not None:
        values = (on_text[f"{side}_bytes_per_token"] for side in ("source", "target"))
        table.add_row("bytes per token", *(f"{value:.3f}" for value in values))
        values = (on_text[f"{side}_lossy_share"] for side in ("source", "target"))
        table.add_row("documents that lose text", *(f"{100 * value:.1f} %" for value in values))
        shared = f"{100 * on_text['shared_token_share']:.1f} %"
        table.add_row("tokens of it that are shared", "", shared)
        kept, known = on_text["boundary_share"], on_text["known_boundary_share"]
        table.add_row("boundaries the other has", f"{100 * kept:.1f} %", f"{100 * known:.1f} %")
    return table


def cuts(on_text: dict[str, float]) -> str:
    """Say what the shares of boundaries mean."""
    return (
        f"Of the {on_text['source_boundaries']:,} places where the source parts two tokens of this "
        f"text, the target parts {100 * on_text['boundary_share']:.1f} % too. Of the "
        f"{on_text['target_boundaries']:,} where the target does, the source knows "
        f"{100 * on_text['known_boundary_share']:.1f} %: elsewhere shared tokens begin where the "
        "source never saw one begin, and no new row mends that. Of two targets the one with the "
        "higher share loses less as a rule."
    )


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(value) or "none"
    return "–" if value is None else str(value)
