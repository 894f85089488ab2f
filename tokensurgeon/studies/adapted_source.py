"""The source after the calibration that a method had: what of a gain is adaptation to the text.

A stage that changes shared rows, or training, would help the source on its own text too. The gap
is then taken from the source after the same stages.
"""

from __future__ import annotations

from typing import Any

from tokensurgeon.calibration import STAGES, find_stages
from tokensurgeon.calibration.stages.train import Heal
from tokensurgeon.progress import Timings
from tokensurgeon.recipe import InitSpec
from tokensurgeon.surgery.calibrate import calibrate_rows
from tokensurgeon.surgery.prepare import read_inputs
from tokensurgeon.surgery.rows import PatchedRows, patch_rows
from tokensurgeon.surgery.session import Session


def adapting_stages(rows: PatchedRows) -> tuple[tuple[str, ...], float]:
    """Return which of a method's kept stages adapt to the text, and its kept minutes of healing."""
    kept = [record for record in rows.stages if record.kept]
    stages = {stage.name for stage in find_stages(tuple(STAGES), rows.tied) if stage.adapts_to_text}
    names = tuple(
        record.stage
        for record in kept
        if record.stage in stages and record.settings.get("rows") != "new"
    )
    minutes = [float(record.settings["minutes"]) for record in kept if record.stage == Heal.name]
    return names, sum(minutes)


def label(stages: tuple[str, ...], heal: float) -> str:
    """Name the source after some stages, as in ``source+fold+heal=5``."""
    return "+".join(["source", *stages, *([f"heal={heal:g}"] if heal else [])])


def onto_itself(session: Session) -> tuple[Session, PatchedRows]:
    """Return a session of the source onto its own tokenizer, and its rows.

    It shares the source's model and the texts.
    """
    own: dict[str, Any] = {
        "tokenizer": str(session.inputs.checkpoint.path),
        "donor": None,
        "for_draft": None,
        "draft_vocabulary": None,
        "output": None,
        "map": {},
        "pad_to_multiple_of": 1,
    }
    recipe = session.recipe.model_copy(update=own)
    twin = session.variant(inputs=read_inputs(recipe, session.progress, Timings()))
    return twin, patch_rows(twin, ("subword-mean", "subword-mean"), InitSpec())


def adapted_source(
    session: Session, stages: tuple[str, ...], heal: float
) -> tuple[Session, PatchedRows]:
    """Fit the source's own rows as a method's were; a stage that does not help it is not kept.

    Raises
    ------
    TokensurgeonError
        If a stage cannot work on the source.
    """
    twin, rows = onto_itself(session)
    return twin, calibrate_rows(twin, rows, stages, heal).to_rows(twin)
