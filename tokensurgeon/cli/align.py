"""``tokensurgeon align``: what two tokenizers share, what is missing, where they disagree."""

from __future__ import annotations

import click

from tokensurgeon.cli import console
from tokensurgeon.cli.recipe_options import export_map_option, map_option


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
    from tokensurgeon.inspection.tokenizer_pair import missing_examples, pair_on_text
    from tokensurgeon.report.token_map import check_map_path, write_token_map
    from tokensurgeon.report.tokenizer_tables import alignment_data, print_alignment
    from tokensurgeon.vocabulary import load_vocabulary

    if export_map is not None:
        check_map_path(export_map)
    alignment = align(load_vocabulary(source), load_vocabulary(target), map)
    if export_map is not None:
        from tokensurgeon.surgery.prepare import spell

        write_token_map(alignment, spell(alignment, alignment.source.n_rows)[0], export_map)
    on_text = pair_on_text(alignment, texts) if texts else None
    missing = missing_examples(alignment, examples)
    facts = (alignment, on_text, missing)
    console.write_result(as_json, alignment_data(*facts), print_alignment, *facts)
