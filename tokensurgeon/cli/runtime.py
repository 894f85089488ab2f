"""``tokensurgeon runtime``: vocabularies that change while a model runs."""

from __future__ import annotations

import click

from tokensurgeon.cli import runtime_compress, runtime_zip_generate


@click.group(name="runtime")
def command() -> None:
    """Use a model with a vocabulary that changes while it runs."""


command.add_command(runtime_compress.compress)
command.add_command(runtime_compress.train)
command.add_command(runtime_zip_generate.command)
