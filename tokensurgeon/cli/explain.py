"""``tokensurgeon explain``: where a row of a transplanted checkpoint came from."""

from __future__ import annotations

from dataclasses import asdict

import click

from tokensurgeon.cli import console


@click.command(short_help="Where a row of a transplanted checkpoint came from.")
@click.argument("checkpoint")
@click.argument("token")
@console.option(
    "--as",
    "What TOKEN is; any: an id, else a spelling, else text.",
    "kind",
    type=click.Choice(["any", "id", "spelling", "text"]),
    default="any",
)
@console.option("--top N", "Weights to list.", type=console.AT_LEAST_1, default=8)
@console.json_option
def command(checkpoint: str, token: str, kind: str, top: int, as_json: bool) -> None:
    """Say where the rows of TOKEN in CHECKPOINT came from.

    TOKEN is an id, a spelling as it stands in the tokenizer ("Ġthe"), or text whose bytes are one
    token (" the").
    """
    from tokensurgeon.report.records import Records, story_lines

    records = Records(checkpoint)
    story = records.explain(records.find(token, kind), top)
    if as_json:
        console.write_json(asdict(story))
    else:
        click.echo("\n".join(story_lines(story)))
