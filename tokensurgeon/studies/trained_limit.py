"""The reachable floor of a pair: what vocabulary rows alone can reach, the body frozen.

The rows of a method are calibrated, then all rows of both sides are trained on calibration text
until text set aside falls no further, the output rows are refitted to it, and the result is
measured on evaluation text. The source's own rows are trained and refitted in the same way on the
same text: what it gains is adaptation to the text, and no merit of a transplant.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tokensurgeon.calibration import Healed, Matrices, default_stages, rate_for, train_rows
from tokensurgeon.calibration.acceptance import PARTS
from tokensurgeon.calibration.stages.refit import Follows, Regression
from tokensurgeon.errors import CalibrationError, UsageError
from tokensurgeon.evaluation import Entry, evaluate
from tokensurgeon.progress import Progress, no_progress
from tokensurgeon.recipe import Recipe
from tokensurgeon.studies.adapted_source import adapted_source
from tokensurgeon.surgery.calibrate import AFTER_HEALING, calibrated, workbench
from tokensurgeon.surgery.chosen_methods import chosen_methods
from tokensurgeon.surgery.limits import check_forward
from tokensurgeon.surgery.measure import evaluation_texts, patched_model
from tokensurgeon.surgery.prepare import Operation, prepare
from tokensurgeon.surgery.rows import PatchedRows, patch_rows
from tokensurgeon.text.chunks import separable

if TYPE_CHECKING:
    from tokensurgeon.models.language_model import LanguageModel

START = "subword-mean"
"""The method at which the recoverable gap starts: the strong plain one."""
DEFAULT_MINUTES = 30.0
ROUNDS = (0.5, 0.25, 0.25)
"""Shares of the minutes. Each round starts from the best rows so far."""
SLOWER = 0.25
"""Each round's learning rate, in that of the one before: good rows bear small steps only."""
LEAST_FALL = 0.003
"""Share by which a round must lower the loss on the text set aside for another to follow."""
SET_ASIDE = 0.1
MOST_SET_ASIDE = 40_000
"""Bytes."""


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
class FloorResult:
    """Bits per byte on the evaluation text.

    Attributes
    ----------
    source : float
    source_trained : float
        The source after the same training of its own rows.
    start : float
        The pair under the plain method `start_method`.
    start_method : str
    floor : float
        The pair after training.
    trained_from : tuple of str
        The methods whose rows the training started from.
    stages : tuple of str
        The stages of calibration that these rows kept, and `refit` if it lowered the floor.
    minutes : float
        The most that either training may take.
    target_training, source_training : Training
    n_bytes : int
        Of evaluation text.
    facts : dict
        Source and target, whether they are tied, and notes.
    """

    source: float
    source_trained: float
    start: float
    start_method: str
    floor: float
    trained_from: tuple[str, str]
    stages: tuple[str, ...]
    minutes: float
    target_training: Training
    source_training: Training
    n_bytes: int
    facts: dict[str, Any]

    @property
    def gap(self) -> float:
        """What is left between the floor and the source, in bits per byte."""
        return self.floor - self.source

    @property
    def gap_adapted(self) -> float:
        """What is left to the source that had the same training."""
        return self.floor - self.source_trained

    def closed(self, bits_per_byte: float) -> float | None:
        """Return the share of the recoverable gap that a figure closes; 1 is the floor.

        None where the training did not get below the start.
        """
        recoverable = self.start - self.floor
        return (self.start - bits_per_byte) / recoverable if recoverable > 0 else None

    def to_dict(self) -> dict[str, Any]:
        """Return the result for JSON; `compare --floor` reads it."""
        return {**asdict(self), "gap": self.gap, "gap_adapted": self.gap_adapted}


def floor(
    recipe: Recipe,
    *,
    minutes: float = DEFAULT_MINUTES,
    max_tokens: int | None = None,
    progress: Progress | None = None,
) -> FloorResult:
    """Find the reachable floor of a pair; nothing is written.

    Parameters
    ----------
    recipe : Recipe
        Its `text.calibration` is trained on and its `text.evaluation` measured on; the rows of its
        `init`, after the stages of its `calibrate`, are where the training starts.
    minutes : float
        Most time for each of the two trainings: of the process on a CPU, on the clock elsewhere.
    max_tokens : int or None
        Most tokens for each of the two trainings.
    progress : callable(done, total, what), optional

    Raises
    ------
    UsageError
        Without either text, or if the two share documents.
    """
    if not recipe.text.calibration:
        raise UsageError("a floor needs text to train on: give --calibration-text FILE")
    if not recipe.text.evaluation:
        raise UsageError("a floor needs a text to measure on: give --text FILE")
    operation = prepare(recipe.model_copy(update={"output": None}), progress or no_progress)
    check_forward(operation, "floor", trains=True)
    texts = evaluation_texts(operation)
    fit, aside = _parted(operation.calibration_texts, recipe.seed)
    # Neither a method nor a stage may see the text by which the training stops.
    vars(operation)["calibration_texts"] = tuple(fit)
    alignment = operation.alignment
    methods = chosen_methods(operation, recipe.init)
    plain = patched_model(operation, patch_rows(operation, (START, START), recipe.init))
    names = default_stages(operation.tied) if recipe.calibrate is None else recipe.calibrate
    late = any(name in AFTER_HEALING for name in names)
    first = _calibrated(
        operation,
        patch_rows(operation, methods, recipe.init),
        tuple(name for name in names if name not in AFTER_HEALING),
    )
    trained, target_training, refitted = _converge(
        operation, first, aside, minutes, max_tokens, late
    )
    adapted, source_training, _ = _converge(
        *adapted_source(operation, (), 0.0), aside, minutes, max_tokens, late
    )
    evaluation = evaluate(
        [
            Entry("source", operation.model, alignment.source),
            Entry("source, trained", adapted, alignment.source),
            Entry(START, plain, alignment.target, alignment=alignment),
            Entry("floor", trained, alignment.target, alignment=alignment),
        ],
        texts,
        max_bytes=recipe.text.max_bytes,
        seed=recipe.seed,
        progress=operation.progress,
    )
    figures = [entry.bits_per_byte for entry in evaluation.entries]
    if None in figures:
        raise UsageError("the target's tokenizer loses text on all of the evaluation text")
    source, source_trained, start, reached = (float(figure or 0.0) for figure in figures)
    return FloorResult(
        source=source,
        source_trained=source_trained,
        start=start,
        start_method=START,
        floor=reached,
        trained_from=methods,
        stages=(
            *(record.stage for record in first.stages if record.kept),
            *(AFTER_HEALING if refitted else ()),
        ),
        minutes=minutes,
        target_training=target_training,
        source_training=source_training,
        n_bytes=evaluation.n_bytes,
        facts={
            "source": recipe.source,
            "target": recipe.target or "trained",
            "tied": operation.tied,
            "untied": operation.checkpoint.layout.tied and recipe.untie,
            "calibration_bytes": sum(len(text.encode()) for text in fit),
            "seed": recipe.seed,
            "notes": list(operation.warnings),
        },
    )


