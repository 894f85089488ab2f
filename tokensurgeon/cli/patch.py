"""``tokensurgeon patch``: a surgery as a small file, applied to any fine-tune of its source."""

from __future__ import annotations

from typing import Any

import click

from tokensurgeon.cli import console


@click.group(name="patch")
def command() -> None:
    """Export a surgery as a small file, and apply it to fine-tunes of the same source."""


@command.command()
@click.argument("patched", metavar="DIR")
@console.option("-o --output FILE", "The .safetensors to write.", required=True)
@console.option("--source MODEL", "What DIR was made from.  [default: as it says]")
@console.force_option
@console.json_option
def export(patched: str, output: str, as_json: bool, **settings: Any) -> None:
    """Write the surgery that made DIR as one file.

    It holds how each row is a sum of source rows, what is left of rows that are no such sum, and
    the tokenizer; no row of the model that the sums can give. Where --heal-body changed the body,
    it holds the factors of that change, too.
    """
    from tokensurgeon.patches import export_patch

    with console.progress() as progress:
        exported = export_patch(patched, output, progress=progress, **settings)
    if as_json:
        console.write_json({**vars(exported), "path": str(exported.path)})
        return
    rows, copied, remainders = exported.rows, exported.copied, exported.remainders
    weights = f"{exported.body_tensors:,} weights of the body are changed"
    click.echo(
        f"{exported.path}: {exported.n_bytes:,} bytes; of {rows:,} rows {copied:,} are copied, "
        f"{rows - copied - remainders:,} are sums of source rows alone, and {remainders:,} have a "
        f"remainder{f'; {weights}' if exported.body_tensors else ''}"
    )


@command.command()
@click.argument("patch", metavar="FILE")
@click.argument("checkpoint")
@console.option("-o --output DIR", "The folder to write.", required=True)
@console.option(
    "--allow-other-model",
    "Apply it to a checkpoint that does not look like the source or a fine-tune of it.",
)
@console.mismatch_option
@console.trust_option
@console.force_option
def apply(patch: str, checkpoint: str, output: str, **settings: bool) -> None:
    """Give CHECKPOINT, a fine-tune of the patch's source, the patch's tokenizer.

    It must have kept the source's tokenizer, and most signs of its weights. Sums are taken of its
    own rows. Measure the result with 'evaluate': a patch says nothing of what it costs this
    checkpoint.
    """
    from tokensurgeon.patches import apply_patch

    warnings: list[str] = []
    with console.progress() as progress:
        written = apply_patch(
            patch, checkpoint, output, warnings=warnings, progress=progress, **settings
        )
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)
    click.echo(f"written {written}")
