"""``tokensurgeon demo``: the whole of it on the model that ships with the package, offline."""

from __future__ import annotations

import os
from importlib import resources

import click

from tokensurgeon.cli import console
from tokensurgeon.outputs import scratch_folder

BASELINES = ("omp-published", "subword-mean", "mean")
"""Plain methods, beside the one that is chosen."""

BUDGET = 0.5
"""Minutes of choice and calibration: with reading and measuring, a minute on two cores."""

MAX_BYTES = 60_000
"""Of evaluation text: enough for a stable order, in under a minute on two cores."""


@click.command(short_help="The whole of it on the model that ships with the package, offline.")
@console.option("-o --output DIR", "Keep the patched checkpoint here.")
@console.force_option
@console.json_option
def command(output: str | None, force: bool, as_json: bool) -> None:
    """Give a small model of technical English the vocabulary of a database manual.

    The source is a general model; the donor, smaller and of another width, has the new tokenizer
    and lends its vocabulary rows. The methods are chosen and calibrated on one part of its texts;
    the patched model is measured beside its source and beside plain methods, on manual pages that
    none of them has seen.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"
    from tokensurgeon.recipe import Recipe, TextSpec
    from tokensurgeon.report.terminal import print_report
    from tokensurgeon.surgery import transplant

    with (
        resources.as_file(resources.files("tokensurgeon") / "data") as data,
        scratch_folder() as scratch,
        console.progress() as progress,
    ):
        recipe = Recipe(
            source=str(data / "source"),
            donor=str(data / "donor"),
            output=output or str(scratch / "patched"),
            text=TextSpec(
                calibration=(str(data / "text" / "calibration.jsonl"),),
                evaluation=(str(data / "text" / "evaluation.jsonl"),),
                max_bytes=MAX_BYTES,
            ),
            budget=BUDGET,
            baselines=BASELINES,
            force=force,
        )
        report = transplant(recipe, progress=progress).report
    console.write_result(as_json, report.model_dump(mode="json"), print_report, report)
    if not as_json:
        click.echo("\n".join(["", *what_next(output)]))


def what_next(output: str | None) -> list[str]:
    """Return three lines: what a user might do now."""
    if output is None:
        kept = "The checkpoint was thrown away; `tokensurgeon demo -o DIR` keeps it."
    else:
        kept = f"Load {output} with transformers as any model; its README.md is the model card."
    return [
        kept,
        "Your own: tokensurgeon transplant MODEL --donor OTHER -o DIR --text FILE",
        "Your own vocabulary: tokensurgeon train bpe CORPUS --size N -o DIR",
    ]
