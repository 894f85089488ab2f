"""The surgery: the one room that knows the order of things.

`transplant` runs a recipe end to end. It stands on `prepare`, which reads and aligns and returns a
`Session`, and on `patch_rows`, which computes the matrices.
"""

from __future__ import annotations

from tokensurgeon.surgery.chosen_methods import default_methods
from tokensurgeon.surgery.prepare import prepare
from tokensurgeon.surgery.rows import PatchedRows, patch_rows
from tokensurgeon.surgery.session import Session
from tokensurgeon.surgery.transplant import SurgeryResult, transplant

__all__ = [
    "Session",
    "PatchedRows",
    "SurgeryResult",
    "default_methods",
    "patch_rows",
    "prepare",
    "transplant",
]
