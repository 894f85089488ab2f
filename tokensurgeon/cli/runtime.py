"""``tokensurgeon runtime``: vocabularies that move while a model runs."""

from __future__ import annotations

import click

from tokensurgeon.cli.runtime_merge import merge


@click.group(short_help="Vocabularies that move while a model runs.")
def command() -> None:
    """Vocabularies that move while a model runs; no weight changes."""


command.add_command(merge)
