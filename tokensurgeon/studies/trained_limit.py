"""The trained limit of a pair: what vocabulary rows alone can reach, the body frozen.

The rows of a method are calibrated, then all rows of both sides are trained on calibration text
until text set aside falls no further, the output rows are refitted to it, and the result is
measured on evaluation text: the pipeline of a calibration, with a training to convergence in it.
The source's own rows are trained and refitted in the same way on the same text: what it gains is
adaptation to the text, and no merit of a transplant.

Or the source teaches: what it implies of the text takes the place of the text's own next tokens.
Then no label plays a part, `refit` is left out, and there is nothing that the source could gain.
The body may be trained too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tokensurgeon.calibration import (
    Acceptance,
    Calibrated,
    CalibrationData,
    Matrices,
    Stage,
    calibrate,
)
from tokensurgeon.calibration.calibration_texts import CalibrationTexts
from tokensurgeon.calibration.stages.distil import TaughtRound
from tokensurgeon.calibration.stages.draft import Draft
from tokensurgeon.calibration.stages.taught import Taught
from tokensurgeon.calibration.stages.train import (
    TextRound,
    Training,
    TrainRound,
    TrainToConvergence,
)
from tokensurgeon.errors import CalibrationError, UsageError
from tokensurgeon.evaluation import Entry, evaluate
from tokensurgeon.models import LanguageModel
from tokensurgeon.progress import Progress, no_progress
from tokensurgeon.recipe import Recipe
from tokensurgeon.studies.adapted_source import onto_itself
from tokensurgeon.surgery.calibrate import calibrate_rows, check_heal_body, planned_stages
from tokensurgeon.surgery.chosen_methods import chosen_methods
from tokensurgeon.surgery.measure import evaluation_texts, patched_model
from tokensurgeon.surgery.prepare import prepare
from tokensurgeon.surgery.rows import PatchedRows, patch_rows
from tokensurgeon.surgery.session import Session
from tokensurgeon.text.chunks import separable

TEXT, SOURCE = "text", "source"
"""What may teach."""
START = "subword-mean"
"""The method at which the recoverable gap starts: the strong plain one."""
DEFAULT_MINUTES = 30.0
"""For each training: on two cores, where one of a model of a million weights converges."""
SET_ASIDE = 0.1
"""Share of the calibration text by which the training stops."""
MOST_SET_ASIDE = 40_000
"""Bytes of it: as many as calibration chooses by."""


@dataclass(frozen=True)
class TrainedLimit:
    """Bits per byte on the evaluation text.

    Attributes
    ----------
    source : float
    source_trained : float
        The source after the same training of its own rows; as it is where it taught.
    start : float
        The pair under the plain method `start_method`.
    start_method : str
    before : float
        The pair before training, with calibrated rows of `trained_from`.
    limit : float
        The pair after training. Above `before` where what was learnt of the calibration text does
        not carry over to the evaluation text: such a figure is no limit.
    trained_from : tuple of str
        The methods whose rows the training started from.
    stages : tuple of str
        The stages of calibration that these rows kept, and those after the training.
    minutes : float
        The most that either training may take.
    target_training, source_training : Training
        The second is None where the source taught.
    teacher : str
    body : bool
        Whether the body was trained too.
    n_bytes : int
        Of evaluation text.
    facts : dict
        Source and target, whether they are tied, and notes.
    """

    source: float
    source_trained: float
    start: float
    start_method: str
    before: float
    limit: float
    trained_from: tuple[str, str]
    stages: tuple[str, ...]
    minutes: float
    target_training: Training
    source_training: Training | None
    teacher: str
    body: bool
    n_bytes: int
    facts: dict[str, Any]

    @property
    def gap(self) -> float:
        """What is left between the limit and the source, in bits per byte."""
        return self.limit - self.source

    @property
    def gap_adapted(self) -> float:
        """What is left to the source that had the same training."""
        return self.limit - self.source_trained

    def closed(self, bits_per_byte: float) -> float | None:
        """Return the share of the recoverable gap that a figure closes; 1 is the limit.

        None where the training did not get below the start.
        """
        recoverable = self.start - self.limit
        return (self.start - bits_per_byte) / recoverable if recoverable > 0 else None

    def to_dict(self) -> dict[str, Any]:
        """Return the result for JSON; `compare --trained-limit` reads it."""
        return {**asdict(self), "gap": self.gap, "gap_adapted": self.gap_adapted}


def trained_limit(
    recipe: Recipe,
    *,
    minutes: float = DEFAULT_MINUTES,
    max_tokens: int | None = None,
    teacher: str = TEXT,
    progress: Progress | None = None,
) -> TrainedLimit:
    """Find the trained limit of a pair; nothing is written.

    Parameters
    ----------
    recipe : Recipe
        Its `text.calibration` is trained on and its `text.evaluation` measured on; the rows of its
        `init`, after the stages of its `calibrate`, are where the training starts. With its
        `heal_body` the body is trained too, which only the source can teach.
    minutes : float
        Most time for each of the two trainings: of the process on a CPU, on the clock elsewhere.
    max_tokens : int or None
        Most tokens for each of the two trainings.
    teacher : str
        ``text``: its own next tokens. ``source``: what the source implies of it.
    progress : callable(done, total, what), optional

    Raises
    ------
    UsageError
        Without either text, or if the two share documents; for a body without the source.
    """
    _check(recipe, teacher)
    whole = prepare(recipe.model_copy(update={"output": None}), progress or no_progress)
    whole.require_forward("a trained limit", trains=True)
    if recipe.heal_body:
        check_heal_body(whole)
    texts = evaluation_texts(whole)
    fitted, set_aside = _parted(whole.calibration_texts, recipe.seed)
    # Neither a method nor a stage may see the text by which the training stops.
    session = whole.variant(texts=fitted)
    methods = chosen_methods(session.inputs, recipe.init)
    stages = [
        stage
        for stage in planned_stages(session, recipe.calibrate, heal=0)
        if not isinstance(stage, (Taught, Draft))
    ]
    plain = patched_model(session, patch_rows(session, (START, START), recipe.init))
    start = _calibrated(session, patch_rows(session, methods, recipe.init), stages)
    course = _Course(fitted, set_aside, minutes, max_tokens, teacher, stages)
    target = course.take(session, start)
    source = None if teacher == SOURCE else course.take(*onto_itself(session))
    before = patched_model(session, start)
    bits, n_bytes = _measured(session, texts, plain, before, target, source)
    return TrainedLimit(
        source=bits["source"],
        source_trained=bits["source, trained" if source else "source"],
        start=bits[START],
        start_method=START,
        before=bits["before training"],
        limit=bits["trained limit"],
        trained_from=methods,
        stages=(
            *(record.stage for record in start.stages if record.kept),
            *(record.stage for record in target.calibrated.records[1:] if record.kept),
        ),
        minutes=minutes,
        target_training=target.training,
        source_training=source.training if source else None,
        teacher=teacher,
        body=recipe.heal_body,
        n_bytes=n_bytes,
        facts={
            "source": recipe.source,
            "target": recipe.target or "trained",
            "tied": session.inputs.tied,
            "untied": session.inputs.untied,
            "calibration_bytes": sum(len(text.encode()) for text in fitted),
            "seed": recipe.seed,
            "notes": list(session.warnings),
        },
    )


def _check(recipe: Recipe, teacher: str) -> None:
    if not recipe.text.calibration:
        raise UsageError("a trained limit needs text to train on: give --calibration-text FILE")
    if not recipe.measures:
        raise UsageError("a trained limit needs a text to measure on: give --text FILE")
    if teacher not in (TEXT, SOURCE):
        raise UsageError(f"no teacher '{teacher}'; give {TEXT} or {SOURCE}")
    if recipe.heal_body and teacher == TEXT:
        raise UsageError("--heal-body is taught by the source alone: give --teacher source")


@dataclass(frozen=True)
class _Trained:
    """A model after its training, what calibration says of it, and what the training took."""

    model: LanguageModel
    calibrated: Calibrated
    training: Training


@dataclass(frozen=True)
class _Course:
    """How the target's and the source's rows are trained alike."""

    fitted: Sequence[str]
    set_aside: Sequence[str]
    minutes: float
    max_tokens: int | None
    teacher: str
    stages: Sequence[Stage]

    def take(self, session: Session, rows: PatchedRows) -> _Trained:
        """Train rows, and try the stages that come after; all by the text set aside."""

        def validate(model: LanguageModel) -> float:
            entry = Entry("text set aside", model, session.alignment.target)
            figure = evaluate([entry], self.set_aside, max_bytes=None).entries[0].bits_per_byte
            assert figure is not None  # evaluate refuses a text on which it has no figure
            return figure

        def model(matrices: Matrices) -> LanguageModel:
            return session.model.patched(
                matrices.input, matrices.output, matrices.bias, matrices.body
            )

        def figure(matrices: Matrices) -> float:
            return validate(model(matrices))

        seed, progress = session.recipe.seed, session.progress
        train: TrainRound = TextRound(self.fitted, validate, seed, progress)
        late = [stage for stage in self.stages if stage.after_training]
        if self.teacher == SOURCE:
            train, late = TaughtRound(validate, seed, progress), []  # they fit to labels
        training = TrainToConvergence(train, self.minutes, self.max_tokens)
        try:
            data = session.calibration_data
        except CalibrationError:  # said where it was calibrated; labels need no data of their own
            if self.teacher == SOURCE:
                raise
            empty = np.zeros(0, dtype=np.int64)
            texts = CalibrationTexts((), (), (), (), tuple(self.fitted), False, False)
            data, late = CalibrationData(session.model, session.context, texts, empty, empty), []
        calibrated = calibrate(
            data,
            rows.matrices,
            [training, *late],
            acceptance=Acceptance(figure, least_gain=0.0),
            progress=session.progress,
        )
        assert training.training is not None  # it has run
        return _Trained(model(calibrated.matrices), calibrated, training.training)


def _measured(
    session: Session,
    texts: Sequence[str],
    plain: LanguageModel,
    before: LanguageModel,
    target: _Trained,
    source: _Trained | None,
) -> tuple[dict[str, float], int]:
    """Return bits per byte of evaluation text by name, and its bytes."""
    alignment = session.alignment
    evaluation = evaluate(
        [
            Entry("source", session.model, alignment.source),
            *([Entry("source, trained", source.model, alignment.source)] if source else []),
            Entry(START, plain, alignment.target, alignment=alignment),
            Entry("before training", before, alignment.target, alignment=alignment),
            Entry("trained limit", target.model, alignment.target, alignment=alignment),
        ],
        texts,
        max_bytes=session.recipe.text.max_bytes,
        seed=session.recipe.seed,
        progress=session.progress,
    )
    bits = {one.name: one.bits_per_byte for one in evaluation.entries}
    if None in bits.values():
        raise UsageError(
            "the target's tokenizer loses text on all of the evaluation text; give other text"
        )
    return {name: float(own or 0.0) for name, own in bits.items()}, evaluation.n_bytes


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
    n_set_aside = min(int(np.searchsorted(np.cumsum(sizes), room)) + 1, len(documents) - 1)
    return [documents[i] for i in order[n_set_aside:]], [documents[i] for i in order[:n_set_aside]]


def _calibrated(session: Session, rows: PatchedRows, stages: Sequence[Stage]) -> PatchedRows:
    """Return the rows after the stages before training; as they are where none can work."""
    names = tuple(stage.name for stage in stages if not stage.after_training)
    try:
        return calibrate_rows(session, rows, names).to_rows(session)
    except CalibrationError as error:
        session.warnings.append(f"trained from rows that are not calibrated: {error}")
        return rows
