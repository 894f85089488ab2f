"""``tokensurgeon transplant``: move a model to another tokenizer."""

from __future__ import annotations

import click

from tokensurgeon.cli import console
from tokensurgeon.cli.recipe_options import OPTIONS, takes_recipe
from tokensurgeon.recipe import Recipe


@click.command(short_help="Move a model to another tokenizer.")
@takes_recipe(*OPTIONS)
@console.option("--dry-run", "Say what would be done; write nothing.")
@console.plugin_option
@console.json_option
def command(recipe: Recipe, dry_run: bool, plugins: tuple[str, ...], as_json: bool) -> None:
    """Give the checkpoint SOURCE another tokenizer and write the patched checkpoint.

    Rows of tokens that both tokenizers have are copied bit for bit; the rows of missing tokens are
    made by the methods that lose least on a little text (or by those named; see `tokensurgeon
    initialisers list`) and calibrated on it. With --text the patched model is measured beside its
    source in bits per byte.
    """
    if recipe.output is None and not dry_run:
        raise click.UsageError("no output: give -o DIR, or --dry-run to write nothing")

    from tokensurgeon.report.terminal import print_report
    from tokensurgeon.surgery import transplant

    with console.progress() as progress:
        report = transplant(recipe, dry_run=dry_run, plugins=plugins, progress=progress).report
    console.write_result(as_json, report.model_dump(mode="json"), print_report, report)
    if recipe.for_draft is not None and report.written_to is not None and not as_json:
        from tokensurgeon.checkpoint.draft_engines import engine_rules
        from tokensurgeon.report.evaluation_tables import print_engines

        trust = recipe.trust_remote_code
        engines = engine_rules(report.written_to, recipe.for_draft, trust_remote_code=trust)
        console.write_result(False, None, print_engines, engines)