def _parted(texts: Sequence[str], seed: int) -> tuple[list[str], list[str]]:
    """Return the documents to train on and those to stop by."""
    documents = separable([text for text in texts if text.strip()])
    if len(documents) < 2:
        raise UsageError(
            f"{len(documents)} blocks of calibration text cannot be parted into what is trained "
            "on and what the training stops by: give more text"
        )
    order = np.random.default_rng(seed).permutation(len(documents))
    sizes = np.array([len(documents[i].encode()) for i in order])
    room = min(MOST_SET_ASIDE, SET_ASIDE * sizes.sum())
    n_aside = min(int(np.searchsorted(np.cumsum(sizes), room)) + 1, len(documents) - 1)
    return [documents[i] for i in order[n_aside:]], [documents[i] for i in order[:n_aside]]


def _calibrated(operation: Operation, rows: PatchedRows, names: tuple[str, ...]) -> PatchedRows:
    """Return the rows after the stages that help; as they are where none can work."""
    try:
        return calibrated(operation, rows, names)
    except CalibrationError as error:
        operation.warnings.append(f"trained from rows that are not calibrated: {error}")
        return rows


def _converge(
    operation: Operation,
    rows: PatchedRows,
    aside: Sequence[str],
    minutes: float,
    max_tokens: int | None,
    late: bool,
) -> tuple[LanguageModel, Training, bool]:
    """Train all rows in rounds until one brings next to nothing; `late` refits them afterwards.

    Returns the model, and whether refitting helped.
    """
    target = operation.alignment.target

    def select(one: LanguageModel) -> float:
        found = evaluate([Entry("text set aside", one, target)], aside, max_bytes=None)
        value = found.entries[0].bits_per_byte
        assert value is not None  # evaluate refuses a text on which its first model has no figure
        return value

    start = patched_model(operation, rows)

    def patched(each: Matrices) -> LanguageModel:
        return start.patched(each.input, each.output, each.bias)

    model, matrices = start, rows.matrices
    every = np.ones(model.n_rows, dtype=bool)
    history: list[tuple[int, float]] = []
    rounds: list[Healed] = []
    converged = False
    for number, share in enumerate(ROUNDS):
        healed = train_rows(
            model,
            target,
            operation.calibration_texts,
            train_input=every,
            train_output=every,
            tied=operation.tied,
            minutes=minutes * share,
            max_tokens=None if max_tokens is None else round(max_tokens * share),
            learning_rate=rate_for(model.width) * SLOWER**number,
            seed=operation.recipe.seed + number,
            selection=select,
            progress=operation.progress,
        )
        seen = sum(one.n_tokens for one in rounds)
        rounds.append(healed)
        if not healed.history:
            break
        matrices = healed.matrices
        model = patched(matrices)
        history += [(seen + n, value) for n, value in healed.history[number > 0 :]]
        before, best = healed.history[0][1], min(value for _, value in healed.history)
        if before - best < LEAST_FALL * before:
            converged = True
            break
    training = Training(
        converged=converged,
        n_tokens=sum(one.n_tokens for one in rounds),
        n_steps=sum(one.n_steps for one in rounds),
        seconds=round(sum(one.seconds for one in rounds), 3),
        cpu_seconds=round(sum(one.cpu_seconds for one in rounds), 3),
        history=tuple(history),
    )

    def part(share: float) -> Matrices:
        return matrices if share == 1.0 else rows.matrices.towards(matrices, share)

    # Rows on the way from the start to where training led, as healing asks them too.
    matrices = part(min((1.0, *PARTS), key=lambda share: select(patched(part(share)))))
    fitted = _refitted(operation, rows, matrices, select) if late else matrices
    return patched(fitted), training, fitted is not matrices


def _refitted(
    operation: Operation,
    rows: PatchedRows,
    matrices: Matrices,
    select: Callable[[LanguageModel], float],
) -> Matrices:
    """Return the matrices with the output side refitted, for as long as `select` falls."""
    try:
        bench = workbench(operation, rows)
    except CalibrationError:  # said where it was calibrated
        return matrices
    states, after_each = bench.next_tokens(matrices, more=True)
    regression = Regression(
        bench, matrices, states, Follows.of_text(after_each), bench.new_and_shared
    )
    best, _ = regression.best(lambda each: select(bench.patched(each)), progress=operation.progress)
    return best
