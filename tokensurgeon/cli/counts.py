"""``tokensurgeon counts``: add tables of counts up, and take over those of other engines."""

from __future__ import annotations

from typing import Any

import click

from tokensurgeon.cli import console
from tokensurgeon.cli.train import cut_options
from tokensurgeon.trainers.counting.pretokenizers import PRETOKENIZER, SCHEME

TABLES = ("words", "runs")


@click.group(name="counts")
def command() -> None:
    """Add tables of counted segments up, or take over what another engine counted."""


@command.command()
@click.argument("folders", metavar="DIR...", nargs=-1, required=True)
@console.option("-o --output DIR", "The folder to write.", required=True)
@console.option(
    "--weight W",
    "By which the counts of a folder are multiplied, in the order of the folders.  [default: 1]",
    "weights",
    type=click.FloatRange(min=0, min_open=True),
    multiple=True,
)
@console.force_option
@console.json_option
def merge(
    folders: tuple[str, ...], weights: tuple[float, ...], as_json: bool, **options: Any
) -> None:
    """Add folders up that were counted alike; parts of one name become one."""
    from tokensurgeon.report.tokenizer_tables import print_counts
    from tokensurgeon.trainers import merge_counts

    with console.progress() as progress:
        counts = merge_counts(folders, weights=weights or None, progress=progress, **options)
    console.write_result(as_json, _facts(counts), print_counts, counts)


@command.command(name="import")
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@console.option("-o --output DIR", "The folder to write.", required=True)
@console.option("--table", "What the segments are.", type=click.Choice(TABLES), default=TABLES[0])
@cut_options
@console.option(
    "--border TOKEN",
    "A string that ended a document; may be repeated.",
    "borders",
    multiple=True,
)
@console.option("--bytes N", "Of the text.  [default: those of the segments]", "n_bytes", type=int)
@console.force_option
@console.json_option
def import_(
    files: tuple[str, ...],
    table: str,
    pretokenizer: str | None,
    digits: str | None,
    no_cross: tuple[str, ...],
    max_pieces: int | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Take over Parquet files with the columns segment, count and, if wanted, documents.

    DuckDB, polars and Spark make such files. The segments must be those of the pre-tokenizer that
    is named.
    """
    from tokensurgeon.report.tokenizer_tables import print_counts
    from tokensurgeon.trainers import Shape, import_counts
    from tokensurgeon.trainers.corpus_counts import TABLES as METHODS
    from tokensurgeon.trainers.corpus_counts import import_cutter

    shape = Shape(no_cross=no_cross, max_pieces=max_pieces)
    preset, scheme = pretokenizer or PRETOKENIZER, digits or SCHEME
    settings = {"pretokenizer": preset, "digits": scheme, "methods": [METHODS[table]]}
    with console.progress() as progress:
        counts = import_counts(
            files,
            cutter=import_cutter(table, preset, scheme, shape),
            table=table,
            settings=settings,
            progress=progress,
            **options,
        )
    console.write_result(as_json, _facts(counts), print_counts, counts)


def _facts(counts: Any) -> dict[str, Any]:
    return {"path": str(counts.path), **counts.to_dict()}
