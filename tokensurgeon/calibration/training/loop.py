"""The training of vocabulary rows on a text, the body frozen ("healing").

The loss is that of the text under the target's tokenizer, as evaluation reads it. Only rows that a
mask names are changed; all others come back bit for bit. Of the rows at a few moments, the ones
that do best on text that was not trained on are kept, the rows at the start among them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tokensurgeon.arrays import Mask
from tokensurgeon.calibration.matrices import Matrices
from tokensurgeon.calibration.training.batches import TrainingText
from tokensurgeon.calibration.training.together import make_trainer
from tokensurgeon.calibration.training.trainer import State, Trainer
from tokensurgeon.errors import UsageError
from tokensurgeon.models import LanguageModel
from tokensurgeon.progress import Clock, Progress, no_progress, track
from tokensurgeon.vocabulary import Vocabulary

Selection = Callable[[LanguageModel], float]

WHAT = "healing"
"""What its progress calls the training."""

RATE_BY_WIDTH, HIGHEST_RATE = 6.4, 0.2
"""The learning rate is the first over the width, at most the second, in units of the root mean
square of the rows at the start. Steps of a row add up along a state, so wider rows bear smaller
ones; 6.4 was found on widths of 64 (0.1 beats 0.05) and 192 (0.03 beats 0.05 and 0.1)."""
TOKENS_PER_STEP = 1024
"""A step costs about what its tokens cost and what writing the rows costs: so many share it."""
MAX_PASSES = 2.0
"""Over the text: rows learn a small text by heart. On 860 kB (225,000 tokens) and all 4,096 rows
of a model of width 64, six passes end worse on held-out text than 1.2 do."""
WARM_UP = 0.03
"""Share of the training in which the learning rate rises."""
MAP_SHARE = 0.5
"""The shared map is trained where the width is at most this share of the tokens of a step: its
cost against the head's is as 2/3 of the width to those tokens."""
CHECKS = 8
"""How often rows are validated on the selection text, the last time at the end."""
FEWEST_CHECKS = 3
MOST_OF_TIME = 0.08
"""Share of the time that validation may take: there are fewer checks where it would take more, but
at least three, or the training could not tell that it went wrong."""
CUT = 0.25
"""Where rows are worse than the best so far, training goes on from the best with the learning rate
times this: a start that is good already bears small steps only."""
MOST_CUTS = 3
"""As often; then training ends."""


@dataclass(frozen=True)
class Trained:
    """Float32 after training.

    Attributes
    ----------
    matrices : Matrices
        One array twice where one matrix was trained.
    n_steps, n_tokens : int
        Steps of the gradient, and tokens they were taken on, repetitions counted.
    seconds, cpu_seconds : float
        Wall-clock and process time, selection included.
    history : tuple of (int, float)
        Tokens seen and what the selection said then; the start first. Empty without a selection.
    """

    matrices: Matrices
    n_steps: int
    n_tokens: int
    seconds: float
    cpu_seconds: float
    history: tuple[tuple[int, float], ...] = ()


def train_rows(
    model: LanguageModel,
    vocabulary: Vocabulary,
    texts: Sequence[str],
    *,
    train_input: Mask,
    train_output: Mask,
    tied: bool,
    minutes: float,
    max_tokens: int | None = None,
    max_passes: float | None = MAX_PASSES,
    learning_rate: float | None = None,
    tokens_per_step: int = TOKENS_PER_STEP,
    seed: int = 0,
    selection: Selection | None = None,
    until: Clock | None = None,
    progress: Progress = no_progress,
) -> Trained:
    """Train rows by cross-entropy, the body frozen; processes that this one leads take their share.

    Parameters
    ----------
    model : LanguageModel
        The patched model; neither it nor its rows are changed.
    vocabulary : Vocabulary
        The target's.
    texts : sequence of str
        Never text that is measured on, nor what `selection` measures on.
    train_input, train_output : bool (n_rows,)
        Which rows of each side may change; the output bias goes with the output rows. Tied: the
        rows of the one matrix that either names.
    tied : bool
        One matrix serves both sides; the model's input rows are its start.
    minutes : float
        Of process time on a CPU, of wall-clock time on any other device. 0 trains nothing.
    max_tokens : int or None
        Stop after this many tokens. Where this binds, and not the time, the same seed gives the
        same rows again on the same device; a bound of time depends on the clock.
    max_passes : float or None
        Stop after this many passes over the text; None passes over it until another bound.
    learning_rate : float or None
        Of Adam, in units of the root mean square of the rows at the start; None takes one that
        fits the width. It rises in the first 3 % of the training and then falls to zero.
    tokens_per_step : int
    seed : int
        Of the order of the text; nothing else is random.
    selection : callable(LanguageModel) -> float, optional
        Bits per byte on text that is not trained on. The best rows it saw are returned. Where it
        rises, training goes on from the best rows with a quarter of the rate, and after the third
        time it ends. Without it, the last rows.
    until : Clock, optional
        Ends the training too, in wall-clock time.
    progress : callable(done, total, what)

    Raises
    ------
    UsageError
        If a bound is negative or a mask does not fit the model.
    EvaluationError
        If there is no text to train on.
    """
    _check(model, train_input, train_output, minutes, max_tokens)
    clock = _Clock(minutes, max_tokens, on_cpu=model.device == "cpu")
    if learning_rate is None:
        learning_rate = rate_for(model.width)
    shared_map = model.width <= MAP_SHARE * tokens_per_step
    n_steps = n_tokens = 0
    with make_trainer(
        model, train_input, train_output, tied=tied, shared_map=shared_map
    ) as trainer:
        validation = _Validation(trainer, selection, clock)
        if minutes > 0 and max_tokens != 0 and trainer.any_rows:
            text = TrainingText.read(vocabulary, texts, model.max_positions)
            if max_passes is not None:
                clock.limit(round(max_passes * text.n_tokens))
            validation.validate(0)
            _follow(progress, validation, 0)
            for batch in text.passes(np.random.default_rng(seed), tokens_per_step):
                done = clock.share(n_tokens)
                if done >= 1 or (until is not None and until.over):
                    break
                if validation.due(done):
                    worse = validation.validate(n_tokens)
                    _follow(progress, validation, n_steps)
                    if worse and validation.n_cuts == MOST_CUTS:
                        break
                    if worse:
                        validation.go_back()
                rising = min(1.0, max(done, 0.1 * WARM_UP) / WARM_UP)
                rate = learning_rate * rising * (1 - done) * CUT**validation.n_cuts
                n_tokens += trainer.step(*text.padded(batch), rate)
                n_steps += 1
                track(progress, WHAT, n_steps, loss=trainer.loss, rate=rate, tokens=n_tokens)
                progress(int(1000 * done), 1000, WHAT)
            if validation.finish(n_tokens):
                _follow(progress, validation, n_steps)
            progress(1000, 1000, WHAT)
        return Trained(
            matrices=trainer.result(),
            n_steps=n_steps,
            n_tokens=n_tokens,
            seconds=clock.seconds,
            cpu_seconds=clock.cpu_seconds,
            history=tuple(validation.history),
        )


