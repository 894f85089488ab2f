"""The source after the calibration that a method had: what of a gain is adaptation to the text.

A stage that changes shared rows, or training, would help the source on its own text too. The gap
is then taken from the source after the same stages.
"""

from __future__ import annotations

from typing import Any

from tokensurgeon.recipe import InitSpec
from tokensurgeon.surgery.prepare import Operation, prepare
from tokensurgeon.surgery.rows import PatchedRows, patch_rows

ADAPTING = ("stand-in", "match-shared", "fold", "unigram-shared", "refit")
"""Stages that change rows which both tokenizers have; the others make new rows only."""


def adapting(rows: PatchedRows) -> tuple[tuple[str, ...], float]:
    """Return which of a method's kept stages adapt to the text, and its kept minutes of healing."""
    kept = [record for record in rows.stages if record.kept]
    stages = tuple(
        record.stage
        for record in kept
        if record.stage in ADAPTING and record.settings.get("rows") != "new"
    )
    minutes = [float(record.settings["minutes"]) for record in kept if record.stage == "heal"]
    return stages, sum(minutes)


def label(stages: tuple[str, ...], heal: float) -> str:
    """Name the source after some stages, as in ``source+fold+heal=5``."""
    return "+".join(["source", *stages, *([f"heal={heal:g}"] if heal else [])])


def adapted_source(
    operation: Operation, stages: tuple[str, ...], heal: float
) -> tuple[Operation, PatchedRows]:
    """Fit the source's own rows as a method's were; a stage that does not help it is not kept.

    Returns
    -------
    Operation, PatchedRows
        The surgery of the source onto its own tokenizer, and its rows.

    Raises
    ------
    TokensurgeonError
        If a stage cannot work on the source.
    """
    from tokensurgeon.surgery.calibrate import calibrated

    own = str(operation.checkpoint.path)
    changes: dict[str, Any] = {
        "tokenizer": own,
        "donor": None,
        "output": None,
        "map": {},
        "pad_to_multiple_of": 1,
    }
    twin = prepare(operation.recipe.model_copy(update=changes), operation.progress)
    vars(twin)["model"] = operation.model
    vars(twin)["calibration_texts"] = operation.calibration_texts
    rows = patch_rows(twin, ("subword-mean", "subword-mean"), InitSpec())
    return twin, calibrated(twin, rows, stages, heal)
