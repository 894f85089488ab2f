"""Calibrate patched rows: the stages of `tokensurgeon.calibration`, and healing among them."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import replace

import numpy as np

from tokensurgeon.calibration import (
    Matrices,
    StageRecord,
    Workbench,
    calibrate,
    check_stages,
    default_stages,
    make_workbench,
    train_rows,
)
from tokensurgeon.calibration.acceptance import PARTS, Verdict, judge
from tokensurgeon.calibration.contract import Candidate
from tokensurgeon.calibration.stages.draft import fit_draft
from tokensurgeon.checkpoint import Checkpoint, round_rows
from tokensurgeon.checkpoint.embeddings import CAUSAL
from tokensurgeon.errors import CheckpointError
from tokensurgeon.initialisers.contract import InitContext, Rows
from tokensurgeon.initialisers.numerics.clip import clip_rows
from tokensurgeon.models.load import load_model
from tokensurgeon.surgery.limits import can_run, check_forward
from tokensurgeon.surgery.prepare import Operation
from tokensurgeon.surgery.rows import COPIED, INITIALISED, RECALIBRATED, PatchedRows, Side
from tokensurgeon.text.corpus import read_documents
from tokensurgeon.vocabulary import Kind

AFTER_HEALING = ("refit",)
"""Stages that come after healing where there is some: what they fit to the text, a training on that
text does not learn again, and ends higher (stories260K with 4,096 tokens: 1.236 against 1.170)."""


def calibrated(
    operation: Operation,
    rows: PatchedRows,
    stages: tuple[str, ...] | None,
    heal: float = 0.0,
) -> PatchedRows:
    """Return the rows after calibration; `rows` is not changed.

    Parameters
    ----------
    operation : Operation
    rows : PatchedRows
        Of an initialiser.
    stages : tuple of str or None
        Of `tokensurgeon.calibration.STAGES`, in their order; None tries all that the checkpoint
        allows, and () none.
    heal : float
        Minutes of training after all stages but `AFTER_HEALING`; 0 trains nothing.

    Raises
    ------
    UsageError, CalibrationError
        If a stage is unknown or cannot work here, or there is too little text.
    """
    names = default_stages(rows.tied) if stages is None else stages
    check_stages(names, rows.tied)
    if not names and not heal:
        return rows
    if names:
        check_forward(operation, "calibration")
    if heal:
        check_forward(operation, "healing", trains=True)
    start, budget = time.perf_counter(), 60 * operation.recipe.budget
    before = 0 if operation.bench is None else operation.bench.forward_tokens
    bench = workbench(operation, rows)
    matrices = rows.matrices
    records: tuple[StageRecord, ...] = ()

    def tried(which: tuple[str, ...]) -> None:
        nonlocal matrices, records, budget
        if which:
            since = time.perf_counter()
            matrices, found = calibrate(
                bench, matrices, which, seconds=budget, progress=operation.progress
            )
            records += found
            budget -= time.perf_counter() - since

    def patched(early: PatchedRows | None) -> PatchedRows:
        output = _side(operation, rows.output, matrices.output)
        return replace(
            rows,
            input=output if rows.tied else _side(operation, rows.input, matrices.input),
            output=output,
            output_bias=matrices.bias,
            seconds=rows.seconds + time.perf_counter() - start,
            forward_tokens=rows.forward_tokens + bench.forward_tokens - before,
            used_text=rows.used_text or not bench.texts.generated,
            stages=(*rows.stages, *records),
            gradient_steps=rows.gradient_steps + sum(record.gradient_steps for record in records),
            calibration_bytes=bench.texts.n_bytes,
            generated=bench.texts.generated,
            early=early,
        )

    tried(tuple(name for name in names if name not in AFTER_HEALING))
    early = patched(None)
    if heal:
        matrices, record = _healed(operation, bench, matrices, heal, (*rows.stages, *records))
        records += (record,)
    tried(tuple(name for name in names if name in AFTER_HEALING))
    if operation.recipe.for_draft is not None and names:
        matrices, record = _drafted(operation, bench, matrices)
        records += (record,)
    return patched(None if heal else early)


def healed_later(operation: Operation, rows: PatchedRows, heal: float) -> PatchedRows:
    """Return what `calibrated` would have made of rows, had it been told to heal them too.

    Parameters
    ----------
    operation : Operation
    rows : PatchedRows
        Of `calibrated` without healing, or of an initialiser.
    heal : float
        Minutes of training.
    """
    late: tuple[StageRecord, ...] = ()
    if rows.early is not None:
        late = rows.stages[len(rows.early.stages) :]
        # What choosing the rows took is booked with those that all of it led to.
        rows = replace(
            rows.early,
            seconds=rows.seconds - sum(record.seconds for record in late),
            forward_tokens=rows.forward_tokens - sum(record.forward_tokens for record in late),
        )
    names = tuple(record.stage for record in late if record.stage in AFTER_HEALING)
    return calibrated(operation, rows, names, heal)


def clipped(operation: Operation, rows: PatchedRows, percentile: float) -> PatchedRows:
    """Return the rows with long new ones shortened; each side says how many were.

    Parameters
    ----------
    operation : Operation
    rows : PatchedRows
    percentile : float
        Of the trained rows' norms, above 0 and at most 100.
    """
    context, sides = operation.context, {}
    for name in ("input", "output"):
        side: Side = getattr(rows, name)
        trained = context.input_rows if name == "input" else context.output_rows
        new = np.flatnonzero(side.origin == INITIALISED)
        short, n_clipped = clip_rows(side.rows[new], trained[context.anchors], percentile)
        made = side.rows.copy()
        made[new] = round_rows(short, operation.checkpoint.dtype)
        sides[name] = replace(side, rows=made, clipped=n_clipped)
    return replace(
        rows, input=sides["output"] if rows.tied else sides["input"], output=sides["output"]
    )


def workbench(operation: Operation, rows: PatchedRows) -> Workbench:
    """Return the operation's workbench, made at the first call."""
    if operation.bench is None:
        context = operation.context
        # A plain context: calibration's own look at the text is not the initialiser's.
        plain = InitContext(
            **{f.name: getattr(context, f.name) for f in dataclasses.fields(InitContext) if f.init}
        )
        patterns = operation.recipe.text.other
        text = np.isin(context.target.kinds, (Kind.ORDINARY, Kind.BYTE))
        # The rows may be calibrated already, by a workbench that is gone.
        shared = np.isin(rows.output.origin[: len(text)], (COPIED, RECALIBRATED))
        operation.bench = make_workbench(
            operation.model,
            plain,
            new=np.flatnonzero(rows.output.origin == INITIALISED),
            # Controls such as EOS are in no text, so a text is no reason to move them.
            shared=np.flatnonzero(shared & text),
            other=[document.text for document in read_documents(patterns)] if patterns else (),
            seconds=30 * operation.recipe.budget,
        )
    return operation.bench


