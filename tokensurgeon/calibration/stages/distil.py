"""Distil: train rows, and where wanted the body, on what the source implies."""

from __future__ import annotations

from tokensurgeon.calibration.contract import Candidate, Candidates
from tokensurgeon.calibration.data import CalibrationData
from tokensurgeon.calibration.matrices import Matrices
from tokensurgeon.calibration.stages.taught import MOST_TOKENS, NO_STEP, Taught, usable_chunks
from tokensurgeon.calibration.teacher.lessons import Teacher
from tokensurgeon.calibration.teacher.parted_text import parted_texts
from tokensurgeon.calibration.training.distillation import RATE_BY_WIDTH, distil
from tokensurgeon.text.chunks import Chunk

LEAST_PARTED = 0.03
"""See `CalibrationData.parted_share`; from which the lessons are on text full of such words. It is
0.05 where Gemma's tokens become SmolLM2's, where such text wins, and 0.01 to 0.02 where SmolLM2's
become Llama-3's, gpt2's or Gemma's."""
PARTED_RATE_BY_WIDTH = 12.0
"""The rate there, in the place of `RATE_BY_WIDTH`. Gemma-3-270M to SmolLM2's tokens, tied, budget
10: the gap ends at 0.153 bits per byte with 12, 0.159 with 5 and 0.161 with 2.5. Text that the
source wrote gains at each of them."""
PARTED_TIMES = 8
"""Times that it is made from the text, with other words each time: more than there is time for."""
RANK = 16
"""Of the body's update: a few million numbers in a model of 135M parameters."""
SHARE_OF_BLOCKS = 0.25
"""Of the blocks, the first and the last each, whose weights the update may change: where text of
other tokens enters, and where the next token is formed."""


class Distil(Taught):
    """Train new and shared rows on the source's implied distributions; no label plays a part.

    Parameters
    ----------
    seconds : float
        For the training.
    seed : int
    progress : callable(done, total, what)
    """

    name = "distil"
    changes_shared = True

    def propose(self, data: CalibrationData, matrices: Matrices) -> Candidates:
        """Yield where the training led."""
        if not data.model.plain_head:
            return "no gain: the model's logits are no plain product"
        ordinary, parted = usable_chunks(data, data.texts.documents), _parted(data, self.seed)
        blocks = max(1, round(SHARE_OF_BLOCKS * data.model.n_layers))
        teacher = Teacher(data.fast, data.spellings)
        done = distil(
            data.fast,
            teacher,
            parted or ordinary,
            matrices,
            data.new_and_shared,
            beside=ordinary if parted else (),
            rate_by_width=PARTED_RATE_BY_WIDTH if parted else RATE_BY_WIDTH,
            clock=data.clock.within(self.seconds),
            max_tokens=MOST_TOKENS,
            low_rank=(RANK, blocks, blocks) if data.body_weights else None,
            allowed=data.body_weights,
            seed=self.seed,
            progress=self.progress,
        )
        data.forward_tokens += done.n_tokens + teacher.n_tokens
        data.gradient_steps += done.n_steps
        if not done.n_steps:
            return NO_STEP
        yield Candidate.of({"tokens": done.n_tokens, "steps": done.n_steps}, done.matrices)
        return None


def _parted(data: CalibrationData, seed: int) -> list[Chunk]:
    """Return chunks whose words are replaced by such as the target parts; none where few are."""
    if data.parted_share < LEAST_PARTED:
        return []
    texts = parted_texts(
        data.spellings,
        data.source_head,
        data.source_positions,
        data.source_states(),
        data.source_mean,
        n=PARTED_TIMES,
        seed=seed,
    )
    return usable_chunks(data, list(texts))
