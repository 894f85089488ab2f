"""``tokensurgeon compare``: several methods on one pair, in one table."""

from __future__ import annotations

from pathlib import Path

import click

from tokensurgeon.cli import console
from tokensurgeon.cli.recipe_options import takes_recipe
from tokensurgeon.recipe import Recipe


@click.command(short_help="Several methods on one pair, in one table.")
@takes_recipe(
    "tokenizer",
    "donor",
    "init.settings",
    "text.evaluation",
    "text.calibration",
    "text.other",
    "calibrate",
    "budget",
    "untie",
    "map",
    "device",
    "dtype",
    "seed",
    "trust_remote_code",
    "allow_seen_text",
)
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
        _check_output(file, force)

    from tokensurgeon.report import gap
    from tokensurgeon.report.plot import check_path, write_plot
    from tokensurgeon.report.terminal import comparison_table
    from tokensurgeon.studies.compare import compare
    from tokensurgeon.studies.gap_closed import Floor

    if plot is not None:
        check_path(plot)
    with console.progress() as progress:
        comparison = compare(
            recipe,
            names,
            state=state,
            seeds=seeds,
            floor=None if limit is None else Floor.parse(limit),
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
        return
    screen = console.stdout()
    screen.print(comparison_table(comparison.rows, screen.width))
    notes = [str(note) for note in data["facts"]["notes"]]
    best = next((row["method"] for row in comparison.rows if row["gap"] is not None), None)
    if best is not None:
        worst = gap.largest(gap.parts(comparison.evaluation[best].to_dict()))
        notes += [f"{best}: {worst}"] if worst else []
    for note in notes:
        screen.print(note, markup=False, soft_wrap=True)


def _check_output(file: str | None, force: bool) -> None:
    """Refuse a file that cannot be written, before anything is measured."""
    if file is None:
        return
    if not Path(file).parent.is_dir():
        raise click.UsageError(f"no folder {Path(file).parent}: make it first")
    if Path(file).exists() and not force:
        raise click.UsageError(f"{file} exists already: choose another or add --force")


def _split(methods: str | None) -> tuple[str, ...]:
    if methods is None:
        return ()
    names = tuple(name.strip() for name in methods.split(",") if name.strip())
    if not names:
        raise click.BadParameter("names no method", param_hint="--methods")
    return names
