"""``tokensurgeon count``: count the segments of a corpus, for one or many trainings."""

from __future__ import annotations

from typing import Any

import click

from tokensurgeon.cli import console
from tokensurgeon.cli.recipe_options import split_names
from tokensurgeon.cli.train import cut_options
from tokensurgeon.errors import SettingError
from tokensurgeon.text.borders import BORDERS
from tokensurgeon.trainers.counting.executors import ENGINES
from tokensurgeon.trainers.counting.pretokenizers import PRETOKENIZER, SCHEME


@click.command(short_help="Count the segments of a corpus, for one or many trainings.")
@click.argument("corpus", metavar="[CORPUS...]", nargs=-1)
@console.option("-o --output DIR", "The folder to write.", required=True)
@console.option(
    "--for METHOD,…",
    "Methods that are to be trained on the counts.",
    "methods",
    default="bpe",
    parse=lambda names: split_names(names, "method", "--for"),
)
@console.option(
    "--mixture NAME:FILES", "A part of the text, or NAME=SHARE:FILES; instead of CORPUS.",
    multiple=True,
)  # fmt: skip
@cut_options
@console.option(
    "--control TOKEN",
    "A control token of the vocabularies, which ends a document; may be repeated.",
    "controls",
    multiple=True,
)
@console.option(
    "--borders",
    "Strings that end a document: the controls named, or these and well-known ones.",
    type=click.Choice(BORDERS),
    default=BORDERS[0],
)
@console.option("--no-hold-out", "Count every document; keep none to measure on.", "count_all")
@console.field_option
@console.option(
    "--memory-gib GIB",
    "Of all processes on this machine; counts beyond it are spilled to disk.",
    type=click.FloatRange(min=0.1),
    default=2.0,
)
@console.option("--engine", "What counts.", type=click.Choice(ENGINES), default="processes")
@console.option("--scheduler ADDRESS", "Of Dask.  [default: workers on this machine]")
@console.option(
    "--processes N", "[default: all cores that the memory has room for]", type=console.AT_LEAST_1
)
@console.option(
    "--prune",
    "Drop the rarest segments where memory is full, instead of spilling; the card says by how "
    "much a count may be too low.",
)
@console.option("--seed N", "Of the chunks of supertoken.", type=int, default=0)
@console.force_option
@console.json_option
def command(
    corpus: tuple[str, ...],
    mixture: tuple[str, ...],
    count_all: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Count the distinct segments of a corpus, and write them as a folder of Parquet tables.

    `tokensurgeon train --from-counts DIR` trains from it as from the text: the same vocabulary, to
    the byte. A run that ends early leaves DIR.counting beside, and the same command goes on.
    """
    from tokensurgeon.report.tokenizer_tables import print_counts
    from tokensurgeon.trainers import count_corpus
    from tokensurgeon.trainers.mixture import parse_mixture

    if bool(corpus) == bool(mixture):
        raise SettingError("give files to count or --mixture, one of them")
    with console.progress() as progress:
        counts = count_corpus(
            parse_mixture(mixture) if mixture else list(corpus),
            options.pop("output"),
            digits=options.pop("digits") or SCHEME,
            pretokenizer=options.pop("pretokenizer") or PRETOKENIZER,
            hold_out=not count_all,
            progress=progress,
            **options,
        )
    facts = {"path": str(counts.path), **counts.to_dict()}
    console.write_result(as_json, facts, print_counts, counts)
