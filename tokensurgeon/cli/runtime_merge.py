"""``tokensurgeon runtime merge``: what merging the tokens of the input saves and costs."""

from __future__ import annotations

from typing import Any

import click

from tokensurgeon.cli import console


@click.command(short_help="Merge tokens of the input, and measure what that saves and costs.")
@click.argument("checkpoint")
@click.argument("text", metavar="TEXT...", nargs=-1, required=True)
@console.option(
    "--policy",
    "Which adjacent tokens become one: the most frequent pairs inside words, whole identifiers of "
    "code, or tokens whose vectors are most alike, across words.",
    type=click.Choice(["frequency", "identifiers", "meaning"]),
    default="frequency",
)
@console.option(
    "--saving SHARE",
    "Merge until so much of the tokens is saved, such as 0.2; without it and --merges, all that "
    "repeats is merged.",
    type=click.FloatRange(0, 1, max_open=True),
)
@console.option("--merges N", "Merge so often in each batch.", type=console.COUNT)
@console.option(
    "--least-count N",
    "Merge what a batch has so often; 1 makes every word one token.",
    type=console.AT_LEAST_1,
    default=2,
)
@console.option(
    "--rows NAMES",
    "Methods that make rows for merged tokens, such as subword-mean,ridge-composer: each is "
    "measured.",
    default="subword-mean",
)
@console.option("--network FILE", "Of tokensurgeon hypernet train, for --rows hypernetwork.")
@console.option(
    "--positions",
    "Number merged tokens 0, 1, 2, …, or give each the position of its last piece.",
    type=click.Choice(["packed", "spread"]),
    default="packed",
)
@console.option(
    "--layer N", "With --policy meaning: compare states of this layer, not rows.",
    type=console.COUNT,
)  # fmt: skip
@console.option(
    "--keep-last N",
    "Last tokens before the continuation that stay as they are.",
    type=console.COUNT,
    default=1,
)
@console.option(
    "--batch N", "Texts that are merged and run together.", type=console.AT_LEAST_1, default=32
)
@console.option(
    "--max-bytes N", "Measure on so much text.", type=console.AT_LEAST_1, default=20_000
)
@console.option(
    "--chunk-bytes N", "Longest text of a batch.", type=click.IntRange(min=16), default=1024
)
@console.field_option
@console.device_option
@console.dtype_option
@console.seed_option
@console.trust_option
@console.json_option
def merge(
    checkpoint: str, text: tuple[str, ...], rows: str, as_json: bool, **settings: Any
) -> None:
    """Merge adjacent tokens of the input of CHECKPOINT, and measure it on TEXT.

    TEXT is cut into chunks, and those of a batch are merged together. A causal model reads the
    first half of each chunk, plain and merged, and is asked for the second, which is plain in both.
    Of an encoder the embeddings of the chunks are compared. Nothing is written.
    """
    from tokensurgeon.report.merging_words import print_merging
    from tokensurgeon.runtime.merging.measure_merging import measure_merging

    with console.progress() as progress:
        facts = measure_merging(
            checkpoint, text, rows=console.names((rows,)), progress=progress, **settings
        )
    console.write_result(as_json, facts.to_dict(), print_merging, facts)
