"""The surgery: the one room that knows the order of things.

`transplant` runs a recipe end to end; `compare` runs several initialisers on one pair under one
protocol. Both stand on `prepare` (read and align) and `patch_rows` (compute the matrices).
"""

from __future__ import annotations

from tokensurgeon.surgery.chosen_methods import default_methods
from tokensurgeon.surgery.prepare import Operation, prepare
from tokensurgeon.surgery.rows import PatchedRows, patch_rows
from tokensurgeon.surgery.transplant import SurgeryResult, transplant

__all__ = [
    "Operation",
    "PatchedRows",
    "SurgeryResult",
    "default_methods",
    "patch_rows",
    "prepare",
    "transplant",
]
