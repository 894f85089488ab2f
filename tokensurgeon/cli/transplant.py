"""``tokensurgeon transplant``: move a model to another tokenizer."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from tokensurgeon.cli import console
from tokensurgeon.cli.push import base_model_option, private_option
from tokensurgeon.cli.recipe_options import OPTIONS, takes_recipe
from tokensurgeon.recipe import Recipe


@click.command(short_help="Move a model to another tokenizer.")
@takes_recipe(*OPTIONS)
@console.option("--dry-run", "Say what would be done; write nothing.")
@console.option(
    "--push USER/NAME", "Push the result to this new repository of the hub; see 'push' for more."
)
@private_option
@base_model_option
@console.track_option
@console.plugin_option
@console.json_option
def command(
    recipe: Recipe,
    dry_run: bool,
    track: str | None,
    push: str | None,
    private: bool,
    base_model: str | None,
    plugins: tuple[str, ...],
    as_json: bool,
) -> None:
    """Give the checkpoint SOURCE another tokenizer and write the patched checkpoint.

    Rows of tokens that both tokenizers have are copied bit for bit; the rows of missing tokens are
    made by the methods that lose least on a little text (or by those named; see `tokensurgeon
    initialisers list`) and calibrated on it. With --text the patched model is measured beside its
    source in bits per byte.
    """
    if recipe.output is None and not dry_run:
        raise click.UsageError("no output: give -o DIR, or --dry-run to write nothing")
    if push is None and (private or base_model):
        raise click.UsageError("--private and --base-model are of a push: give --push USER/NAME")
    if push is not None:
        from tokensurgeon.handover.hub_push import check_repository, check_target, look_up, sign_in

        check_repository(push)
        if recipe.output is None:
            raise click.UsageError("a push needs a folder that stays: give -o DIR")
        if not dry_run:  # what would end the push ends it before the work
            check_target(push, look_up(sign_in(), push), private=private)

    from tokensurgeon.evaluation.shared_work import shared_work
    from tokensurgeon.report.terminal import print_report
    from tokensurgeon.surgery.by_processes import transplant_together

    apart = (recipe.source, recipe.output)
    followed = track if shared_work().rank == 0 else None  # of several processes the first follows
    with console.tracked_progress(followed, apart, dry_run=dry_run) as progress:
        result = transplant_together(recipe, dry_run=dry_run, plugins=plugins, progress=progress)
    if result is None:  # another process writes
        return
    report = result.report
    facts = report.model_dump(mode="json")
    engines: tuple[Any, ...] = ()
    if recipe.for_draft is not None and report.written_to is not None:
        from tokensurgeon.checkpoint.draft_engines import engine_rules

        trust = recipe.trust_remote_code
        engines = engine_rules(report.written_to, recipe.for_draft, trust_remote_code=trust)
        facts["engines"] = [asdict(engine) for engine in engines]
    if as_json:
        if push is not None and not dry_run:
            facts["push"] = _push(str(report.written_to), push, private, base_model, as_json)
        console.write_json(facts)
        return
    print_report(console.stdout(), report)
    if recipe.for_draft is not None and report.written_to is not None:
        from tokensurgeon.report.evaluation_tables import print_engines

        print_engines(console.stdout(), engines)
    if push is not None and not dry_run:
        _push(str(report.written_to), push, private, base_model, as_json)


def _push(
    folder: str, repository: str, private: bool, base_model: str | None, as_json: bool
) -> dict[str, Any]:
    """Push the result; where that fails, say what pushes the folder that stands."""
    from tokensurgeon.errors import HubError
    from tokensurgeon.handover.hub_push import push
    from tokensurgeon.handover.pushed_copy import pushed_copy
    from tokensurgeon.report.handover_tables import print_push, print_pushed

    with console.progress() as progress:
        copy = pushed_copy(folder, repository, base_model=base_model, progress=progress)
    facts = {**copy.facts(), "private": private, "branch": None, "pull_request": False}
    if not as_json:
        print_push(console.stdout(), facts)
    try:
        with console.progress() as progress:
            facts["pushed"] = asdict(push(copy, private=private, progress=progress))
    except HubError as error:
        raise HubError(
            f"{folder} is written, and not pushed: {error}; run 'tokensurgeon push' on it"
        ) from error
    if not as_json:
        print_pushed(console.stdout(), facts["pushed"])
    return facts
