"""``tokensurgeon push``: a finished checkpoint, to the Hugging Face hub."""

from __future__ import annotations

from dataclasses import asdict

import click

from tokensurgeon.cli import console

base_model_option = console.option(
    "--base-model ID", "The hub's id of the source, for the card; else it is left out or as read."
)
private_option = console.option("--private", "Make a new repository private.")


@click.command(short_help="A finished checkpoint, to the Hugging Face hub.")
@click.argument("checkpoint", metavar="DIR")
@click.argument("repository", metavar="USER/NAME")
@private_option
@console.option("--branch NAME", "Write to this branch; it is made where it is not there.")
@console.option("--create-pr", "Open a pull request instead of writing to the repository.")
@console.option(
    "--force",
    "Write over a repository or a branch that is there; its older commits keep what was.",
)
@base_model_option
@console.option("--license ID", "The licence, for the card; else that of the source's card.")
@console.option("--dry-run", "Say what would go; ask nothing of the hub.")
@console.json_option
def command(
    checkpoint: str,
    repository: str,
    private: bool,
    branch: str | None,
    create_pr: bool,
    force: bool,
    base_model: str | None,
    license: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Push DIR, which transplant wrote, to the repository USER/NAME of the hub.

    DIR is verified first, and what would go is said. Paths of this machine are replaced by names
    in what goes. The token is that of HF_TOKEN, or of 'hf auth login'. A repository that has files
    is left as it is unless --force, --branch or --create-pr say otherwise.
    """
    from tokensurgeon.handover.hub_push import check_repository, push
    from tokensurgeon.handover.pushed_copy import pushed_copy
    from tokensurgeon.report.handover_tables import print_push, print_pushed

    check_repository(repository)
    if create_pr and branch is not None:
        raise click.UsageError(
            "a pull request has a branch of its own: leave out --branch or --create-pr"
        )
    with console.progress() as progress:
        copy = pushed_copy(
            checkpoint, repository, base_model=base_model, licence=license, progress=progress
        )
    facts = {**copy.facts(), "private": private, "branch": branch, "pull_request": create_pr}
    facts["pushed"] = None
    if not as_json:
        print_push(console.stdout(), facts)
    if not dry_run:
        with console.progress() as progress:
            pushed = push(
                copy,
                private=private,
                force=force,
                create_pr=create_pr,
                branch=branch,
                progress=progress,
            )
        facts["pushed"] = asdict(pushed)
    if as_json:
        console.write_json(facts)
    elif not dry_run:
        print_pushed(console.stdout(), facts["pushed"])
