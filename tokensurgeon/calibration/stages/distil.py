"""Distil: train rows, and where wanted the body, on what the source implies."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from tokensurgeon.arrays import Ids
from tokensurgeon.calibration.contract import Candidates, Cost, on_the_way
from tokensurgeon.calibration.data import CalibrationData, TextSizes
from tokensurgeon.calibration.matrices import Matrices
from tokensurgeon.calibration.stages.taught import MOST_TOKENS, NO_STEP, Taught, usable_chunks
from tokensurgeon.calibration.stages.train import Bounds
from tokensurgeon.calibration.teacher.lessons import Teacher, batches
from tokensurgeon.calibration.teacher.parted_text import parted_texts
from tokensurgeon.calibration.training.distillation import distil
from tokensurgeon.calibration.training.loop import Trained
from tokensurgeon.calibration.training.teaching import CHUNKS_PER_STEP
from tokensurgeon.calibration.training.teaching import Taught as TaughtResult
from tokensurgeon.errors import CalibrationError
from tokensurgeon.models import LanguageModel
from tokensurgeon.progress import Clock, Progress, no_progress
from tokensurgeon.text.chunks import Chunk

LEAST_PARTED = 0.03
"""See `CalibrationData.parted_share`; from which the lessons are on text full of such words. It is
0.05 where Gemma's tokens become SmolLM2's, where such text wins, and 0.01 to 0.02 where SmolLM2's
become Llama-3's, gpt2's or Gemma's."""
PARTED_TIMES = 8
"""Times that it is made from the text, with other words each time: more than there is time for."""
SHARES = (0.5,)
"""Of the way to where the training led, tried besides. SmolLM2-135M, untied, 36,000 tokens; bits
per byte above the source on held-out articles, and the change on text that the source wrote:

    onto gpt2's tokens, from 0.193:     at 2.5 over the width 0.170 and -0.002 (half 0.175, -0.007),
                                        at 12 0.160 and +0.014, half of the way 0.160 and -0.009
    onto Llama-3's tokens, from 0.219:  at 12 0.216 and +0.022, three quarters 0.201 and +0.009,
                                        half 0.194 and 0.000, a third 0.194 and -0.003

At 25 three quarters end at 0.161 onto gpt2's, and +0.043."""
NO_PLAIN_HEAD = "the model's logits are no plain product"


class Distil(Taught):
    """Train new and shared rows on the source's implied distributions; no label plays a part.

    Every fourth chunk of text is one that the source wrote, from a token at random or one of many
    openings: rows that the calibration text has little of, such as those of spaces in code, drift
    on that text alone. Rows of shared tokens, which are the source's, move at half the rate; those
    of line ends and punctuation stay.

    Parameters
    ----------
    seconds : float
        For the training.
    seed : int
    progress : callable(done, total, what)
    """

    name = "distil"
    changes_shared = True
    kept_candidates = 1 + len(SHARES)

    def cost(self, sizes: TextSizes) -> Cost:
        """The seconds, of which the source writes in some, and a look at each candidate."""
        return replace(super().cost(sizes), passes=self.kept_candidates, writing=sizes.writing)

    def propose(self, data: CalibrationData, matrices: Matrices) -> Candidates:
        """Yield where the training led, and half of the way there."""
        if not data.model.plain_head:
            return f"no gain: {NO_PLAIN_HEAD}"
        clock = data.clock.within(self.seconds)
        done = _taught(data, matrices, data.movable, clock, MOST_TOKENS, self.seed, self.progress)
        if not done.n_steps:
            return NO_STEP
        settings = {"tokens": done.n_tokens, "steps": done.n_steps}
        yield from on_the_way(matrices, done.matrices, settings, SHARES)
        return None


@dataclass(frozen=True)
class TaughtRound:
    """A round of a training to convergence that the source teaches, and no text; see `TrainRound`.

    Where the body may change, it is trained too.

    Attributes
    ----------
    validate : callable(LanguageModel) -> float
        Bits per byte on text set aside.
    seed : int
    progress : callable(done, total, what)
    """

    validate: Callable[[LanguageModel], float]
    seed: int = 0
    progress: Progress = no_progress

    def __call__(self, data: CalibrationData, rows: Matrices, bounds: Bounds) -> Trained:
        """Return the best of the rows at the end, those on the way, and those at the start."""
        if not data.model.plain_head:
            raise CalibrationError(f"the source cannot teach: {NO_PLAIN_HEAD}")
        since, cpu_since = time.perf_counter(), time.process_time()
        best, before = rows, self.validate(data.patched(rows))
        read = time.process_time if data.model.device == "cpu" else time.perf_counter
        clock, seed = Clock(60 * bounds.minutes, read), self.seed + bounds.number
        done = _taught(
            data,
            rows,
            data.new_and_shared,
            clock,
            bounds.max_tokens,
            seed,
            self.progress,
            slower=bounds.slower,
        )
        least = before
        for candidate in on_the_way(rows, done.matrices, {}, SHARES):
            figure = self.validate(data.patched(candidate.matrices))
            if figure < least:
                best, least = candidate.matrices, figure
        return Trained(
            matrices=best,
            n_steps=done.n_steps,
            n_tokens=done.n_tokens,
            seconds=time.perf_counter() - since,
            cpu_seconds=time.process_time() - cpu_since,
            history=((0, before), (done.n_tokens, least)),
        )


def _taught(
    data: CalibrationData,
    matrices: Matrices,
    ids: Ids,
    clock: Clock,
    max_tokens: int | None,
    seed: int,
    progress: Progress,
    slower: float = 1.0,
) -> TaughtResult:
    """Train rows, and the body where it may change, on what the source implies of the text."""
    ordinary, parted = usable_chunks(data, data.texts.documents), _parted(data, seed)
    teacher = Teacher(data.fast, data.spellings)
    done = distil(
        data.fast,
        teacher,
        batches(
            data.spellings,
            parted or ordinary,
            ordinary if parted else (),
            usable_chunks(data, data.lessons),
            size=CHUNKS_PER_STEP,
            seed=seed,
        ),
        matrices,
        ids,
        calm=data.shared,
        slower=slower,
        clock=clock,
        max_tokens=max_tokens,
        body=data.body_weights,
        seed=seed,
        progress=progress,
    )
    data.forward_tokens += done.n_tokens + teacher.n_tokens
    data.gradient_steps += done.n_steps
    return done


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
