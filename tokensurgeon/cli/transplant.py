"""``tokensurgeon transplant``: move a model to another tokenizer."""

from __future__ import annotations

from dataclasses import asdict

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
    facts = report.model_dump(mode="json")
    if recipe.for_draft is None or report.written_to is None:
        console.write_result(as_json, facts, print_report, report)
        return
    from tokensurgeon.checkpoint.draft_engines import engine_rules
    from tokensurgeon.report.evaluation_tables import print_engines

    trust = recipe.trust_remote_code
    engines = engine_rules(report.written_to, recipe.for_draft, trust_remote_code=trust)
    facts["engines"] = [asdict(engine) for engine in engines]
    console.write_result(as_json, facts, print_report, report)
    if not as_json:
        print_engines(console.stdout(), engines)
