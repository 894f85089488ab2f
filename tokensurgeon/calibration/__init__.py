"""Calibration: what is fitted after initialisation, each stage kept only where it helps.

Closed-form stages (`STAGES`) stand on a `Workbench`: the source's states on a little text, and
where the tokens of both tokenizers meet on it. `train_rows` is the one that takes gradients.
"""

from __future__ import annotations

from tokensurgeon.calibration.acceptance import STAGES, calibrate, check_stages, default_stages
from tokensurgeon.calibration.calibration_texts import (
    CalibrationTexts,
    generate_texts,
    split_texts,
)
from tokensurgeon.calibration.contract import Matrices, Stage, StageRecord
from tokensurgeon.calibration.data import Workbench, make_workbench
from tokensurgeon.calibration.training.loop import Healed, rate_for, train_rows

__all__ = [
    "STAGES",
    "CalibrationTexts",
    "Healed",
    "Matrices",
    "Stage",
    "StageRecord",
    "Workbench",
    "calibrate",
    "check_stages",
    "default_stages",
    "generate_texts",
    "make_workbench",
    "rate_for",
    "split_texts",
    "train_rows",
]
