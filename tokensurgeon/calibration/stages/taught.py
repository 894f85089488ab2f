"""Stages that the source teaches: training by gradients, for seconds that the budget gives."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from tokensurgeon.calibration.contract import Cost, Stage
from tokensurgeon.calibration.data import CalibrationData, TextSizes
from tokensurgeon.calibration.training.teaching import WARM_UP_STEPS
from tokensurgeon.progress import Progress, no_progress
from tokensurgeon.text.chunks import CHUNK_SIZES, Chunk
from tokensurgeon.text.encoding import fitting_chunks

MOST_TOKENS = 300_000
"""Read at most; on two cores a model of 135M parameters reads a third of it in ten minutes."""
PASSES = 4
"""What a token costs, in tokens of a forward pass: the source's, the patched model's, the way back,
and what the heads and the distributions take."""
FIRST_TOKENS = WARM_UP_STEPS * 330
"""Of the steps in which the rates rise; SmolLM2-135M reads 320 to 340 tokens of prose at each.
Three steps, which `--budget 2` left time for, won 0.001 bits per byte in 13 seconds."""
NO_STEP = "no gain: no time, or no text, for a step"


class Taught(Stage):
    """A training on what the source says of a text; no label plays a part.

    Parameters
    ----------
    seconds : float
        For the training.
    seed : int
    progress : callable(done, total, what)
    """

    yields = 0.5

    def __init__(
        self, seconds: float = float("inf"), seed: int = 0, progress: Progress = no_progress
    ) -> None:
        self.seconds, self.seed, self.progress = seconds, seed, progress

    def cost(self, sizes: TextSizes) -> Cost:
        """The seconds, of which the source's run over the text is a part, and one look at it."""
        first = PASSES * FIRST_TOKENS
        return Cost(sizes.fit, passes=1, seconds=self.seconds, first_tokens=first)


def usable_chunks(data: CalibrationData, documents: Sequence[str]) -> list[Chunk]:
    """Return chunks of documents that fit the model."""
    chunks, _, fits = fitting_chunks(
        data.context.target, documents, data.model.max_positions, longest=CHUNK_SIZES[0]
    )
    return list(itertools.compress(chunks, fits.tolist()))
