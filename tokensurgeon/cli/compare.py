"""``tokensurgeon compare``: several methods on one pair, in one table."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import click

from tokensurgeon.cli import console
from tokensurgeon.cli.recipes import build_recipe, parse_map, parse_settings


@click.command(short_help="Several methods on one pair, in one table.")
@click.argument("source", required=False)
@click.option("--tokenizer", metavar="TARGET", help="The new tokenizer; the donor's if not given.")
@click.option("--text", multiple=True, metavar="FILE", help="Text to measure on (needed).")
@click.option(
    "--donor", metavar="MODEL", help="A model that has the new tokenizer; only its rows are read."
)
@click.option(
    "--methods",
    metavar="A,B,…",
    help="Methods to compare; a+b means a for the input and b for the output rows. "
    "Every built-in that can work on the pair if not given.",
)
@click.option(
    "--set", "settings", multiple=True, metavar="METHOD.KEY=VALUE", help="A setting: omp.k=32."
)
@click.option(
    "--calibration-text",
    multiple=True,
    metavar="FILE",
    help="Text that methods may look at; never the one it is measured on.",
)
@click.option("--untie", is_flag=True, help="Patch two matrices where the source has one.")
@click.option("--map", "mapping", multiple=True, metavar="TARGET=SOURCE", help="As in transplant.")
@click.option("--recipe", metavar="FILE", help="A YAML recipe; options override its keys.")
@click.option("--csv", "csv_file", metavar="FILE", help="Write the table here as well.")
@console.device_option
@console.dtype_option
@console.seed_option
@console.force_option
@console.plugin_option
@console.trust_option
@console.json_option
def command(
    source: str | None,
    tokenizer: str | None,
    text: tuple[str, ...],
    donor: str | None,
    methods: str | None,
    settings: tuple[str, ...],
    calibration_text: tuple[str, ...],
    untie: bool,
    mapping: tuple[str, ...],
    recipe: str | None,
    csv_file: str | None,
    device: str | None,
    dtype: str | None,
    seed: int | None,
    force: bool,
    plugins: tuple[str, ...],
    trust_remote_code: bool,
    as_json: bool,
) -> None:
    """Measure several methods on SOURCE and one tokenizer; no checkpoint is written.

    The source is measured beside them on the same text. A method that cannot work on the pair is
    a line with its reason.
    """
    asked = build_recipe(
        recipe,
        {
            "source": source,
            "tokenizer": tokenizer,
            "donor": donor,
            "init.settings": parse_settings(settings),
            "text.evaluation": text,
            "text.calibration": calibration_text,
            "untie": untie,
            "map": parse_map(mapping),
            "device": device,
            "dtype": dtype,
            "seed": seed,
            "trust_remote_code": trust_remote_code,
        },
    ).model_copy(update={"output": None})
    if not asked.text.evaluation:
        raise click.UsageError("no text to compare on: give --text FILE")
    names = _split(methods)
    if csv_file is not None and Path(csv_file).exists() and not force:
        raise click.UsageError(f"{csv_file} exists already: choose another or add --force")

    from tokensurgeon.report.terminal import comparison_table
    from tokensurgeon.surgery import compare

    with console.progress() as progress:
        comparison = compare(asked, names, plugins=plugins, progress=progress)
    if csv_file is not None:
        write_csv(Path(csv_file), comparison.rows)
    if as_json:
        console.write_json(comparison.rows)
    else:
        console.stdout().print(comparison_table(comparison.rows))


def _split(methods: str | None) -> tuple[str, ...] | None:
    if methods is None:
        return None
    names = tuple(dict.fromkeys(name.strip() for name in methods.split(",") if name.strip()))
    if not names:
        raise click.BadParameter("names no method", param_hint="--methods")
    return names


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write the rows as CSV, an interval as two columns."""
    flat = []
    for row in rows:
        row = dict(row)
        low, high = row.pop("interval", None) or (None, None)
        flat.append({**row, "interval_low": low, "interval_high": high})
    columns = list(dict.fromkeys(key for row in flat for key in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(flat)
