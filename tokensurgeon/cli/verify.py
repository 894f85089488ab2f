"""``tokensurgeon verify``: a finished checkpoint, checked again."""

from __future__ import annotations

import click

from tokensurgeon.cli import console
from tokensurgeon.errors import CheckpointError


@click.command(short_help="Check a finished checkpoint again.")
@click.argument("checkpoint", metavar="DIR")
@console.json_option
def command(checkpoint: str, as_json: bool) -> None:
    """Check DIR: files against the manifest, ids, rows, and how AutoTokenizer loads it.

    Ends with code 1 if anything is wrong. A checkpoint without a manifest, which tokensurgeon did
    not write, is checked as far as that goes.
    """
    from tokensurgeon.checkpoint import recheck

    with console.progress() as progress:
        result = recheck(checkpoint, progress)
    if as_json:
        console.write_json(result.to_dict())
    else:
        for step, outcome in result.checked.items():
            click.echo(f"{step:14} {outcome}")
        for problem in result.problems:
            click.echo(f"wrong          {problem}")
    if result.problems:
        n = len(result.problems)
        raise CheckpointError(
            f"{checkpoint} has {n} problem{'s' if n > 1 else ''}; mend what is listed above"
        )
