"""``tokensurgeon floor``: what trained vocabulary rows can reach on a pair."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tokensurgeon.cli import console
from tokensurgeon.cli.recipes import build_recipe, parse_map

if TYPE_CHECKING:
    from rich.table import Table

    from tokensurgeon.studies.trained_limit import FloorResult


@click.command(short_help="What trained rows can reach on a pair.")
@click.argument("source", required=False)
@click.option("--tokenizer", metavar="TARGET", help="The new tokenizer; the donor's if not given.")
@click.option("--text", multiple=True, metavar="FILE", help="Text to measure on (needed).")
@click.option(
    "--calibration-text",
    multiple=True,
    metavar="FILE",
    help="Text to train on (needed); never the one it is measured on.",
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
@click.option(
    "--donor", metavar="MODEL", help="A model that has the new tokenizer; only its rows are read."
)
@click.option("--untie", is_flag=True, help="Train two matrices where the source has one.")
@click.option("--map", "mapping", multiple=True, metavar="TARGET=SOURCE", help="As in transplant.")
@click.option("--recipe", metavar="FILE", help="A YAML recipe; options override its keys.")
@console.device_option
@console.dtype_option
@console.seed_option
@console.trust_option
@console.seen_option
@console.json_option
def command(
    source: str | None,
    tokenizer: str | None,
    text: tuple[str, ...],
    calibration_text: tuple[str, ...],
    minutes: float,
    max_tokens: int | None,
    donor: str | None,
    untie: bool,
    mapping: tuple[str, ...],
    recipe: str | None,
    device: str | None,
    dtype: str | None,
    seed: int | None,
    trust_remote_code: bool,
    allow_seen_text: bool,
    as_json: bool,
) -> None:
    """Train all vocabulary rows of SOURCE under another tokenizer, the body frozen.

    The rows are calibrated first. Training stops when text set aside falls no further. The
    source's own rows are trained in the same way: what it gains is adaptation to the text. Nothing
    is written; keep the JSON for compare --floor.
    """
    asked = build_recipe(
        recipe,
        {
            "source": source,
            "tokenizer": tokenizer,
            "donor": donor,
            "text.evaluation": text,
            "text.calibration": calibration_text,
            "untie": untie,
            "map": parse_map(mapping),
            "device": device,
            "dtype": dtype,
            "seed": seed,
            "trust_remote_code": trust_remote_code,
            "allow_seen_text": allow_seen_text,
        },
    )
    if not asked.text.calibration:
        raise click.UsageError("no text to train on: give --calibration-text FILE")
    if not asked.text.evaluation:
        raise click.UsageError("no text to measure on: give --text FILE")

    from tokensurgeon.studies.trained_limit import floor

    with console.progress() as progress:
        result = floor(asked, minutes=minutes, max_tokens=max_tokens, progress=progress)
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
