"""``tokensurgeon runtime``: a checkpoint at work; each subcommand in a file of its own."""

from __future__ import annotations

import click

from tokensurgeon.cli import runtime_generate


@click.group(name="runtime", short_help="Write with a checkpoint.")
def command() -> None:
    """Write with a checkpoint, by its own tokenizer."""


command.add_command(runtime_generate.command)
