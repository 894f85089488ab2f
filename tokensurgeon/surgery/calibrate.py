"""Calibrate patched rows: which stages, in which order, and what the rows are afterwards."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tokensurgeon.arrays import ITEM_BYTES, Float32
from tokensurgeon.calibration import Calibrated, Stage, calibrate, find_stages
from tokensurgeon.calibration.calibration_texts import bytes_to_calibrate_on
from tokensurgeon.calibration.stages.draft import Draft
from tokensurgeon.calibration.stages.taught import PASSES, Taught
from tokensurgeon.calibration.stages.train import Heal
from tokensurgeon.calibration.text_sizes import BYTES_PER_TOKEN
from tokensurgeon.checkpoint import Checkpoint, round_rows
from tokensurgeon.checkpoint.body_update import as_stored, changeable_weights
from tokensurgeon.checkpoint.embeddings import CAUSAL
from tokensurgeon.errors import CalibrationError, CheckpointError, UsageError
from tokensurgeon.initialisers.numerics.clip import clip_rows
from tokensurgeon.models import LanguageModel, load_model
from tokensurgeon.progress import Clock
from tokensurgeon.recipe import Recipe
from tokensurgeon.surgery.requirements import can_run
from tokensurgeon.surgery.row_origins import COPIED, INITIALISED, RECALIBRATED
from tokensurgeon.surgery.rows import PatchedRows, Side
from tokensurgeon.surgery.session import Session

LARGE = 50_000_000
"""Weights of a model from which the source teaches by default: of the models that figures are known
of, the largest small one has 27 million and the smallest large one 135 million."""
TAUGHT_SHARE = 0.45
"""Of the budget that stages which the source teaches are given, all together: choice, the stages
before them, the looks at the text and `refit` take the rest. At 0.5 `refit` missed its time by
seven seconds on SmolLM2-135M onto Llama-3's tokens."""
DISTIL_OVERHEAD = 1.5e-3
"""Seconds a token that working out the distributions takes besides, measured on two cores."""
DRAFT_SHARE = 0.55
"""Of the budget, for the fit to a big model. The source then teaches nothing but by name."""


@dataclass(frozen=True)
class CalibratedRows:
    """Rows of a method, and what calibration made of them; it can be gone on with.

    Attributes
    ----------
    start : PatchedRows
        Of an initialiser; its `seconds` and `forward_tokens` are what making them took.
    done : Calibrated or None
        None where nothing was to be done.
    seconds : float
        Of reading the texts and measuring the start; those of stages are in their records.
    forward_tokens : int
        The same.
    """

    start: PatchedRows
    done: Calibrated | None = None
    seconds: float = 0.0
    forward_tokens: int = 0

    def to_rows(self, session: Session) -> PatchedRows:
        """Return the rows, rounded, with what they took."""
        if self.done is None:
            return self.start
        start, matrices, records = self.start, self.done.matrices, self.done.records
        texts = session.calibration_data.texts
        output = _moved(session, start.output, matrices.output)
        if session.recipe.keep_shared and (output.origin == RECALIBRATED).any():
            raise CalibrationError(
                "a stage changed rows of shared tokens, which are to stay; report it"
            )
        return replace(
            start,
            input=output if start.tied else _moved(session, start.input, matrices.input),
            output=output,
            output_bias=matrices.bias,
            seconds=start.seconds + self.seconds + sum(record.seconds for record in records),
            forward_tokens=start.forward_tokens
            + self.forward_tokens
            + sum(record.forward_tokens for record in records),
            used_text=start.used_text or not texts.generated,
            stages=records,
            gradient_steps=start.gradient_steps + sum(record.gradient_steps for record in records),
            calibration_bytes=texts.n_bytes,
            generated=texts.generated,
            body=matrices.body and as_stored(session.inputs.checkpoint, matrices.body),
        )

    def healed(self, session: Session, minutes: float) -> CalibratedRows:
        """Return what would have come of it, had the rows been trained too.

        The calibration is resumed before the first stage that comes after a training.
        """
        early = self.done and (self.done.before_training or self.done)
        late = self.done.records[len(early.records) :] if self.done and early else ()
        names = [record.stage for record in late]
        drafts = Draft.name in names
        stages = find_stages([name for name in names if name != Draft.name], session.inputs.tied)
        records = early.records if early else ()
        spent = self.start.seconds + self.seconds + sum(record.seconds for record in records)
        clock = session.clock(minutes).keeping(spent)
        ordered = _in_order(session, stages, minutes, drafts)
        return _run(session, replace(self, done=early), ordered, clock)


