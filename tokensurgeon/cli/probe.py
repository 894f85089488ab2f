"""``tokensurgeon probe``: short fixed tests that tell where a surgery hurts."""

from __future__ import annotations

from typing import Any

import click

from tokensurgeon.cli import console


@click.command(short_help="Short fixed tests that tell where a surgery hurts.")
@click.argument("checkpoint")
@console.option("--against SOURCE", "Ask this one beside: mostly the source.")
@console.option(
    "--only NAME,…",
    "Probes to run: discrimination, generation, emission, definitions, consistency, numbers; may "
    "be repeated.  [default: all]",
    multiple=True,
    parse=console.names,
)
@console.option("--items N", "Of each figure at most.", type=console.AT_LEAST_1, default=32)
@console.option(
    "--text FILE",
    "Text that items are made of; may be repeated.  [default: the manual pages that ship]",
    "texts",
    multiple=True,
)
@console.option(
    "-o --output FILE", "Write the table there too: a page if it ends in .md, else a record (JSON)."
)
@console.force_option
@console.field_option
@console.device_option
@console.dtype_option
@console.seed_option
@console.option(
    "--allow-seen-text", "Take text that a vocabulary was trained on, or a checkpoint calibrated."
)
@console.trust_option
@console.json_option
def command(
    checkpoint: str, output: str | None, force: bool, as_json: bool, **settings: Any
) -> None:
    """Ask CHECKPOINT, and its source beside it, what a surgery may have broken.

    Bits per byte right after a surgery say little of what a model can still do. The probes part
    it: telling texts apart, writing, writing the new tokens, their meaning, copying words however
    they are cut, numbers. Every figure comes with its number of items and a 95 % interval. The
    same checkpoint, text and seed give the same table: models write greedily.

    A share of 32 items is known within 17 points. --items N asks more, and takes that much longer.
    """
    from tokensurgeon.evaluation.probes import probe_checkpoint
    from tokensurgeon.report.probe_tables import check_output, print_probes, write_probes

    file = check_output(output, force=force)
    with console.progress() as progress:
        table = probe_checkpoint(checkpoint, progress=progress, **settings)
    if file is not None:
        write_probes(file, table)
    console.write_result(as_json, table.to_dict(), print_probes, table)
