"""``tokensurgeon align``: what two tokenizers share, what is missing, where they disagree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import click

from tokensurgeon.cli import console
from tokensurgeon.cli.recipe_options import export_map_option, map_option

if TYPE_CHECKING:
    from tokensurgeon.alignment import Alignment

RULES = ("mean", "bytes", "first", "last", "decay")
"""Those of `tokensurgeon.handover.projection`, which imports too much for a help page."""


@click.command(short_help="What two tokenizers share, and what is missing.")
@click.argument("source")
@click.argument("target")
@map_option
@console.option(
    "--text FILE",
    "Text on which to compare how the two cut; may be repeated.",
    "texts",
    multiple=True,
)
@console.option("--examples N", "Missing tokens to show.", type=console.COUNT, default=12)
@export_map_option
@console.option(
    "--export-projection FILE",
    "Write how tokens of one vocabulary stand for those of the other: .npz, .safetensors, .pt for "
    "X-Token, .json for GOLD.",
)
@console.option(
    "--projection-rows",
    "Whose tokens are the rows of the projection; each is written over tokens of the other.",
    type=click.Choice(("target", "source")),
    default="target",
)
@console.option(
    "--projection-rule",
    "How the pieces of a token that the other lacks are weighed: alike, by their bytes, the first "
    "or the last alone, or each a tenth of the one before.",
    type=click.Choice(RULES),
    default="mean",
)
@console.option("--top-k K", "Weights that a row of the projection keeps.", type=console.AT_LEAST_1)
@console.option(
    "--weights-of DIR",
    "A checkpoint that was transplanted from SOURCE to TARGET: the projection has the weights that "
    "its rows were made with in the place of the rule's.",
)
@console.option(
    "--weights-side",
    "Of which side of DIR.",
    type=click.Choice(("input", "output")),
    default="input",
)
@console.json_option
def command(
    source: str,
    target: str,
    map: dict[str, str],
    texts: tuple[str, ...],
    examples: int,
    export_map: str | None,
    export_projection: str | None,
    projection_rows: str,
    projection_rule: str,
    top_k: int | None,
    weights_of: str | None,
    weights_side: Literal["input", "output"],
    as_json: bool,
) -> None:
    """Align the tokenizer TARGET with the tokenizer SOURCE, by exact bytes.

    Each is a folder with a tokenizer, its file, or a model on the hub. Nothing is written
    but the files that --export-map and --export-projection name.
    """
    if export_projection is None:
        console.of_no_use(
            "--export-projection", "projection_rows", "projection_rule", "top_k", "weights_of"
        )
    if weights_of is None:
        console.of_no_use("--weights-of", "weights_side")
    if weights_of is not None and projection_rows == "source":
        raise click.UsageError(
            "--weights-of has a row for each token of TARGET: leave out --projection-rows source"
        )
    from tokensurgeon.alignment import align
    from tokensurgeon.inspection.tokenizer_pair import missing_examples, pair_on_text
    from tokensurgeon.report.token_map import check_map_path, write_token_map
    from tokensurgeon.report.tokenizer_tables import alignment_data, print_alignment
    from tokensurgeon.vocabulary import load_vocabulary

    if export_map is not None:
        check_map_path(export_map)
    if export_projection is not None:
        from tokensurgeon.handover.projection_files import check_projection_path

        read = (source, target, *([] if weights_of is None else [weights_of]))
        check_projection_path(export_projection, read)
    alignment = align(load_vocabulary(source), load_vocabulary(target), map)
    if export_map is not None:
        from tokensurgeon.surgery.prepare import spell

        write_token_map(alignment, spell(alignment, alignment.source.n_rows)[0], export_map)
    projection: dict[str, Any] = {}
    if export_projection is not None:
        rows = alignment
        if projection_rows == "source":
            from tokensurgeon.handover.projection import inverted

            rows = align(alignment.target, alignment.source, inverted(map))
        projection = _write_projection(
            rows, export_projection, projection_rule, top_k, weights_of, weights_side
        )
    on_text = pair_on_text(alignment, texts) if texts else None
    missing = missing_examples(alignment, examples)
    facts = (alignment, on_text, missing)
    data = alignment_data(*facts)
    if projection:
        data["projection"] = projection
    console.write_result(as_json, data, print_alignment, *facts)
    if projection and not as_json:
        from tokensurgeon.report.handover_tables import print_projection

        print_projection(console.stdout(), projection)


def _write_projection(
    alignment: Alignment,
    file: str,
    rule: str,
    top_k: int | None,
    weights_of: str | None,
    side: Literal["input", "output"],
) -> dict[str, Any]:
    """Write the projection whose rows are the alignment's target; return what it says of itself."""
    from tokensurgeon.handover.projection import project, recorded_weights
    from tokensurgeon.handover.projection_files import write_projection
    from tokensurgeon.surgery.prepare import spell

    records = None if weights_of is None else recorded_weights(weights_of, alignment, side)
    pieces = spell(alignment, alignment.source.n_rows)[0]
    projection = project(alignment, pieces, rule, top_k, records)
    written = write_projection(projection, file)
    return {"file": file, "bytes": written.stat().st_size, **projection.facts()}
