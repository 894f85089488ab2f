"""A surgery by several processes of a launcher: one leads, and the others train rows with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tokensurgeon.calibration.training.together import follow
from tokensurgeon.errors import UsageError
from tokensurgeon.evaluation.shared_work import leading, shared_work
from tokensurgeon.models import load_model
from tokensurgeon.progress import Progress
from tokensurgeon.recipe import Recipe
from tokensurgeon.surgery.transplant import SurgeryResult, transplant


def transplant_together(
    recipe: Recipe,
    *,
    dry_run: bool = False,
    plugins: Sequence[str | Path] = (),
    progress: Progress | None = None,
) -> SurgeryResult | None:
    """Run a recipe in this process, or train along with the one that does.

    What the launcher says is in the environment; without one this is `transplant`. The first
    process reads, chooses, measures and writes; the steps of healing are taken by all of them, on
    batches that they divide. Its clock alone counts.

    Parameters
    ----------
    recipe : Recipe
    dry_run, plugins, progress
        As for `transplant`.

    Returns
    -------
    SurgeryResult or None
        None in a process that is not the first.

    Raises
    ------
    UsageError
        If there are several processes and nothing that they can divide.
    """
    work = shared_work()
    if work.n > 1:
        if dry_run or not recipe.heal:
            raise UsageError(
                f"{work.n} processes divide the training of --heal, and none is asked for: give "
                "--heal MINUTES, or start it without a launcher"
            )
        if recipe.heal_body:
            raise UsageError(
                "several processes train rows alone: leave out --heal-body, or start it without a "
                "launcher"
            )
    if work.rank:
        device = work.device(recipe.device)
        trust = recipe.trust_remote_code
        follow(
            load_model(recipe.source, device=device, dtype=recipe.dtype, trust_remote_code=trust),
            work,
        )
        return None
    with leading(work):
        return transplant(recipe, dry_run=dry_run, plugins=plugins, progress=progress)
