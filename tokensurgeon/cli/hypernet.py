"""``tokensurgeon hypernet``: a small network that makes rows for any tokenizer of a source."""

from __future__ import annotations

from typing import Any

import click

from tokensurgeon.cli import console
from tokensurgeon.cli.recipe_options import build_recipe


def _renamed(files: tuple[str, ...]) -> None:
    """Refuse the older name: elsewhere --text is text to measure on."""
    if files:
        raise click.UsageError(
            "--text is text to measure on elsewhere: give the text to train on as --train-text"
        )


@click.group(short_help="Train a network that makes rows for any tokenizer.")
def command() -> None:
    """Train a network that makes rows for any target tokenizer of a source."""


@command.command(short_help="Train a network for a source.")
@click.argument("source")
@console.option(
    "--train-text FILE",
    "Text to train on through the model; without it the network learns from rows alone.",
    multiple=True,
)
@console.option(
    "--text FILE",
    "An older name of --train-text, refused.",
    multiple=True,
    hidden=True,
    expose_value=False,
    parse=_renamed,
)
@console.option("--minutes MINUTES", "Time to train.", type=console.MINUTES, default=10.0)
@console.option(
    "--steps N M",
    "Steps on rows and through the model in its place: the same on every machine.",
    type=console.COUNT,
    nargs=2,
)
@console.option("--size N", "Network's width.", type=click.IntRange(min=4), default=256)
@console.option("--layers N", "Its blocks.", type=console.AT_LEAST_1, default=1)
@console.option("-o --output FILE", "The file to write.", required=True)
@console.force_option
@console.option("--untie", "For surgeries with --untie: one matrix is both.")
@console.device_option
@console.dtype_option
@console.seed_option
@console.trust_option
@console.track_option
@console.json_option
def train(
    source: str,
    train_text: tuple[str, ...],
    output: str,
    track: str | None,
    as_json: bool,
    **settings: Any,
) -> None:
    """Train a network on the vocabulary rows of SOURCE, then through the frozen model on text.

    Use it with transplant --init hypernetwork --set hypernetwork.network=FILE, for SOURCE or a
    fine-tuned variant. A run that is broken off goes on where it was when it is given again.
    """
    given = {"source": source, "tokenizer": source, "text.calibration": train_text}
    shared = ("untie", "device", "dtype", "seed", "trust_remote_code")
    recipe = build_recipe(None, given | {key: settings.pop(key) for key in shared})
    from tokensurgeon.report.evaluation_tables import print_network
    from tokensurgeon.studies.hypernet import train_hypernet

    with console.tracked_progress(track, (source,)) as progress:
        card = train_hypernet(recipe, output, progress=progress, **settings).card
    if as_json:
        console.write_json({"output": output, **card})
        return
    screen = console.stdout()
    print_network(screen, card)
    screen.print(
        f"{output}: {card['gradient_steps']:,} steps in {card['seconds']:.0f} s; "
        "use it with --init hypernetwork --set hypernetwork.network=" + output
    )