def calibrate_rows(
    session: Session,
    rows: PatchedRows,
    names: Sequence[str] | None,
    heal: float = 0.0,
    clock: Clock | None = None,
) -> CalibratedRows:
    """Calibrate the rows of an initialiser; `rows` is not changed.

    Parameters
    ----------
    session : Session
    rows : PatchedRows
    names : sequence of str or None
        Of `tokensurgeon.calibration.STAGES`; None tries all that the checkpoint allows, and an
        empty sequence none.
    heal : float
        Minutes of training, before the stages that come after one; 0 trains nothing.
    clock : Clock, optional
        Until when all of it is to be done; by default one that starts now, with the budget and the
        minutes.

    Raises
    ------
    UsageError, CalibrationError
        If a stage is unknown or cannot work here, or there is too little text.
    """
    stages = _stages(session, names)
    if not stages and not heal:
        return CalibratedRows(rows)
    if stages:
        session.require_forward("calibration")
    if heal:
        session.require_forward("healing", trains=True)
    drafts = session.recipe.for_draft is not None and bool(stages)
    ordered = _in_order(session, stages, heal, drafts)
    return _run(session, CalibratedRows(rows), ordered, clock or session.clock(heal))


def check_heal_body(session: Session) -> None:
    """Refuse a change of the body where none can be made.

    Raises
    ------
    UsageError
        If there is no budget, the source cannot be trained through here, or its files hold no
        weight that a change can be merged into.
    """
    recipe, checkpoint = session.recipe, session.inputs.checkpoint
    if not recipe.budget:
        raise UsageError("--heal-body trains within the budget, which is 0 minutes: raise --budget")
    session.require_forward("--heal-body", trains=True)
    if not changeable_weights(checkpoint):
        raise UsageError(
            f"--heal-body changes linear weights, and {checkpoint.layout.family} stores none in "
            "the form that it loads them in: leave it out"
        )


def planned_stages(session: Session, names: Sequence[str] | None, heal: float) -> list[Stage]:
    """Return the stages that `calibrate_rows` would try, in their order."""
    stages = _stages(session, names)
    drafts = session.recipe.for_draft is not None and bool(stages)
    return _in_order(session, stages, heal, drafts)


def _stages(session: Session, names: Sequence[str] | None) -> list[Stage]:
    """Return stages by name, those that train with the time that they are given."""
    checkpoint, recipe = session.inputs.checkpoint, session.recipe
    large = checkpoint.n_bytes > LARGE * ITEM_BYTES[checkpoint.dtype]
    stages = find_stages(names, session.inputs.tied, large=large)
    if recipe.keep_shared:
        moving = [stage.name for stage in stages if stage.shared_alone]
        if names is not None and moving:
            raise UsageError(
                f"{moving[0]} moves rows of shared tokens, which are to stay: leave it out, or "
                "let them change"
            )
        stages = [stage for stage in stages if not stage.shared_alone]
    if names is None and recipe.for_draft is not None and _has_big_model(recipe):
        # One training is enough, and the fit to the big model is one, and refits the output rows.
        stages = [s for s in stages if not isinstance(s, Taught) and not s.after_training]
    taught = [stage for stage in stages if isinstance(stage, Taught)]
    for stage in taught:
        n_bytes = bytes_to_calibrate_on(session.calibration_texts)
        takes = n_bytes / BYTES_PER_TOKEN * (PASSES / session.pace.body + DISTIL_OVERHEAD)
        stage.seconds = min(TAUGHT_SHARE * 60 * session.budget / len(taught), takes)
        stage.seed, stage.progress = recipe.seed, session.progress
    return stages


