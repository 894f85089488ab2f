"""``tokensurgeon hand-over``: a patched checkpoint for the tools that train it on."""

from __future__ import annotations

import click

from tokensurgeon.cli import console
from tokensurgeon.cli.recipe_options import split_names


@click.command(short_help="Files that train a patched checkpoint on, for trainers.")
@click.argument("checkpoint", metavar="DIR")
@console.option(
    "--to TRAINER,…",
    "Whom for: peft, trl, axolotl, llamafactory.",
    "trainers",
    parse=lambda given: split_names(given, "trainer", "--to"),
    required=True,
)
@console.option("--force", "Replace an earlier hand-over, if nobody changed it.")
@console.json_option
def command(checkpoint: str, trainers: tuple[str, ...], force: bool, as_json: bool) -> None:
    """Write into DIR/continue what trains the new rows of DIR first, and then everything.

    DIR is a checkpoint that tokensurgeon wrote. What is written needs the trainers alone; DIR may
    be moved to a machine without tokensurgeon. DIR/continue/README.md says how to run it, and where
    each number comes from.
    """
    from tokensurgeon.handover.folder import hand_over

    result = hand_over(checkpoint, trainers, force=force)
    if as_json:
        console.write_json(
            {
                "folder": str(result.folder),
                "files": list(result.files),
                "new_rows": len(result.facts.ids),
                "trained_first": list(result.facts.parameters) if result.facts.ids else [],
                "notes": list(result.notes),
            }
        )
        return
    click.echo(f"written  {result.folder}: {', '.join(result.files)}")
    if result.facts.ids:
        count = f"{len(result.facts.ids):,}"
        click.echo(f"stage 1  {count} new rows of {' and '.join(result.facts.parameters)}")
    for note in result.notes:
        click.echo(f"note     {note}")
