"""Run a recipe end to end: prepare, make rows, measure, report, write."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokensurgeon.alignment import Alignment
from tokensurgeon.errors import UsageError
from tokensurgeon.evaluation import Evaluation
from tokensurgeon.initialisers import load_plugin
from tokensurgeon.initialisers.contract import Initialiser
from tokensurgeon.progress import Progress, no_progress
from tokensurgeon.recipe import Recipe
from tokensurgeon.report import SurgeryReport
from tokensurgeon.surgery.budget import START_AND_END
from tokensurgeon.surgery.calibrate import calibrate_rows, check_heal_body, clipped
from tokensurgeon.surgery.choose import Choice, choose
from tokensurgeon.surgery.chosen_methods import Methods, check_settings, plan_methods
from tokensurgeon.surgery.estimate import estimate
from tokensurgeon.surgery.measure import (
    evaluation_texts,
    extension_of,
    has_loss,
    measure,
    seconds_to_measure,
    with_baselines,
)
from tokensurgeon.surgery.output import check_loads, write_output
from tokensurgeon.surgery.prepare import prepare
from tokensurgeon.surgery.reporting import make_report
from tokensurgeon.surgery.row_records import kept_of_draft
from tokensurgeon.surgery.rows import PatchedRows, patch_rows
from tokensurgeon.surgery.session import Session
from tokensurgeon.text.encoding import prefix_of


@dataclass(frozen=True)
class SurgeryResult:
    """What `transplant` returns.

    Attributes
    ----------
    report : SurgeryReport
    output : Path or None
        The patched checkpoint; None where the recipe names no output, or on a dry run.
    alignment : Alignment
    rows : PatchedRows or None
        The patched matrices; None on a dry run.
    evaluation : Evaluation or None
    """

    report: SurgeryReport
    output: Path | None
    alignment: Alignment
    rows: PatchedRows | None
    evaluation: Evaluation | None


def transplant(
    recipe: Recipe | None = None,
    /,
    *,
    dry_run: bool = False,
    plugins: Sequence[str | Path] = (),
    initialiser: Initialiser | None = None,
    progress: Progress | None = None,
    **fields: Any,
) -> SurgeryResult:
    """Give a checkpoint another tokenizer, write it, and say what that cost.

    Parameters
    ----------
    recipe : Recipe, optional
        A whole surgery; else its fields as keywords, as in
        ``transplant(source="model", tokenizer="target", output="patched")``.
    dry_run : bool
        Read and align, estimate time and memory, and stop before any row is computed.
    plugins : sequence of path
        Python files that register initialisers. Their code runs.
    initialiser : Initialiser, optional
        An initialiser object for both sides, instead of a registered name.
    progress : callable(done, total, what), optional
    **fields
        Of a recipe.

    Returns
    -------
    SurgeryResult

    Raises
    ------
    TokensurgeonError
        With one line that says what is wrong and what to do; nothing is then at the output.

    Examples
    --------
    >>> from importlib.resources import files
    >>> demo = files("tokensurgeon") / "data"  # the tiny models that `tokensurgeon demo` uses
    >>> mean = {"input": "subword-mean", "output": "subword-mean"}
    >>> result = transplant(source=demo / "source", tokenizer=demo / "donor", init=mean)
    >>> result.report.source.n_tokens, result.report.target.n_tokens
    (4096, 6144)
    >>> result.rows.input.rows.shape  # nothing is written without `output`
    (6144, 144)
    """
    recipe = _recipe(recipe, fields)
    for plugin in plugins:
        load_plugin(plugin)
    check_settings(recipe)
    started = time.perf_counter()
    session = prepare(recipe, progress or no_progress)
    methods = plan_methods(session, initialiser)
    check_loads(session, dry_run)
    _check_draft(session)
    if not dry_run:
        _check_forward_passes(session, methods)
    texts = evaluation_texts(session) if recipe.measures else []
    elsewhere = evaluation_texts(session, "elsewhere") if recipe.text.elsewhere else []
    extension = extension_of(session, texts)
    if recipe.budget and session.runs_source and (methods.automatic or recipe.calibrate):
        session.beside = START_AND_END * (time.perf_counter() - started)
        session.beside += sum(seconds_to_measure(session, t) for t in (texts, elsewhere) if t)
    if dry_run:
        planned = estimate(session, methods, [*texts, *elsewhere])
        report = make_report(session, methods=methods.names, dry_run=planned, extension=extension)
        return SurgeryResult(report, None, session.alignment, None, None)
    rows, choice = _make_rows(session, methods)
    compared = with_baselines(session, rows) if texts or elsewhere else [("patched", rows)]
    evaluation = None
    if texts and has_loss(session):
        evaluation = measure(session, compared, texts, recipe.text.generate)
    there = measure(session, compared, elsewhere) if elsewhere else None
    session.timings.seconds["total"] = time.perf_counter() - started
    report = make_report(
        session,
        methods=methods.names,
        compared=compared,
        evaluation=evaluation,
        elsewhere=there,
        extension=extension,
        choice=choice,
    )
    report, output = write_output(session, rows, report)
    return SurgeryResult(report, output, session.alignment, rows, evaluation)


def _recipe(recipe: Recipe | None, fields: dict[str, Any]) -> Recipe:
    """Return a recipe, or the fields of one, as a checked recipe."""
    if recipe is not None and not fields:
        return recipe
    given = {} if recipe is None else recipe.model_dump()
    return Recipe.parse({**given, **fields}, where="transplant()")


def _check_draft(session: Session) -> None:
    """Refuse what a draft cannot be cut or fitted to, before anything is computed."""
    recipe = session.recipe
    if recipe.draft_vocabulary is not None:
        kept_of_draft(session)
    if recipe.text.chat and not session.chats:
        raise UsageError(
            f"{', '.join(recipe.text.chat)} holds no conversation in the big model's tokens; give "
            "another file"
        )


def _check_forward_passes(session: Session, methods: Methods) -> None:
    """Refuse what runs a source that cannot be run, before anything is computed."""
    recipe = session.recipe
    if recipe.text.evaluation or recipe.text.elsewhere:
        session.require_forward("--text", causal=False)
    if recipe.text.generate:
        _check_generation(session)
    if recipe.calibrate:
        session.require_forward("--calibrate")
    if recipe.heal:
        session.require_forward("--heal", trains=True)
    if recipe.heal_body:
        check_heal_body(session)
        tries_all = methods.automatic and recipe.calibrate is None
        if not (tries_all or recipe.calibrate or recipe.heal):
            raise UsageError(
                "--heal-body is part of calibration, and none is asked for: give --calibrate, or "
                "leave out --init"
            )


def _check_generation(session: Session) -> None:
    """Refuse samples that nobody could write, before anything is computed."""
    if not session.recipe.measures:
        raise UsageError("samples are written beside a measured text: give --text too")
    session.require_forward("--generate")
    for name, vocabulary in (
        ("source", session.alignment.source),
        ("target", session.alignment.target),
    ):
        if not prefix_of(vocabulary):
            raise UsageError(
                f"the {name} has neither BOS nor EOS to start a text from: leave out --generate"
            )


def _make_rows(session: Session, methods: Methods) -> tuple[PatchedRows, Choice | None]:
    """Choose or initialise, calibrate and clip."""
    recipe, choice = session.recipe, None
    if methods.automatic:
        with session.timings.timed("choose and calibrate"):
            choice = choose(session, recipe.init, recipe.calibrate, recipe.heal)
            rows = choice.rows.to_rows(session)
    else:
        with session.timings.timed("initialise"):
            rows = patch_rows(session, methods.names, recipe.init, methods.initialiser)
        with session.timings.timed("calibrate"):
            # A method that is named is left as it is, unless stages are named too.
            calibrated = calibrate_rows(session, rows, recipe.calibrate or (), recipe.heal)
            rows = calibrated.to_rows(session)
    if recipe.clip is not None:
        rows = clipped(session, rows, recipe.clip)
    session.warnings += rows.notes
    return rows, choice
