"""What untying a tied source costs, and what it buys: the same surgery with one matrix beside."""

from __future__ import annotations

import dataclasses

from tokensurgeon.recipe import InitSpec
from tokensurgeon.report.model import UntieFacts
from tokensurgeon.surgery.prepare import Operation
from tokensurgeon.surgery.rows import PatchedRows, patch_rows

TIED_METHOD = "subword-mean"
"""The method that serves a tied matrix; what `default_methods` takes there."""

TIED_ENTRY = f"{TIED_METHOD}, tied"
"""What it is called in an evaluation."""

ITEM_BYTES = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}


def untied(operation: Operation) -> bool:
    """Say whether the surgery gives a tied source two matrices."""
    return operation.checkpoint.layout.tied and operation.recipe.untie


def untie_facts(operation: Operation) -> UntieFacts | None:
    """Return what untying adds to the checkpoint, or None where nothing is untied."""
    if not untied(operation):
        return None
    itemsize = ITEM_BYTES[operation.checkpoint.dtype]
    extra = operation.n_rows * operation.checkpoint.layout.width * itemsize
    return UntieFacts(extra_bytes=extra, tied_entry=TIED_ENTRY)


def tied_rows(operation: Operation) -> PatchedRows:
    """Return the rows that the plain method makes where the source stays tied.

    They are measured beside an untied result under the name `TIED_ENTRY`.
    """
    twin = tied_twin(operation)
    return patch_rows(twin, (TIED_METHOD, TIED_METHOD), InitSpec())


def tied_twin(operation: Operation) -> Operation:
    """Return the operation without its untying; model, texts and source rows are shared."""
    twin = dataclasses.replace(
        operation, recipe=operation.recipe.model_copy(update={"untie": False})
    )
    twin.bench = None  # it was made for two matrices
    for name in ("model", "states", "calibration_texts"):
        if name in vars(operation):
            vars(twin)[name] = vars(operation)[name]
    vars(twin)["context"] = dataclasses.replace(operation.context, tied=twin.tied)
    return twin
