"""``tokensurgeon verify``: a finished checkpoint, checked again."""

from __future__ import annotations

import click

from tokensurgeon.cli import console
from tokensurgeon.errors import CheckpointError


@click.command(short_help="Check a finished checkpoint again.")
@click.argument("checkpoint", metavar="DIR")
@console.option(
    "--no-manifest", "DIR is not by tokensurgeon: check what its manifest has no part in."
)
@console.json_option
def command(checkpoint: str, no_manifest: bool, as_json: bool) -> None:
    """Check DIR: files against the manifest, ids, rows, how AutoTokenizer loads it, its report.

    Ends with code 1 if anything is wrong, or if there is no manifest and no --no-manifest.
    """
    from tokensurgeon.checkpoint import recheck
    from tokensurgeon.report.records import unreadable

    with console.progress() as progress:
        result = recheck(checkpoint, progress, without_manifest=no_manifest)
    if not no_manifest and not result.problems:
        result.note("report", unreadable(result.folder), "it and the records can be read")
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