def _in_order(session: Session, stages: list[Stage], heal: float, drafts: bool) -> list[Stage]:
    """Return stages in the order in which they are tried, with training and draft where asked."""
    recipe, progress = session.recipe, session.progress
    ordered = [stage for stage in stages if not stage.after_training]
    if heal:
        ordered.append(Heal(heal, recipe.seed, progress))
    ordered += [stage for stage in stages if stage.after_training]
    if drafts:
        seconds = DRAFT_SHARE * 60 * session.budget
        draft = Draft(lambda: _big_model(recipe), seconds, progress, session.chats, recipe.seed)
        ordered.append(draft)
    return ordered


def _run(
    session: Session, rows: CalibratedRows, stages: list[Stage], clock: Clock
) -> CalibratedRows:
    """Run stages on what a calibration left, or on the start."""
    since, forward = time.perf_counter(), session.forward_tokens
    before = rows.done.records if rows.done else ()
    done = calibrate(
        session.calibration_data,
        rows.done or rows.start.matrices,
        stages,
        clock=clock,
        progress=session.progress,
    )
    new = done.records[len(before) :]
    seconds = time.perf_counter() - since - sum(record.seconds for record in new)
    tokens = session.forward_tokens - forward - sum(record.forward_tokens for record in new)
    return replace(
        rows,
        done=done,
        seconds=rows.seconds + seconds,
        forward_tokens=rows.forward_tokens + tokens,
    )


def _big_model(recipe: Recipe) -> LanguageModel:
    """Load the big model that the result is to draft for.

    Raises
    ------
    CalibrationError, CheckpointError
        If it cannot be run; of some, only the rows are there, which are enough for all else.
    """
    big = _big_checkpoint(recipe)
    if not _runs(big, recipe):
        what = "larger than memory" if big.layout.kind == CAUSAL else "no causal language model"
        raise CalibrationError(f"the big model is {what}; leave the stage out")
    return load_model(
        big.path,
        device=recipe.device,
        dtype=recipe.dtype,
        trust_remote_code=recipe.trust_remote_code,
    )


def _big_checkpoint(recipe: Recipe) -> Checkpoint:
    assert recipe.for_draft is not None
    return Checkpoint.open(recipe.for_draft, trust_remote_code=recipe.trust_remote_code)


def _runs(big: Checkpoint, recipe: Recipe) -> bool:
    return big.layout.kind == CAUSAL and can_run(big, recipe)


def _has_big_model(recipe: Recipe) -> bool:
    try:
        return _runs(_big_checkpoint(recipe), recipe)
    except CheckpointError:  # which `draft` says
        return False


def clipped(session: Session, rows: PatchedRows, percentile: float) -> PatchedRows:
    """Return the rows with long new ones shortened; each side says how many were.

    Parameters
    ----------
    session : Session
    rows : PatchedRows
    percentile : float
        Of the trained rows' norms, above 0 and at most 100.
    """
    context, sides = session.context, {}
    for name in ("input", "output"):
        side: Side = getattr(rows, name)
        trained = context.input_rows if name == "input" else context.output_rows
        new = np.flatnonzero(side.origin == INITIALISED)
        short, n_clipped = clip_rows(side.rows[new], trained[context.anchors], percentile)
        shortened = side.rows.copy()
        shortened[new] = round_rows(short, session.inputs.checkpoint.dtype)
        sides[name] = replace(side, rows=shortened, clipped=n_clipped)
    return replace(
        rows, input=sides["output"] if rows.tied else sides["input"], output=sides["output"]
    )


def _moved(session: Session, side: Side, rows: Float32) -> Side:
    """Return a side with other rows: rounded, and copied only where they still are."""
    if rows is side.rows:
        return side
    changed = (rows != side.rows).any(axis=1)
    new = side.rows.copy()
    new[changed] = round_rows(rows[changed], session.inputs.checkpoint.dtype)
    origin = np.where(changed & (side.origin == COPIED), RECALIBRATED, side.origin)
    copied = np.where(changed, -1, side.copied)
    return replace(side, rows=new, copied=copied, origin=origin.astype(np.uint8))
