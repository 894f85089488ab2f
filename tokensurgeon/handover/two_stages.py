"""The two stages of further training in numbers, each with where it comes from.

The order is that of arXiv 2402.14714 (EEVE) and arXiv 2607.15232: new rows alone, then everything.
Neither gives numbers for a short run on one device, so these come from several places. They are
where to start, not what is best for a model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

STEPS = (300, 200)
"""Of each stage. Their sum: after 500 steps a good start was as good as a mean one after six times
as many (arXiv 2608.03494). Their proportion: 600 to 400 billion tokens (arXiv 2607.15232)."""
ROWS_RATE = 2e-4
"""Highest learning rate of stage 1, that of the scripts of Chinese-LLaMA (arXiv 2304.08177)."""
LORA_RATE = 1e-4
"""Highest learning rate of LoRA in stage 2, that of the scripts of arXiv 2406.11477."""
FULL_RATE = 2e-5
"""Highest learning rate where every weight is trained: TRL's own default."""
WARMUP = 0.05
"""Share of the steps in which the rate rises; it then falls as a cosine (both scripts)."""
BATCH, LENGTH = 8, 512
"""Sequences of a step and tokens of a sequence: one device of arXiv 2304.08177."""
AT_ONCE = 1
"""Sequences in memory together, as there; the gradients of a step are summed over the rest."""
LORA = {"r": 8, "lora_alpha": 32, "lora_dropout": 0.05}
"""Of arXiv 2304.08177."""


@dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes
    ----------
    steps : int
    rate : float
        The highest learning rate.
    """

    steps: int
    rate: float
    warmup: float = WARMUP
    batch: int = BATCH
    at_once: int = AT_ONCE
    length: int = LENGTH


def stages(has_rows: bool, longest: int | None) -> tuple[Stage, Stage]:
    """Return both stages for a model.

    Parameters
    ----------
    has_rows : bool
        Whether there are new rows. Where there are none, the second stage is the only one, and
        takes all steps.
    longest : int or None
        Tokens that the model can take, where it says so.
    """
    length = LENGTH if longest is None else min(LENGTH, longest)
    steps = STEPS if has_rows else (0, sum(STEPS))
    return Stage(steps[0], ROWS_RATE, length=length), Stage(steps[1], FULL_RATE, length=length)


def as_data(rows: Stage | None, full: Stage) -> dict[str, Any]:
    """Return what the scripts read: each stage by name, and what PEFT does otherwise."""
    second = {**vars(full), "peft": {"rate": LORA_RATE, "lora": LORA}}
    return {**({} if rows is None else {"stage 1": vars(rows)}), "stage 2": second}
