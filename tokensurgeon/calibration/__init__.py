"""Calibration: what is fitted after initialisation, each stage kept only where it helps.

A stage (`Stage`) proposes rows, `acceptance` measures them on text that the stage was not fitted
to, and `calibrate` runs stages in turn on `CalibrationData`: the source's states on a little text,
and where the tokens of both tokenizers meet on it.
"""

from __future__ import annotations

from tokensurgeon.calibration.acceptance import Acceptance
from tokensurgeon.calibration.contract import Candidate, Cost, Stage, StageRecord
from tokensurgeon.calibration.data import CalibrationData, TextSizes
from tokensurgeon.calibration.matrices import Matrices
from tokensurgeon.calibration.read_data import read_calibration_data
from tokensurgeon.calibration.run import Calibrated, calibrate
from tokensurgeon.calibration.stages import STAGES, find_stages

__all__ = [
    "STAGES",
    "Acceptance",
    "Calibrated",
    "CalibrationData",
    "Candidate",
    "Cost",
    "Matrices",
    "Stage",
    "StageRecord",
    "TextSizes",
    "calibrate",
    "find_stages",
    "read_calibration_data",
]
