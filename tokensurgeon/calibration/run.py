"""A calibration: stages in turn, each on what the last left; gone on with where it was left."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tokensurgeon.calibration.acceptance import Acceptance, Standing, run_stage
from tokensurgeon.calibration.contract import Stage, StageRecord
from tokensurgeon.calibration.data import CalibrationData
from tokensurgeon.calibration.matrices import Matrices
from tokensurgeon.progress import Progress, no_progress


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
    seconds: float = float("inf"),
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
    seconds : float
        No stage is begun once this much time is spent. Stages that have a time of their own, such
        as a training, are, and their time does not count.
    acceptance : Acceptance, optional
        What decides over candidates; by default the texts of `data`.
    progress : callable(done, total, what)
    """
    acceptance = acceptance or Acceptance.of(data)
    if isinstance(start, Matrices):
        start = Calibrated(Standing.of(acceptance, start))
    done, left = start, seconds
    for number, stage in enumerate(stages):
        progress(number, len(stages), f"calibrating: {stage.name}")
        if stage.after_training and done.before_training is None:
            done = replace(done, before_training=done)
        own_time = stage.cost(data.sizes).seconds > 0
        if left <= 0 and not own_time:
            why = f"not tried: the budget of {seconds / 60:.3g} minutes is spent"
            record = StageRecord(stage.name, False, why, before=done.standing.bits)
            done = replace(done, records=(*done.records, record))
            continue
        since = time.perf_counter()
        standing, record = run_stage(data, done.standing, stage, acceptance)
        done = replace(done, standing=standing, records=(*done.records, record))
        if not own_time:
            left -= time.perf_counter() - since
    progress(len(stages), len(stages), "calibrating")
    return done
