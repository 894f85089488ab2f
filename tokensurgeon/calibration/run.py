"""A calibration: stages in turn, each on what the last left; gone on with where it was left.

A deadline bounds all of it: a stage that does not fit into what is left is not begun, one that is
under way asks for no further candidate, and a training gets what is left for it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tokensurgeon.calibration.acceptance import Acceptance, Standing, run_stage
from tokensurgeon.calibration.contract import Cost, Stage, StageRecord
from tokensurgeon.calibration.data import CalibrationData
from tokensurgeon.calibration.matrices import Matrices
from tokensurgeon.calibration.stage_plans import Plan
from tokensurgeon.progress import Clock, Progress, no_progress


@dataclass(frozen=True)
class Calibrated:
    """Rows after some stages.

    Attributes
    ----------
    standing : Standing
        The rows, and what they cost.
    records : tuple of StageRecord
        One for each stage, in order.
    before_training : Calibrated or None
        The same before the first stage that comes after a training, if one was tried.
    """

    standing: Standing
    records: tuple[StageRecord, ...] = ()
    before_training: Calibrated | None = None

    @property
    def matrices(self) -> Matrices:
        """The rows."""
        return self.standing.matrices


def calibrate(
    data: CalibrationData,
    start: Matrices | Calibrated,
    stages: Sequence[Stage],
    *,
    clock: Clock | None = None,
    acceptance: Acceptance | None = None,
    progress: Progress = no_progress,
) -> Calibrated:
    """Try the stages in turn.

    Parameters
    ----------
    data : CalibrationData
    start : Matrices or Calibrated
        The rows to start from, not changed; or an earlier calibration to go on with.
    stages : sequence of Stage
    clock : Clock, optional
        Until when all of it is to be done; without one there is no end.
    acceptance : Acceptance, optional
        What decides over candidates; by default the texts of `data`.
    progress : callable(done, total, what)
    """
    clock = clock or Clock()
    acceptance = acceptance or Acceptance.of(data)
    if isinstance(start, Matrices):
        look = Cost().work_seconds(data.pace, data.sizes)
        able = any(Plan.of(stage, data).needed + look < clock.left() for stage in stages)
        start = Calibrated(Standing.of(acceptance, start) if able else Standing(start, math.nan))
    done = start
    for number, stage in enumerate(stages):
        progress(number, len(stages), f"calibrating: {stage.name}")
        if stage.after_training and done.before_training is None:
            done = replace(done, before_training=done)
        plan, *later = (Plan.of(one, data) for one in stages[number:])
        room = plan.room(clock.left(), later)
        if room < plan.needed or math.isnan(done.standing.bits):
            why = f"not tried: it needs about {plan.needed:.0f} s, {max(0.0, room):.0f} s are left"
            before = None if math.isnan(done.standing.bits) else float(done.standing.bits)
            record = StageRecord(stage.name, False, why, before=before)
            done = replace(done, records=(*done.records, record))
            continue
        data.end = clock.within(room)
        data.clock = clock.within(plan.training(room)) if plan.own else data.end
        standing, record = run_stage(data, done.standing, stage, acceptance)
        done = replace(done, standing=standing, records=(*done.records, record))
    data.clock = data.end = Clock()
    progress(len(stages), len(stages), "calibrating")
    return done
