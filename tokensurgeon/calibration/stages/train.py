"""Training of the rows as stages: for some minutes (healing), and until it brings nothing more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tokensurgeon.calibration.contract import PARTS, Candidates, Cost, Stage, on_the_way
from tokensurgeon.calibration.data import CalibrationData, TextSizes
from tokensurgeon.calibration.matrices import Matrices
from tokensurgeon.calibration.training.loop import CHECKS, Trained, rate_for, train_rows
from tokensurgeon.models import LanguageModel
from tokensurgeon.progress import Progress, no_progress

ROUNDS = (0.5, 0.25, 0.25)
"""Shares of the minutes of a training to convergence. Each round starts from the best rows so far;
two short ones after a long one are enough to see that nothing more is won."""
SLOWER = 0.25
"""Each round's learning rate, in that of the one before: good rows bear small steps only."""
LEAST_FALL = 0.003
"""Share by which a round must lower the loss on the text set aside for another to follow."""


class Heal(Stage):
    """Train new and shared rows by cross-entropy for some minutes, the body frozen.

    Rows on the way from the start to where training led are candidates too.

    Parameters
    ----------
    minutes : float
        See `train_rows`.
    seed : int
        Of the order of the text.
    progress : callable(done, total, what)
    """

    name = "heal"
    changes_shared = True
    adapts_to_text = True
    parts = ()
    kept_candidates = 1 + len(PARTS)
    bounded_by_start = True

    def __init__(self, minutes: float, seed: int = 0, progress: Progress = no_progress) -> None:
        self.minutes, self.seed, self._progress = minutes, seed, progress

    def propose(self, data: CalibrationData, matrices: Matrices) -> Candidates:
        """Yield where the training led, then three quarters, a half and a quarter of the way."""
        mask = np.zeros(len(matrices.input), dtype=bool)
        mask[data.new_and_shared] = True
        trained = train_rows(
            data.patched(matrices),
            data.context.target,
            data.texts.documents,
            train_input=mask,
            train_output=mask,
            tied=matrices.tied,
            minutes=min(self.minutes, max(0.0, data.clock.left() / 60)),
            until=data.clock,
            seed=self.seed,
            selection=lambda model: data.score_model(model, data.texts.selection),
            progress=self._progress,
        )
        data.forward_tokens += trained.n_tokens
        data.gradient_steps += trained.n_steps
        settings = {"minutes": self.minutes, "tokens": trained.n_tokens}
        yield from on_the_way(matrices, trained.matrices.with_body(matrices.body), settings)
        return None

    def cost(self, sizes: TextSizes) -> Cost:
        """The minutes, and the looks at the selection text."""
        return Cost(passes=CHECKS + 2 * self.kept_candidates, seconds=60 * self.minutes)


@dataclass(frozen=True)
class Training:
    """What the training of one model's rows took.

    Attributes
    ----------
    converged : bool
        Whether the loss stopped falling; else the time, or the tokens, ended it.
    n_tokens, n_steps : int
    seconds, cpu_seconds : float
    history : tuple of (int, float)
        Tokens seen in all, and bits per byte on the text set aside.
    """

    converged: bool
    n_tokens: int
    n_steps: int
    seconds: float
    cpu_seconds: float
    history: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Bounds:
    """What bounds a round of a training.

    Attributes
    ----------
    minutes : float
    max_tokens : int or None
    slower : float
        Of the usual learning rate.
    number : int
        Of the round, from 0: no two have the same order of the text.
    """

    minutes: float
    max_tokens: int | None
    slower: float
    number: int


TrainRound = Callable[[CalibrationData, Matrices, Bounds], Trained]
"""Trains rows within some bounds, from where they are; these are not changed."""


@dataclass(frozen=True)
class TextRound:
    """A round on a text's own next tokens: every row may change.

    Attributes
    ----------
    texts : sequence of str
        What is trained on.
    validate : callable(LanguageModel) -> float
        Bits per byte on text set aside.
    seed : int
    progress : callable(done, total, what)
    """

    texts: Sequence[str]
    validate: Callable[[LanguageModel], float]
    seed: int = 0
    progress: Progress = no_progress

    def __call__(self, data: CalibrationData, rows: Matrices, bounds: Bounds) -> Trained:
        """See `TrainRound`."""
        mask = np.ones(len(rows.input), dtype=bool)
        trained = train_rows(
            data.patched(rows),
            data.context.target,
            self.texts,
            train_input=mask,
            train_output=mask,
            tied=rows.tied,
            minutes=bounds.minutes,
            max_tokens=bounds.max_tokens,
            learning_rate=rate_for(data.model.width) * bounds.slower,
            seed=self.seed + bounds.number,
            selection=self.validate,
            progress=self.progress,
        )
        return replace(trained, matrices=trained.matrices.with_body(rows.body))


class TrainToConvergence(Stage):
    """Train in rounds, each slower than the last, until one brings next to nothing.

    The first may be too fast to bring anything, which says nothing of the others.

    Parameters
    ----------
    train_round : TrainRound
        What text set aside says of its rows ends the training and chooses the rows.
    minutes : float
        At most.
    max_tokens : int or None
        At most.

    Attributes
    ----------
    training : Training or None
        What it took, once it has run.
    """

    name = "train"
    changes_shared = True
    adapts_to_text = True
    parts = ()
    kept_candidates = 1 + len(PARTS)

    def __init__(
        self, train_round: TrainRound, minutes: float, max_tokens: int | None = None
    ) -> None:
        self.train_round, self.minutes, self.max_tokens = train_round, minutes, max_tokens
        self.training: Training | None = None

    def propose(self, data: CalibrationData, matrices: Matrices) -> Candidates:
        """Yield where the training led, then three quarters, a half and a quarter of the way."""
        rounds: list[Trained] = []
        history: list[tuple[int, float]] = []
        rows, converged = matrices, False
        for number, share in enumerate(ROUNDS):
            tokens = None if self.max_tokens is None else round(self.max_tokens * share)
            bounds = Bounds(self.minutes * share, tokens, SLOWER**number, number)
            trained = self.train_round(data, rows, bounds)
            seen = sum(one.n_tokens for one in rounds)
            rounds.append(trained)
            if not trained.history:
                break
            rows = trained.matrices
            history += [(seen + n, value) for n, value in trained.history[number > 0 :]]
            before, best = trained.history[0][1], min(value for _, value in trained.history)
            too_fast = not number and best >= before  # the next round is slower
            if before - best < LEAST_FALL * before and not too_fast:
                converged = True
                break
        self.training = Training(
            converged=converged,
            n_tokens=sum(one.n_tokens for one in rounds),
            n_steps=sum(one.n_steps for one in rounds),
            seconds=round(sum(one.seconds for one in rounds), 3),
            cpu_seconds=round(sum(one.cpu_seconds for one in rounds), 3),
            history=tuple(history),
        )
        data.forward_tokens += self.training.n_tokens
        data.gradient_steps += self.training.n_steps
        yield from on_the_way(matrices, rows, {"tokens": self.training.n_tokens})
        return None

    def cost(self, sizes: TextSizes) -> Cost:
        """The minutes, at most."""
        return Cost(seconds=60 * self.minutes)
