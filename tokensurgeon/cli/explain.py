"""``tokensurgeon explain``: where a row of a transplanted checkpoint came from."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from tokensurgeon.cli import console

if TYPE_CHECKING:
    from tokensurgeon.report.records import RowStory, SideRow

MATCHES = {
    "none": "no source token has these bytes",
    "exact": "bytes, kind and spelling equal",
    "byte": "bytes equal",
    "control": "a control token of the same role",
    "normalised": "equal after the tokenizer's own normalisation",
    "map": "named by --map",
}
ORIGINS = {
    "copied": "copied bit for bit",
    "initialised": "made by {method}",
    "unspellable": "a floor row: nothing spells the token",
    "control": "a floor row: a control token without a counterpart",
    "padding": "a floor row: no token has this id",
    "alias": "a floor row: another id stands for the same and is the one that is emitted",
}


@click.command(short_help="Where a row of a transplanted checkpoint came from.")
@click.argument("checkpoint")
@click.argument("token")
@click.option(
    "--as",
    "kind",
    type=click.Choice(["any", "id", "spelling", "text"]),
    default="any",
    help="What TOKEN is; any: an id, else a spelling, else text.",
    show_default=True,
)
@click.option(
    "--top", type=click.IntRange(min=1), default=8, show_default=True, help="Weights to list."
)
@console.json_option
def command(checkpoint: str, token: str, kind: str, top: int, as_json: bool) -> None:
    """Say where the rows of TOKEN in CHECKPOINT came from.

    TOKEN is an id, a spelling as it stands in the tokenizer ("Ġthe"), or text whose bytes are one
    token (" the").
    """
    from tokensurgeon.report.records import Records

    records = Records(checkpoint)
    story = records.explain(records.find(token, kind), top)
    if as_json:
        console.write_json(asdict(story))
        return
    for line in lines(story):
        click.echo(line)


def lines(story: RowStory) -> list[str]:
    """Return the story in lines."""
    found = [f"{story.spelling!r}, id {story.id}"]
    match = f"match: {story.match} ({MATCHES.get(story.match, 'as the report says')})"
    if story.source_id is not None:
        match += f", source token {story.source_spelling!r}, id {story.source_id}"
    found.append(match)
    if story.pieces:
        pieces = " + ".join(repr(spelling) for _, spelling in story.pieces)
        found.append(f"pieces: {pieces}")
    for side in story.sides:
        found.append(f"{side.side}: {ORIGINS.get(side.origin, side.origin)}".format(**vars(side)))
        found += weight_lines(side)
    return found


def weight_lines(side: SideRow) -> list[str]:
    """Return the weights of a row that a method made."""
    if side.origin != "initialised":
        return []
    if not side.weights:
        return ["  not a sum of source rows"]
    shown = [
        f"  {weight:+.4f}  {spelling!r} ({source_id})"
        for source_id, spelling, weight in side.weights
    ]
    smaller = side.n_weights - len(side.weights)
    if smaller:
        shown.append(f"  and {smaller} smaller")
    if side.rest >= 0.01:
        shown.append(f"  and what no weight says: {side.rest:.0%} of the row's norm")
    return shown
