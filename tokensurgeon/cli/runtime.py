"""``tokensurgeon runtime``: vocabularies that move while a model runs, a file a subcommand."""

from __future__ import annotations

import click

from tokensurgeon.cli import runtime_compress, runtime_generate, runtime_merge, runtime_zip_generate


@click.group(name="runtime")
def command() -> None:
    """Use a model with a vocabulary that moves while it runs."""


command.add_command(runtime_generate.command)
command.add_command(runtime_merge.merge)
command.add_command(runtime_compress.compress)
command.add_command(runtime_compress.train)
command.add_command(runtime_zip_generate.command)
