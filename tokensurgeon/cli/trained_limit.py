"""``tokensurgeon trained-limit``: what trained vocabulary rows can reach on a pair."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tokensurgeon.cli import console
from tokensurgeon.cli.recipe_options import takes_recipe
from tokensurgeon.recipe import Recipe

if TYPE_CHECKING:
    from rich.table import Table

    from tokensurgeon.studies.trained_limit import FloorResult


@click.command(short_help="What trained rows can reach on a pair.")
@takes_recipe(
    "tokenizer",
    "donor",
    "text.evaluation",
    "text.calibration",
    "untie",
    "map",
    "device",
    "dtype",
    "seed",
    "trust_remote_code",
    "allow_seen_text",
)
@click.option(
    "--minutes",
    type=click.FloatRange(min=0, min_open=True),
    default=30.0,
    show_default=True,
    help="Most time for each of the two trainings; processor time on a CPU.",
)
@click.option(
    "--max-tokens",
    type=click.IntRange(min=1),
    help="Most tokens for each of the two trainings.",
)
@console.json_option
def command(recipe: Recipe, minutes: float, max_tokens: int | None, as_json: bool) -> None:
    """Train all vocabulary rows of SOURCE under another tokenizer, the body frozen.

    The rows are calibrated first. Training stops when text set aside falls no further. The
    source's own rows are trained in the same way: what it gains is adaptation to the text. Needs
    --calibration-text to train on and --text to measure on. Nothing is written; keep the JSON for
    compare --trained-limit. An older name of this command is 'floor'.
    """
    if not recipe.text.calibration:
        raise click.UsageError("no text to train on: give --calibration-text FILE")
    if not recipe.text.evaluation:
        raise click.UsageError("no text to measure on: give --text FILE")

    from tokensurgeon.studies.trained_limit import floor

    with console.progress() as progress:
        result = floor(recipe, minutes=minutes, max_tokens=max_tokens, progress=progress)
    if as_json:
        console.write_json(result.to_dict())
        return
    screen = console.stdout()
    screen.print(_table(result))
    for name, training in (
        ("target", result.target_training),
        ("source", result.source_training),
    ):
        end = "the loss falls no further" if training.converged else "the time or the text was up"
        screen.print(
            f"{name}: {training.n_tokens:,} tokens in {training.cpu_seconds:.0f} s of processor "
            f"time; {end}"
        )
    for note in result.facts["notes"]:
        screen.print(note, markup=False, soft_wrap=True)


def _table(result: FloorResult) -> Table:
    """Return the figures, each with its gap to the source as it was and as it was trained."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    for heading in ("bits per byte", "gap", "gap, adapted", "closed"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, figure in (
        ("source", result.source),
        ("source, trained alike", result.source_trained),
        (f"start ({result.start_method})", result.start),
        ("floor", result.floor),
    ):
        closed = None if name.startswith("source") else result.closed(figure)
        table.add_row(
            name,
            f"{figure:.4f}",
            f"{figure - result.source:+.4f}",
            f"{figure - result.source_trained:+.4f}",
            "" if closed is None else f"{closed:.0%}",
        )
    return table
