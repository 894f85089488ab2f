"""What was read for a surgery, frozen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tokensurgeon.alignment import Alignment
from tokensurgeon.arrays import Ids
from tokensurgeon.checkpoint import Checkpoint
from tokensurgeon.initialisers.contract import DonorRows
from tokensurgeon.recipe import Recipe
from tokensurgeon.surgery.held_text import HeldText


@dataclass(frozen=True)
class Inputs:
    """Everything that was read for a surgery, and aligned; nothing is computed or written.

    Attributes
    ----------
    recipe : Recipe
    checkpoint : Checkpoint
        The source.
    alignment : Alignment
    pieces : mapping of int to tuple of int
        Missing target id → the source ids that spell it; ids that nothing can spell are absent.
    unspellable : int64
        Missing target ids without pieces.
    unreached : int64
        Missing target ids that encoding no longer emits, since digits are cut as in the source.
    donor : DonorRows or None
    donor_facts : dict or None
        For the report.
    n_rows : int
        Rows of the patched matrices.
    held : HeldText or None
        The text of the target's training and what is held out of it, where the recipe asks for it.
    notes : tuple of str
        What the user should know of what was read.
    """

    recipe: Recipe
    checkpoint: Checkpoint
    alignment: Alignment
    pieces: Mapping[int, tuple[int, ...]]
    unspellable: Ids
    donor: DonorRows | None
    donor_facts: Mapping[str, Any] | None
    n_rows: int
    notes: tuple[str, ...] = ()
    held: HeldText | None = None
    unreached: Ids = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    @property
    def tied(self) -> bool:
        """Whether the patched checkpoint has one matrix for both sides."""
        return self.checkpoint.layout.tied and not self.recipe.untie

    @property
    def untied(self) -> bool:
        """Whether the surgery gives a tied source two matrices."""
        return self.checkpoint.layout.tied and self.recipe.untie
