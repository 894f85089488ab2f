"""``tokensurgeon transplant``: move a model to another tokenizer."""

from __future__ import annotations

import click

from tokensurgeon.cli import console
from tokensurgeon.cli.recipes import build_recipe, parse_map, parse_settings, parse_stages


@click.command(short_help="Move a model to another tokenizer.")
@click.argument("source", required=False)
@click.option("--tokenizer", metavar="TARGET", help="The new tokenizer; the donor's if not given.")
@click.option("-o", "--output", metavar="DIR", help="Where the patched checkpoint goes.")
@click.option(
    "--donor", metavar="MODEL", help="A model that has the new tokenizer; only its rows are read."
)
@click.option(
    "--init",
    metavar="NAME",
    help="The method that makes missing rows, both sides; auto measures what loses least.  "
    "[default: auto]",
)
@click.option("--init-input", metavar="NAME", help="The method of the input rows (embedding).")
@click.option("--init-output", metavar="NAME", help="The method of the output rows (lm_head).")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="METHOD.KEY=VALUE",
    help="A setting: omp.k=32, or init.k=32 for whichever method is chosen.",
)
@click.option("--text", multiple=True, metavar="FILE", help="Text to measure source and result on.")
@click.option(
    "--calibration-text",
    multiple=True,
    metavar="FILE",
    help="Text that methods and calibration may look at; never the one it is measured on. The "
    "source writes some if not given.",
)
@console.other_text_option
@console.calibrate_option
@click.option(
    "--heal",
    type=click.FloatRange(min=0),
    metavar="MINUTES",
    help="Train the vocabulary rows for so long, the body frozen.",
)
@console.budget_option
@click.option(
    "--clip",
    type=click.FloatRange(min=0, max=100, min_open=True),
    metavar="PERCENTILE",
    help="Shorten new rows to this percentile of the trained rows' norms.",
)
@click.option("--baseline", multiple=True, metavar="NAME", help="A method to measure beside.")
@click.option("--untie", is_flag=True, help="Write two matrices where the source has one.")
@click.option("--pad-to-multiple-of", type=click.IntRange(min=1), metavar="N", help="Pad the rows.")
@click.option(
    "--for-draft",
    metavar="MODEL",
    help="Draft for MODEL: take its tokenizer and its number of rows.",
)
@click.option("--trim-rows", is_flag=True, help="Drop rows past the last id.")
@click.option(
    "--map",
    "mapping",
    multiple=True,
    metavar="TARGET=SOURCE",
    help="Take the row of one token for another, by spelling.",
)
@click.option(
    "--export-map",
    metavar="FILE",
    help="Write which source tokens stand for each target token: .jsonl, or .npz weights.",
)
@click.option("--chat-template", metavar="source|target|FILE", help="Whose template to write.")
@click.option("--recipe", metavar="FILE", help="A YAML recipe; options override its keys.")
@console.device_option
@console.dtype_option
@console.seed_option
@click.option("--dry-run", is_flag=True, help="Say what would be done; write nothing.")
@console.force_option
@console.plugin_option
@console.trust_option
@click.option("--allow-nonfinite", is_flag=True, help="Accept source rows with NaN or Inf.")
@console.seen_option
@click.option(
    "--allow-autotokenizer-mismatch",
    is_flag=True,
    help="Accept that AutoTokenizer loads the new tokenizer with other ids.",
)
@console.json_option
def command(
    source: str | None,
    tokenizer: str | None,
    output: str | None,
    donor: str | None,
    init: str | None,
    init_input: str | None,
    init_output: str | None,
    settings: tuple[str, ...],
    text: tuple[str, ...],
    calibration_text: tuple[str, ...],
    other_text: tuple[str, ...],
    calibrate: str | None,
    heal: float | None,
    budget: float | None,
    clip: float | None,
    baseline: tuple[str, ...],
    untie: bool,
    pad_to_multiple_of: int | None,
    for_draft: str | None,
    trim_rows: bool,
    mapping: tuple[str, ...],
    export_map: str | None,
    chat_template: str | None,
    recipe: str | None,
    device: str | None,
    dtype: str | None,
    seed: int | None,
    dry_run: bool,
    force: bool,
    plugins: tuple[str, ...],
    trust_remote_code: bool,
    allow_nonfinite: bool,
    allow_autotokenizer_mismatch: bool,
    allow_seen_text: bool,
    as_json: bool,
) -> None:
    """Give the checkpoint SOURCE another tokenizer and write the patched checkpoint.

    Rows of tokens that both tokenizers have are copied bit for bit; the rows of missing tokens are
    made by the methods that lose least on a little text (or by those named; see `tokensurgeon
    initialisers list`) and calibrated on it. With --text the patched model is measured beside its
    source in bits per byte.
    """
    asked = build_recipe(
        recipe,
        {
            "source": source,
            "tokenizer": tokenizer,
            "donor": donor,
            "output": output,
            "init.input": init_input or init,
            "init.output": init_output or init,
            "init.settings": parse_settings(settings),
            "text.evaluation": text,
            "text.calibration": calibration_text,
            "text.other": other_text,
            "calibrate": parse_stages(calibrate),
            "heal": heal,
            "budget": budget,
            "clip": clip,
            "baselines": baseline,
            "untie": untie,
            "pad_to_multiple_of": pad_to_multiple_of,
            "for_draft": for_draft,
            "trim_rows": trim_rows,
            "map": parse_map(mapping),
            "export_map": export_map,
            "chat_template": chat_template,
            "device": device,
            "dtype": dtype,
            "seed": seed,
            "force": force,
            "trust_remote_code": trust_remote_code,
            "allow_nonfinite": allow_nonfinite,
            "allow_autotokenizer_mismatch": allow_autotokenizer_mismatch,
            "allow_seen_text": allow_seen_text,
        },
    )
    if asked.output is None and not dry_run:
        raise click.UsageError("no output: give -o DIR, or --dry-run to write nothing")

    from tokensurgeon.report.terminal import print_report
    from tokensurgeon.surgery import transplant

    with console.progress() as progress:
        result = transplant(asked, dry_run=dry_run, plugins=plugins, progress=progress)
    if as_json:
        click.echo(result.report.to_json(), nl=False)
    else:
        print_report(console.stdout(), result.report)
