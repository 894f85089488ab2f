"""``tokensurgeon extend``: give a model new tokens of a domain."""

from __future__ import annotations

from typing import Any

import click

from tokensurgeon.cli import console
from tokensurgeon.cli.recipe_options import build_recipe, takes_options
from tokensurgeon.trainers.training_methods import SPARE

SHARED = (
    "output", "init", "init.input", "init.output", "init.settings", "calibrate", "heal",
    "heal_body", "budget", "clip", "baselines", "untie", "pad_to_multiple_of", "export_map",
    "hand_over", "device", "dtype", "seed", "force", "trust_remote_code", "allow_nonfinite",
    "allow_invalid_text", "allow_autotokenizer_mismatch",
)  # fmt: skip
"""Options that are those of transplant, by key of the recipe."""


@click.command(short_help="Give a model new tokens of a domain.")
@click.argument("source", metavar="MODEL")
@console.option(
    "--text FILE",
    "Text of the domain; tokens are learned from it, and rows are fitted to it.",
    multiple=True,
    required=True,
)
@console.option("--add N", "Number of new tokens.", type=console.AT_LEAST_1, required=True)
@console.option(
    "--held-out FILE",
    "Text to measure on.  [default: a twentieth of the documents of --text]",
    multiple=True,
)
@console.option(
    "--calibration-text FILE", "Text that rows are fitted to.  [default: --text]", multiple=True
)
@console.option(
    "--other-text FILE",
    "Text of another domain, on which calibration must lose nothing, and from which it learns too; "
    "the source writes some if not given.",
    multiple=True,
)
@console.option("--elsewhere FILE", "Text of another kind, to measure on as well.", multiple=True)
@console.option(
    "--never-longer",
    "Refuse a result in which a text could take more tokens than before.",
)
@console.option(
    "--spare SHARE",
    "Share of tokens learned beyond those asked, of which the least used are dropped.",
    type=click.FloatRange(min=0),
    default=SPARE,
)
@console.option("--across", "Let new tokens span several words.")
@console.option(
    "--max-words N", "Of a token, with --across.", type=click.IntRange(2, 64), default=4
)
@console.option("--longest N", "Bytes of a token.", type=console.AT_LEAST_1)
@console.option("--all-rows", "Let calibration and training change rows of old tokens too.")
@takes_options(*SHARED)
@console.option("--dry-run", "Extend the tokenizer and measure it; make no rows, write nothing.")
@console.plugin_option
@console.json_option
def command(
    given: dict[str, Any],
    source: str,
    all_rows: bool,
    dry_run: bool,
    plugins: tuple[str, ...],
    as_json: bool,
    **options: Any,
) -> None:
    """Give the checkpoint MODEL new tokens that make text of a domain shorter, with rows for them.

    The tokens continue the merges of MODEL's own BPE. Every old token keeps its id and its rows,
    bit for bit, unless --all-rows is given; the rows of new tokens are made and calibrated as
    `tokensurgeon transplant` does it. Documents that are held out say how many tokens are saved,
    how many of the new tokens occur, and what it costs in bits per byte.
    """
    if given.get("output") is None and not dry_run:
        raise click.UsageError("no output: give -o DIR, or --dry-run to write nothing")
    if not options["across"]:
        console.of_no_use("--across", "max_words")

    from tokensurgeon.jobs.extend import recipe_of
    from tokensurgeon.report.terminal import print_report
    from tokensurgeon.surgery import transplant

    keys = {"source": source, "keep_shared": not all_rows, **options}
    recipe = build_recipe(None, given, recipe_of(keys))
    with console.progress() as progress:
        report = transplant(recipe, dry_run=dry_run, plugins=plugins, progress=progress).report
    console.write_result(as_json, report.model_dump(mode="json"), print_report, report)