def _healed(
    operation: Operation,
    bench: Workbench,
    matrices: Matrices,
    minutes: float,
    earlier: tuple[StageRecord, ...],
) -> tuple[Matrices, StageRecord]:
    """Train new and shared rows, and keep of the training what passes.

    It must help on the selection text, and not lose on other text what the rows had there before
    the `earlier` stages. Rows on the way from the start to where it led are asked too: they are
    often better on both (weight-space ensembles; Wortsman et al., 2022, arXiv 2109.01903).
    """
    start, before = time.perf_counter(), bench.score(matrices, bench.texts.selection)
    other = bench.score(matrices, bench.texts.other) if bench.texts.other else None
    known = (record.other_before for record in earlier)
    bound = next((figure for figure in known if figure is not None), other)
    trained = np.zeros(len(matrices.input), dtype=bool)
    trained[bench.new_and_shared] = True
    healed = train_rows(
        bench.patched(matrices),
        operation.alignment.target,
        bench.texts.documents,
        train_input=trained,
        train_output=trained,
        tied=matrices.tied,
        minutes=minutes,
        seed=operation.recipe.seed,
        selection=lambda model: bench.score_model(model, bench.texts.selection),
        progress=operation.progress,
    )
    whole = healed.matrices

    def part(share: float) -> Candidate:
        settings = {"minutes": minutes, "tokens": healed.n_tokens}
        if share == 1.0:
            return Candidate(settings, whole)
        return Candidate({**settings, "of_the_change": share}, matrices.towards(whole, share))

    # One at a time: each is as large as the rows.
    shares = (1.0, *PARTS)
    figures = [bench.score(part(share).matrices, bench.texts.selection) for share in shares]
    verdict: Verdict | None = None
    for figure, share in sorted(zip(figures, shares, strict=True)):
        found = judge(bench, matrices, before, [(figure, part(share))], bound, parts=())
        if verdict is None or found.kept is not None:
            verdict = found
        if found.kept is not None:
            break
    assert verdict is not None
    return matrices if verdict.kept is None else verdict.kept.matrices, StageRecord(
        stage="heal",
        kept=verdict.kept is not None,
        why=verdict.why,
        settings=verdict.settings,
        before=before,
        after=verdict.after,
        other_before=other,
        other_after=verdict.other_after,
        seconds=round(time.perf_counter() - start, 3),
        forward_tokens=healed.n_tokens,
        gradient_steps=healed.n_steps,
    )


