"""``tokensurgeon hypernet``: a small network that makes rows for any tokenizer of a source."""

from __future__ import annotations

from typing import Any

import click

from tokensurgeon.cli import console
from tokensurgeon.cli.recipe_options import build_recipe


def _renamed(context: click.Context, option: click.Parameter, value: tuple[str, ...]) -> None:
    """Refuse the older name: elsewhere --text is text to measure on."""
    if value:
        raise click.UsageError("the text to train on is --train-text here: --text is to measure on")


@click.group(short_help="Train a network that makes rows for any tokenizer.")
def command() -> None:
    """Train a network that makes rows for any target tokenizer of a source."""


@command.command(short_help="Train a network for a source.")
@click.argument("source")
@click.option(
    "--train-text",
    multiple=True,
    metavar="FILE",
    help="Text to train on through the model; without it the network learns from rows alone.",
)
@click.option(
    "--text",
    multiple=True,
    hidden=True,
    expose_value=False,
    callback=_renamed,
    help="An older name of --train-text, refused.",
)
@click.option(
    "--minutes",
    type=click.FloatRange(min=0, min_open=True),
    metavar="MINUTES",
    default=10.0,
    show_default=True,
    help="Time to train.",
)
@click.option(
    "--steps",
    type=click.IntRange(min=0),
    nargs=2,
    metavar="N M",
    help="Steps on rows and through the model in its place: the same on every machine.",
)
@click.option(
    "--size", type=click.IntRange(min=4), default=256, show_default=True, help="Network's width."
)
@click.option(
    "--layers", type=click.IntRange(min=1), default=1, show_default=True, help="Its blocks."
)
@click.option("-o", "--output", required=True, metavar="FILE", help="The file to write.")
@console.force_option
@click.option("--untie", is_flag=True, help="For surgeries with --untie: one matrix is both.")
@console.device_option
@console.dtype_option
@console.seed_option
@console.trust_option
@console.json_option
def train(
    source: str,
    train_text: tuple[str, ...],
    output: str,
    untie: bool,
    device: str,
    dtype: str,
    seed: int,
    trust_remote_code: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Train a network on the vocabulary rows of SOURCE, then through the frozen model on text.

    Use it with transplant --init hypernetwork --set hypernetwork.network=FILE, for SOURCE or a
    fine-tuned variant. A run that is broken off goes on where it was when it is given again.
    """
    recipe = build_recipe(
        None,
        {
            "source": source,
            "tokenizer": source,
            "text.calibration": train_text,
            "untie": untie,
            "device": device,
            "dtype": dtype,
            "seed": seed,
            "trust_remote_code": trust_remote_code,
        },
    )
    from tokensurgeon.report.evaluation_tables import print_network
    from tokensurgeon.studies.hypernet import train_hypernet

    with console.progress() as progress:
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