def _follow(progress: Progress, validation: _Validation, n_steps: int) -> None:
    """Hand on what the last validation said, if there was one."""
    if validation.history:
        track(progress, WHAT, n_steps, bits_per_byte=validation.history[-1][1])


def rate_for(width: int) -> float:
    """Return the learning rate that fits rows of a width; see `train_rows`."""
    return min(RATE_BY_WIDTH / width, HIGHEST_RATE)


def _check(
    model: LanguageModel,
    train_input: Mask,
    train_output: Mask,
    minutes: float,
    max_tokens: int | None,
) -> None:
    if not minutes >= 0 or (max_tokens is not None and max_tokens < 0):
        raise UsageError(f"{minutes} minutes, {max_tokens} tokens: a bound cannot be negative")
    for side, mask in (("input", train_input), ("output", train_output)):
        if mask.shape != (model.n_rows,):
            raise UsageError(
                f"the mask of {side} rows has shape {mask.shape} and the model {model.n_rows} rows"
            )


class _Clock:
    """How much of the training is over."""

    def __init__(self, minutes: float, max_tokens: int | None, *, on_cpu: bool) -> None:
        self._seconds, self._max_tokens = 60 * minutes, max_tokens
        self._passes: int | None = None
        self._read = time.process_time if on_cpu else time.perf_counter
        self._start = self._read()
        self._wall_start, self._cpu_start = time.perf_counter(), time.process_time()

    @property
    def seconds(self) -> float:
        """Wall-clock time since the start."""
        return time.perf_counter() - self._wall_start

    @property
    def cpu_seconds(self) -> float:
        """Process time since the start, of all threads."""
        return time.process_time() - self._cpu_start

    def limit(self, n_tokens: int) -> None:
        """Bound the training by tokens, beside the bounds it has."""
        self._passes = n_tokens

    def share(self, n_tokens: int) -> float:
        """Return the share of the training that is over; 1 or more ends it."""
        of_time = (self._read() - self._start) / self._seconds
        of_tokens = 0.0 if self._passes is None else n_tokens / self._passes
        if self._max_tokens is None:
            return max(of_time, of_tokens)
        # The clock may end the training, but must not touch the learning rate: see `max_tokens`.
        return 1.0 if of_time >= 1 else max(of_tokens, n_tokens / self._max_tokens)


class _Validation:
    """Measures the rows now and then, and keeps the best."""

    def __init__(self, trainer: Trainer, selection: Selection | None, clock: _Clock) -> None:
        self.history: list[tuple[int, float]] = []
        self.n_cuts = 0
        self._trainer, self._selection, self._clock = trainer, selection, clock
        self._next, self._between = 0.0, 1 / CHECKS
        self._best: State | None = None

    def due(self, done: float) -> bool:
        """Whether it is time to measure again."""
        return self._selection is not None and done >= self._next

    def validate(self, n_tokens: int) -> bool:
        """Measure the rows as they are; return whether they are worse than the best so far."""
        if self._selection is None:
            return False
        self._trainer.write()
        before = self._clock.share(n_tokens)
        value = float(self._selection(self._trainer.model))
        after = self._clock.share(n_tokens)
        if not self.history:
            bearable = (after - before) / MOST_OF_TIME
            self._between = min(max(1 / CHECKS, bearable), 1 / FEWEST_CHECKS)
        self._next = after + self._between
        # Just before the end they would be measured twice.
        if self._next > 1 - self._between / 2:
            self._next = 2.0
        best = min((value for _, value in self.history), default=np.inf)
        self.history.append((n_tokens, value))
        if value < best:
            self._best = self._trainer.state()
        return value > best

    def go_back(self) -> None:
        """Put the best rows back, to go on from them with smaller steps."""
        self.n_cuts += 1
        if self._best is not None:
            self._trainer.restore(self._best)

    def finish(self, n_tokens: int) -> bool:
        """Measure the last rows, unless they were, and put the best in their place."""
        self._trainer.write()
        unknown = bool(self.history) and self.history[-1][0] != n_tokens
        if unknown:
            self.validate(n_tokens)
        if self._best is not None:
            self._trainer.restore(self._best)
        return unknown