def _drafted(
    operation: Operation, bench: Workbench, matrices: Matrices
) -> tuple[Matrices, StageRecord]:
    """Fit the output rows to the big model that the result is to draft for, where that can run."""
    recipe, start = operation.recipe, time.perf_counter()
    assert recipe.for_draft is not None
    before = bench.score(matrices, bench.texts.selection)
    record = StageRecord("draft", False, "", before=before)
    big = Checkpoint.open(recipe.for_draft, trust_remote_code=recipe.trust_remote_code)
    if big.layout.kind != CAUSAL or not can_run(big, recipe):
        what = "larger than memory" if big.layout.kind == CAUSAL else "no causal language model"
        return matrices, replace(record, why=f"not tried: the big model is {what}")
    try:
        model = load_model(
            big.path,
            device=recipe.device,
            dtype=recipe.dtype,
            trust_remote_code=recipe.trust_remote_code,
        )
    except CheckpointError as error:  # rows alone, say, which are enough for all else
        return matrices, replace(record, why=f"not tried: {error}")
    forward = bench.forward_tokens
    found = fit_draft(
        bench, matrices, model, seconds=15 * recipe.budget, progress=operation.progress
    )
    kept = found.rounds > 0
    gain = f"the big model accepts at least {found.before:.3f} of a text's tokens"
    return found.matrices, replace(
        record,
        kept=kept,
        why=f"{gain}, {found.after:.3f} afterwards" if kept else f"no gain: {gain} already",
        settings={
            "rounds": found.rounds,
            "acceptance_before": round(found.before, 4),
            "acceptance_after": round(found.after, 4),
            "big_model_tokens": found.n_tokens,
        },
        after=bench.score(found.matrices, bench.texts.selection) if kept else before,
        seconds=round(time.perf_counter() - start, 3),
        forward_tokens=bench.forward_tokens - forward,
    )


def _side(operation: Operation, side: Side, rows: Rows) -> Side:
    """Return a side with other rows: rounded, and copied only where they still are."""
    if rows is side.rows:
        return side
    changed = (rows != side.rows).any(axis=1)
    new = side.rows.copy()
    new[changed] = round_rows(rows[changed], operation.checkpoint.dtype)
    origin = np.where(changed & (side.origin == COPIED), RECALIBRATED, side.origin)
    copied = np.where(changed, -1, side.copied)
    return replace(side, rows=new, copied=copied, origin=origin.astype(np.uint8))
