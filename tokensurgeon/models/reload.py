"""A written checkpoint is loaded as its users will load it, and run, before it is published."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from tokensurgeon.checkpoint.plan import PatchPlan
from tokensurgeon.errors import CheckpointError, reason
from tokensurgeon.models.language_model import LanguageModel
from tokensurgeon.models.load import as_model, load_checked

FLOAT32_TOLERANCE, HALF_TOLERANCE = 1e-5, 1e-2
"""How far logits may be apart in float32 and in other dtypes, as a share of the largest.

Both models compute the same on the same values: only the order of sums may differ. The relative
rounding of bfloat16 is 2⁻⁸.
"""


def reload_check(
    plan: PatchPlan, expected: LanguageModel | None = None
) -> Callable[[Path, Sequence[Sequence[int]]], None]:
    """Return a check for `write_checkpoint`: it loads the written folder and runs it.

    Parameters
    ----------
    plan : PatchPlan
    expected : LanguageModel or None
        A model patched in memory, whose logits the written one must give. Without it, logits must
        be finite only.

    Returns
    -------
    callable(folder, probes)
        Raises `CheckpointError` where a tensor does not fit, is missing or is new, where the model
        does not run on the probes (sequences of target ids), or where its logits are wrong.
    """

    def check(folder: Path, probes: Sequence[Sequence[int]]) -> None:
        written = _load(folder, plan, expected)
        for probe in probes:
            _check_logits(written, plan, probe, expected)

    return check


def _load(folder: Path, plan: PatchPlan, expected: LanguageModel | None) -> LanguageModel:
    """Load the folder in the dtype and on the device of the expected model."""
    dtype, device = ("float32", "cpu") if expected is None else (expected.dtype, expected.device)
    trusted = plan.checkpoint.trust_remote_code
    model = load_checked(folder, dtype=dtype, trust_remote_code=trusted)
    known = set(plan.checkpoint.tensors.where)
    strange = [name for name in model.unexpected_tensors if name not in known]
    if strange:
        raise CheckpointError(f"the written checkpoint has the unexpected tensor {strange[0]}")
    written = as_model(model.to(device), plan.checkpoint.layout)
    if written.n_rows != plan.n_new:
        raise CheckpointError(f"{plan.n_new} rows were written and {written.n_rows} are loaded")
    return written


def _check_logits(
    written: LanguageModel, plan: PatchPlan, probe: Sequence[int], expected: LanguageModel | None
) -> None:
    try:
        logits = written.logits(probe)
    except (RuntimeError, ValueError, IndexError, TypeError, AttributeError) as error:
        raise CheckpointError(f"the written checkpoint does not run: {reason(error)}") from error
    if not plan.allow_nonfinite and not np.isfinite(logits).all():
        raise CheckpointError("the written checkpoint computes logits that are not finite")
    if expected is None:
        return
    right = expected.logits(probe)
    largest = max(1.0, float(np.abs(right[np.isfinite(right)]).max(initial=0.0)))
    tolerance = FLOAT32_TOLERANCE if expected.dtype == "float32" else HALF_TOLERANCE
    if not np.allclose(logits, right, rtol=0, atol=tolerance * largest, equal_nan=True):
        raise CheckpointError(
            "the written checkpoint computes other logits than the patched model, "
            f"by {float(np.nanmax(np.abs(logits - right))):.3g}"
        )
