"""Where the rows of a patched matrix come from, told from the alignment alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tokensurgeon.alignment import Match
from tokensurgeon.arrays import Ids
from tokensurgeon.surgery.inputs import Inputs

ORIGINS = (
    "copied", "initialised", "unspellable", "control", "padding", "alias", "recalibrated",
    "unreached",
)  # fmt: skip
"""Where a row came from; `Side.origin` holds indices into this. An alias is an id that means the
same as another one and is never emitted: its output row is suppressed, or its mass would count
twice. A recalibrated row was the source's until a calibration changed it. An unreached id is never
emitted since digits are cut as in the source.
"""
COPIED, INITIALISED, UNSPELLABLE, CONTROL, PADDING, ALIAS, RECALIBRATED, UNREACHED = range(
    len(ORIGINS)
)

FALLBACK = (UNSPELLABLE, CONTROL, PADDING, ALIAS, UNREACHED)
"""Origins of rows that no method makes."""


def copied_rows(inputs: Inputs, side: str) -> Ids:
    """Return which source row each patched row copies, or -1, int64 (n_rows,).

    `side` is ``input``, ``output`` or ``tied``. The target's start token takes its input row from
    the source's start token, also where it is EOS that starts a text. A tied row follows the
    input side, but the rows of silent aliases, which only the output side knows.
    """
    alignment = inputs.alignment
    n_target = alignment.target.n_rows
    copied = np.full(inputs.n_rows, -1, dtype=np.int64)
    copied[:n_target] = alignment.source_ids
    if alignment.is_identity or alignment.is_permutation:
        # The source's own vocabulary: padding rows and holes stay too, each source row once.
        n_source = inputs.checkpoint.layout.n_rows
        spare = np.setdiff1d(np.arange(n_source), copied)
        in_place = spare[spare < copied.size]
        in_place = in_place[copied[in_place] < 0]
        copied[in_place] = in_place
        spare, free = np.setdiff1d(spare, in_place), np.flatnonzero(copied < 0)
        n = min(free.size, spare.size)
        copied[free[:n]] = spare[:n]
        return copied
    if side != "input":
        silent = alignment.output_source_ids < 0
        outputs = np.where(silent, -1, alignment.source_ids)
        copied[:n_target] = alignment.output_source_ids if side == "output" else outputs
    if side != "output":
        start, source_start = alignment.target.start_id, alignment.source.start_id
        mapped = start is None or alignment.match[start] == Match.MAP
        if not mapped and start is not None and source_start is not None:
            copied[start] = source_start
    return copied


def row_origins(inputs: Inputs, copied: Ids) -> npt.NDArray[np.uint8]:
    """Say for each row where it comes from, as indices into `ORIGINS`."""
    alignment = inputs.alignment
    origin = np.full(inputs.n_rows, PADDING, dtype=np.uint8)
    origin[list(inputs.pieces)] = INITIALISED
    origin[inputs.unspellable] = UNSPELLABLE
    origin[inputs.unreached] = UNREACHED
    origin[alignment.unmatched_controls] = CONTROL
    origin[alignment.shared] = ALIAS
    origin[copied >= 0] = COPIED
    return origin
