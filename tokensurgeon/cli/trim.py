"""``tokensurgeon trim``: cut a model's vocabulary down, and prove that nothing else changed."""

from __future__ import annotations

from typing import Any

import click

from tokensurgeon.cli import console


@click.command(short_help="Cut a model's vocabulary down, and prove that nothing else changed.")
@click.argument("model")
@console.option("-o --output DIR", "The folder to write.")
@console.option(
    "--text FILE", "Keep the tokens that this text uses; may be repeated.", multiple=True
)
@console.script_option
@console.option(
    "--languages LIST",
    "Languages to keep, such as de,ru: all tokens of the scripts that they are written in (codes "
    "of ISO 639; de is Latin, ru Cyrillic, ja Han, Hiragana and Katakana). NAME=FILE, such as "
    "de=german.txt, keeps what that text uses instead.",
    multiple=True,
    parse=console.names,
)
@console.option(
    "--size N",
    "Keep so many ids in all: the most used by the text first, then those of the scripts, then the "
    "earliest merges or best scores.",
    type=console.AT_LEAST_1,
)
@console.option(
    "--least-uses N",
    "Keep tokens that the text has so often.",
    type=console.AT_LEAST_1,
    default=1,
)
@console.option(
    "--other-text FILE",
    "Text to measure what changes on; may be repeated.",
    multiple=True,
)
@console.option(
    "--max-bytes N",
    "Of each other text, measure bits per byte on so much.",
    type=console.AT_LEAST_1,
    default=100_000,
)
@console.option(
    "--pad-to-multiple-of N",
    "Keep further tokens up to a multiple of this number.",
    type=console.AT_LEAST_1,
    default=1,
)
@console.field_option
@console.device_option
@console.dtype_option
@console.seed_option
@console.option("--dry-run", "Choose the tokens and say the sizes; write nothing.")
@console.force_option
@console.option("--allow-nonfinite", "Accept source rows with NaN or Inf.")
@console.mismatch_option
@console.seen_option
@console.trust_option
@console.json_option
def command(
    model: str, output: str | None, scripts: tuple[str, ...], as_json: bool, **settings: Any
) -> None:
    """Cut the vocabulary of MODEL down: the tokenizer and all tensors that have a row per token.

    Kept are the tokens that --text uses, and those of --keep-script and --languages; whatever is
    asked, controls and other added tokens, the bytes, the unknown token, and the tokens that kept
    ones are merged from. Kept rows are copied bit for bit, no row is made and nothing is trained.

    Both models are then run side by side: on kept text the tokens are the same and so are the
    logits, or nothing is written. With --other-text the report says how often other text is encoded
    otherwise, and what that costs in bits per byte.
    """
    if output is None and not settings["dry_run"]:
        raise click.UsageError("no output: give -o DIR, or --dry-run to write nothing")

    from tokensurgeon.jobs.trim import trim
    from tokensurgeon.report.trim_words import print_trim

    with console.progress() as progress:
        report = trim(model, output, keep_script=scripts, progress=progress, **settings).report
    facts = report.model_dump(mode="json")
    console.write_result(as_json, facts, print_trim, report)
