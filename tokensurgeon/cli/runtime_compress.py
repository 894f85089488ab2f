"""``tokensurgeon runtime compress`` and ``train-composer``: hypertokens on texts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from tokensurgeon.cli import console


def limit_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the limits of hypertokens, and the composer of their rows."""
    for add in (
        console.option(
            "--max-ids N",
            "Tokens that one hypertoken stands for.  [default: 4]",
            type=click.IntRange(min=2),
        ),
        console.option(
            "--max-hypertokens N", "Of a sequence.  [default: 2048]", type=console.COUNT
        ),
    ):
        command = add(command)
    return command


composer_option = console.option(
    "--composer NAME|FILE",
    "How rows of hypertokens are made: subword-mean, -first, -last, -ends or -exp, eeve, sum-norm, "
    "or the file of a trained composer.",
    default="subword-exp",
)
bias_option = console.option(
    "--bias NATS",
    "Added to the logits of hypertokens by a composer that is not trained.  [default: -2]",
    type=float,
)


@click.command(short_help="What hypertokens save on texts.")
@click.argument("checkpoint")
@click.argument("text", nargs=-1, required=True)
@console.option(
    "--measure",
    "Run the model too: bits per byte, plain and with hypertokens. "
    "Chunks are then as short as it takes them.",
)
@composer_option
@bias_option
@limit_options
@console.option(
    "--context-bytes N",
    "Longest chunk; each begins with an empty codebook.",
    type=click.IntRange(min=16),
    default=8192,
)
@console.option(
    "--max-bytes N",
    "Read so much of all texts together, in their order.",
    type=console.AT_LEAST_1,
)
@console.option(
    "--measured-bytes N",
    "Of each file, measured through the model.",
    type=console.AT_LEAST_1,
    default=32_768,
)
@console.field_option
@console.device_option
@console.dtype_option
@console.trust_option
@console.json_option
def compress(checkpoint: str, text: tuple[str, ...], as_json: bool, **settings: Any) -> None:
    """Compress TEXT with hypertokens, and show how much shorter sequences become, by file.

    A hypertoken is a code for tokens that came one after another before, in the same sequence. The
    tokenizer of CHECKPOINT is enough; with --measure the model is run, too.
    """
    if not settings["measure"]:
        console.of_no_use("--measure", "composer", "bias", "measured_bytes")

    from tokensurgeon.report.hypertoken_tables import print_compression
    from tokensurgeon.runtime.hypertokens.compress import compress_files

    with console.progress() as progress:
        found = compress_files(checkpoint, text, progress=progress, **settings)
    console.write_result(as_json, found.to_dict(), print_compression)


@click.command(name="train-composer", short_help="Train the rows of hypertokens on text.")
@click.argument("checkpoint")
@click.argument("text", nargs=-1, required=True)
@console.option("-o --output FILE", "The .safetensors to write.", required=True)
@console.option(
    "--start NAME", "The composer that it starts as; see --composer.", default="subword-exp"
)
@console.option("--minutes MINUTES", "Time to train.", type=console.MINUTES, default=5.0)
@console.option(
    "--steps N", "In the place of minutes: the same on every run.", type=console.AT_LEAST_1
)
@console.option(
    "--lora-rank N",
    "Adapt the model's blocks too, by LoRA of this rank (needs peft).  [default: not]",
    type=console.COUNT,
    default=0,
    show_default=False,
)
@limit_options
@console.option(
    "--chunk-bytes N",
    "Longest chunk of text.",
    type=click.IntRange(min=16),
    default=3072,
)
@console.field_option
@console.device_option
@console.seed_option
@console.force_option
@console.trust_option
@console.json_option
def train(checkpoint: str, text: tuple[str, ...], as_json: bool, **settings: Any) -> None:
    """Train rows of hypertokens for CHECKPOINT on compressed TEXT, and write them to a file.

    The checkpoint is not changed. A part of the text is held out, and the state that does best on
    it is kept. Use the file as --composer.
    """
    from tokensurgeon.report.hypertoken_tables import print_composer
    from tokensurgeon.runtime.hypertokens.train_composer import train_composer

    with console.progress() as progress:
        facts = train_composer(checkpoint, text, progress=progress, **settings)
    console.write_result(as_json, facts, print_composer)
