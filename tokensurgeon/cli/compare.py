"""``tokensurgeon compare``: several methods on one pair, or finished checkpoints, in one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from tokensurgeon.cli import console
from tokensurgeon.cli.recipe_options import split_names, takes_recipe
from tokensurgeon.outputs import write_whole

OF_CHECKPOINTS = (
    "source", "text.evaluation", "device", "dtype", "seed", "trust_remote_code", "allow_seen_text"
)  # fmt: skip
"""Keys of a recipe that finished checkpoints are measured with."""
OWN = ("checkpoints", "by", "language_field", "csv_file", "plot", "force", "as_json")
"""Options of the command that go with finished checkpoints."""


@click.command(short_help="Methods on one pair, or finished checkpoints, in one table.")
@takes_recipe(
    "tokenizer", "digits", "donor", "init.settings", "text.evaluation", "text.calibration",
    "text.other", "calibrate", "heal_body", "budget", "untie", "map", "device", "dtype", "seed",
    "trust_remote_code", "allow_seen_text",
    unless="checkpoints",
)  # fmt: skip
@console.option(
    "--checkpoints A,B,…",
    "Compare these finished checkpoints instead, on the same --text: beside SOURCE, else beside "
    "the first of them; may be repeated.",
    multiple=True,
    parse=console.names,
)
@console.by_option
@console.language_field_option
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
    "--after-steps-tokens N",
    "Tokens of each of these steps, at most.",
    "step_tokens",
    type=console.AT_LEAST_1,
    default=2048,
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
    recipe: Any,
    checkpoints: tuple[str, ...],
    by: str | None,
    language_field: str,
    methods: str | None,
    limit: str | None,
    steps: int,
    rows_only: bool,
    rate: float | None,
    step_tokens: int,
    csv_file: str | None,
    plot: str | None,
    force: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Measure several methods on SOURCE and one tokenizer; no checkpoint is written.

    The source is measured beside them on the same text. A method that cannot work on the pair is
    a line with its reason. With -o a comparison that was stopped goes on where it was.

    With --checkpoints finished checkpoints are measured, each with its own tokenizer and each
    beside SOURCE, or beside the first of them; intervals are paired bootstraps over documents.
    """
    if checkpoints:
        grouped = {"by": by, "language_field": language_field}
        _compare_checkpoints(recipe, checkpoints, grouped, csv_file, plot, force, as_json)
        return
    if by is not None:
        raise click.UsageError("--by is about finished checkpoints: give --checkpoints")
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
            further=FurtherTraining(steps, rows_only, rate, step_tokens),
            progress=progress,
            **settings,
        )
    if table is not None:
        write_whole(table, comparison.to_csv().encode("utf-8"))
    data = comparison.to_dict()
    if picture is not None:
        write_plot(picture, data)
    console.write_result(as_json, data, print_comparison)


def _compare_checkpoints(
    given: Mapping[str, Any],
    checkpoints: Sequence[str],
    grouped: Mapping[str, Any],
    csv_file: str | None,
    plot: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """Measure finished checkpoints beside the source, or beside the first of them."""
    others = [f"--{key.rpartition('.')[2]}" for key in given if key not in OF_CHECKPOINTS]
    context = click.get_current_context()
    others += [
        option.opts[-1]
        for option in context.command.params
        if option.name in context.params
        and option.name not in OWN
        and option.name.replace("__", ".") not in (*OF_CHECKPOINTS, *given)
        and context.get_parameter_source(option.name) is ParameterSource.COMMANDLINE
    ]
    if others:
        raise click.UsageError(
            f"--checkpoints compares what is finished, and {others[0].replace('_', '-')} is about "
            "a surgery: leave one out"
        )
    paths = [*([given["source"]] if "source" in given else []), *checkpoints]
    folders: dict[Path, str] = {}
    for name in checkpoints:
        other = folders.setdefault(Path(name).expanduser().resolve(), name)
        if other is not name:
            raise click.UsageError(f"{other} and {name} are one checkpoint: name it once")
    if len(paths) < 2:
        raise click.UsageError("one checkpoint has nothing beside it: name another, or a SOURCE")
    if not given.get("text.evaluation"):
        raise click.UsageError("no text to compare on: give --text FILE")
    table, picture = (console.check_writable(file, force) for file in (csv_file, plot))

    from tokensurgeon.evaluation import evaluate_checkpoints
    from tokensurgeon.report.checkpoint_tables import as_comparison, as_csv, print_checkpoints
    from tokensurgeon.report.plot import check_path, write_plot

    if picture is not None:
        check_path(picture)
    settings = {key: one for key, one in given.items() if key in OF_CHECKPOINTS[2:]}
    with console.progress() as progress:
        evaluation = evaluate_checkpoints(
            paths,
            given["text.evaluation"],
            progress=progress,
            **grouped,
            **settings,
        )
    data = as_comparison(evaluation, grouped["by"])
    if table is not None:
        write_whole(table, as_csv(data).encode("utf-8"))
    if picture is not None:
        write_plot(picture, data)
    console.write_result(as_json, data, print_checkpoints)
