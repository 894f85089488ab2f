"""``tokensurgeon compare``: several methods on one pair, in one table."""

from __future__ import annotations

from pathlib import Path

import click

from tokensurgeon.cli import console
from tokensurgeon.cli.recipe_options import takes_recipe
from tokensurgeon.recipe import Recipe


@click.command(short_help="Several methods on one pair, in one table.")
@takes_recipe(
    "tokenizer", "donor", "init.settings", "text.evaluation", "text.calibration", "text.other",
    "calibrate", "budget", "untie", "map", "device", "dtype", "seed", "trust_remote_code",
    "allow_seen_text",
)  # fmt: skip
@click.option(
    "--methods",
    metavar="A,B,…",
    help="Methods to compare: NAME, or IN/OUT for two sides; +calibration fits the rows to the "
    "calibration text afterwards, +heal=5 trains them for five minutes. A sensible few if not "
    "given.",
)
@click.option(
    "-o",
    "--state",
    metavar="DIR",
    help="Keep each finished method and seed here; a later run skips what is there.",
)
@click.option(
    "--seeds",
    type=click.IntRange(min=1),
    metavar="N",
    default=1,
    show_default=True,
    help="Repeat what is random with so many seeds, and say the best and the worst.",
)
@click.option(
    "--trained-limit",
    "--floor",
    "limit",
    metavar="BPB|FILE",
    help="What `tokensurgeon trained-limit` reached on the pair (its JSON, or bits per byte), to "
    "say what share of the recoverable gap is closed; --floor is the older name.",
)
@click.option(
    "--adapted",
    is_flag=True,
    help="Fit the source's own rows too, to say what of a gain is adaptation to the text.",
)
@click.option("--csv", "csv_file", metavar="FILE", help="Write the table here as well.")
@click.option(
    "--plot", metavar="FILE", help="Write a picture (.png, .svg) or a page with it (.html)."
)
@console.force_option
@console.plugin_option
@console.json_option
def command(
    recipe: Recipe,
    methods: str | None,
    state: str | None,
    seeds: int,
    limit: str | None,
    adapted: bool,
    csv_file: str | None,
    plot: str | None,
    force: bool,
    plugins: tuple[str, ...],
    as_json: bool,
) -> None:
    """Measure several methods on SOURCE and one tokenizer; no checkpoint is written.

    The source is measured beside them on the same text. A method that cannot work on the pair is
    a line with its reason. With -o a comparison that was stopped goes on where it was.
    """
    if not recipe.text.evaluation:
        raise click.UsageError("no text to compare on: give --text FILE")
    names = _split(methods)
    for file in (csv_file, plot):
        console.check_writable(file, force)

    from tokensurgeon.report.plot import check_path, write_plot
    from tokensurgeon.report.terminal import print_comparison
    from tokensurgeon.studies.compare import compare
    from tokensurgeon.studies.gap_closed import KnownLimit

    if plot is not None:
        check_path(plot)
    with console.progress() as progress:
        comparison = compare(
            recipe,
            names,
            state=state,
            seeds=seeds,
            trained_limit=None if limit is None else KnownLimit.parse(limit),
            adapted=adapted,
            plugins=plugins,
            progress=progress,
        )
    if csv_file is not None:
        Path(csv_file).write_text(comparison.to_csv(), encoding="utf-8")
    data = comparison.to_dict()
    if plot is not None:
        write_plot(plot, data)
    if as_json:
        console.write_json(data)
    else:
        print_comparison(console.stdout(), data)


def _split(methods: str | None) -> tuple[str, ...]:
    if methods is None:
        return ()
    names = tuple(name.strip() for name in methods.split(",") if name.strip())
    if not names:
        raise click.BadParameter("names no method", param_hint="--methods")
    return names
