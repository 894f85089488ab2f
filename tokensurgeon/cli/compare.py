"""``tokensurgeon compare``: several methods on one pair, in one table."""

from __future__ import annotations

from typing import Any

import click

from tokensurgeon.cli import console
from tokensurgeon.cli.recipe_options import split_names, takes_recipe
from tokensurgeon.outputs import write_whole
from tokensurgeon.recipe import Recipe


@click.command(short_help="Several methods on one pair, in one table.")
@takes_recipe(
    "tokenizer", "digits", "donor", "init.settings", "text.evaluation", "text.calibration",
    "text.other", "calibrate", "heal_body", "budget", "untie", "map", "device", "dtype", "seed",
    "trust_remote_code", "allow_seen_text",
)  # fmt: skip
@console.option(
    "--methods A,B,…",
    "Methods to compare: NAME, or IN/OUT for two sides; +calibration fits the rows to the "
    "calibration text afterwards, +heal=5 trains them for five minutes. A sensible few if not "
    "given.",
)
@console.option(
    "-o --state DIR", "Keep each finished method and seed here; a later run skips what is there."
)
@console.option(
    "--seeds N",
    "Repeat what is random with so many seeds, and say the best and the worst.",
    type=console.AT_LEAST_1,
    default=1,
)
@console.option(
    "--trained-limit --floor BPB|FILE",
    "What `tokensurgeon trained-limit` reached on the pair (its JSON, or bits per byte), to "
    "say what share of the recoverable gap is closed; --floor is the older name.",
    "limit",
)
@console.option(
    "--adapted", "Fit the source's own rows too, to say what of a gain is adaptation to the text."
)
@console.option(
    "--after-steps N",
    "Train every model for so many steps on the calibration text, the source too, and measure it "
    "again: a second column.",
    "steps",
    type=console.COUNT,
    default=0,
)
@console.option(
    "--after-steps-rows", "Train the vocabulary rows alone there: less memory.", "rows_only"
)
@console.option(
    "--after-steps-rate R",
    "The learning rate there; 0.0003 for all weights, one that fits the width for rows alone.",
    "rate",
    type=float,
)
@console.option(
    "--choose-by",
    "The figure that puts the methods in order and names the best.",
    type=click.Choice(["bits-per-byte", "after-steps"]),
    default="bits-per-byte",
)
@console.option("--csv FILE", "Write the table here as well.", "csv_file")
@console.option("--plot FILE", "Write a picture (.png, .svg) or a page with it (.html).")
@console.force_option
@console.plugin_option
@console.json_option
def command(
    recipe: Recipe,
    methods: str | None,
    limit: str | None,
    steps: int,
    rows_only: bool,
    rate: float | None,
    csv_file: str | None,
    plot: str | None,
    force: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Measure several methods on SOURCE and one tokenizer; no checkpoint is written.

    The source is measured beside them on the same text. A method that cannot work on the pair is
    a line with its reason. With -o a comparison that was stopped goes on where it was.
    """
    if not recipe.measures:
        raise click.UsageError("no text to compare on: give --text FILE")
    names = () if methods is None else split_names(methods, "method", "--methods")
    table, picture = (console.check_writable(file, force) for file in (csv_file, plot))

    from tokensurgeon.report.plot import check_path, write_plot
    from tokensurgeon.report.terminal import print_comparison
    from tokensurgeon.studies.compare import compare
    from tokensurgeon.studies.further_training import FurtherTraining
    from tokensurgeon.studies.gap_closed import KnownLimit

    if picture is not None:
        check_path(picture)
    with console.progress() as progress:
        comparison = compare(
            recipe,
            names,
            trained_limit=None if limit is None else KnownLimit.parse(limit),
            further=FurtherTraining(steps, rows_only, rate),
            progress=progress,
            **settings,
        )
    if table is not None:
        write_whole(table, comparison.to_csv().encode("utf-8"))
    data = comparison.to_dict()
    if picture is not None:
        write_plot(picture, data)
    console.write_result(as_json, data, print_comparison)
