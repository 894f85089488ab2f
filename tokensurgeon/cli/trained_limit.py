"""``tokensurgeon trained-limit``: what trained vocabulary rows can reach on a pair."""

from __future__ import annotations

from typing import Any

import click

from tokensurgeon.cli import console
from tokensurgeon.cli.recipe_options import takes_recipe
from tokensurgeon.recipe import Recipe


@click.command(short_help="What trained rows can reach on a pair.")
@takes_recipe(
    "tokenizer", "digits", "donor", "text.evaluation", "text.calibration", "heal_body", "untie",
    "map", "device", "dtype", "seed", "trust_remote_code", "allow_seen_text",
)  # fmt: skip
@console.option(
    "--minutes MINUTES",
    "Most time for each of the two trainings; processor time on a CPU.",
    type=console.MINUTES,
    default=30.0,
)
@console.option(
    "--max-tokens N", "Most tokens for each of the two trainings.", type=console.AT_LEAST_1
)
@console.option(
    "--teacher WHAT",
    "The text's own next tokens, or what the source implies of it.",
    type=click.Choice(["text", "source"]),
    default="text",
)
@console.json_option
def command(recipe: Recipe, as_json: bool, **settings: Any) -> None:
    """Train all vocabulary rows of SOURCE under another tokenizer, the body frozen.

    The rows are calibrated first. Training stops when text set aside falls no further. The
    source's own rows are trained in the same way: what it gains is adaptation to the text. With
    --teacher source no label plays a part, and --heal-body trains the body too. Needs
    --calibration-text to train on and --text to measure on. Nothing is written; keep the JSON for
    compare --trained-limit. An older name of this command is 'floor'.
    """
    if not recipe.text.calibration:
        raise click.UsageError("no text to train on: give --calibration-text FILE")
    if not recipe.measures:
        raise click.UsageError("no text to measure on: give --text FILE")

    from tokensurgeon.report.evaluation_tables import print_limit
    from tokensurgeon.studies.trained_limit import trained_limit

    with console.progress() as progress:
        limit = trained_limit(recipe, progress=progress, **settings).to_dict()
    console.write_result(as_json, limit, print_limit)
