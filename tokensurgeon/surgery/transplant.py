"""Run a recipe end to end: prepare, compute rows, measure, write, report."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tokensurgeon.alignment import Alignment
from tokensurgeon.calibration import check_stages
from tokensurgeon.checkpoint import PatchPlan, write_checkpoint
from tokensurgeon.evaluation import Evaluation
from tokensurgeon.initialisers import build, load_plugin
from tokensurgeon.initialisers.contract import Initialiser
from tokensurgeon.models.device_map import SPREAD
from tokensurgeon.models.memory import fits
from tokensurgeon.progress import Progress, no_progress
from tokensurgeon.recipe import Recipe
from tokensurgeon.report import SurgeryReport, model_card
from tokensurgeon.surgery.calibrate import calibrated, clipped
from tokensurgeon.surgery.choose import choose
from tokensurgeon.surgery.chosen_methods import (
    AUTO,
    build_initialiser,
    chosen_methods,
    wants_auto,
)
from tokensurgeon.surgery.estimate import estimate
from tokensurgeon.surgery.limits import check_forward
from tokensurgeon.surgery.measure import evaluation_texts, measure, patched_model
from tokensurgeon.surgery.prepare import Operation, prepare
from tokensurgeon.surgery.reporting import make_report
from tokensurgeon.surgery.row_records import record_files
from tokensurgeon.surgery.rows import PatchedRows, patch_rows
from tokensurgeon.surgery.token_map import check_map_path, id_map, write_token_map
from tokensurgeon.surgery.untying import TIED_ENTRY, tied_rows, untied
from tokensurgeon.vocabulary.hard_text import hard_texts


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

    Returns
    -------
    SurgeryResult

    Raises
    ------
    TokensurgeonError
        With one line that says what is wrong and what to do; nothing is then at the output.

    Examples
    --------
    >>> result = transplant(source="model", tokenizer="target")  # doctest: +SKIP
    >>> result.report.evaluation  # doctest: +SKIP
    """
    if recipe is None:
        recipe = Recipe.parse(fields, where="transplant()")
    elif fields:
        recipe = Recipe.parse({**recipe.model_dump(), **fields}, where="transplant()")
    for plugin in plugins:
        load_plugin(plugin)
    _check_settings(recipe)
    if recipe.export_map is not None:
        check_map_path(recipe.export_map, recipe.force)
    start = time.perf_counter()
    operation = prepare(recipe, progress or no_progress)
    automatic = initialiser is None and wants_auto(recipe.init)
    methods = (AUTO, AUTO) if automatic else chosen_methods(operation, recipe.init)
    if not automatic:
        for name in methods:
            build_initialiser(name, recipe.init, methods)
    if recipe.calibrate is not None:
        check_stages(recipe.calibrate, operation.tied)
    if dry_run:
        report = make_report(operation, methods=methods, dry_run=estimate(operation, methods))
        return SurgeryResult(report, None, operation.alignment, None, None)

    if recipe.text.evaluation:
        check_forward(operation, "--text", causal=False)
    if recipe.calibrate:
        check_forward(operation, "--calibrate")
    if recipe.heal:
        check_forward(operation, "--heal", trains=True)
    texts = evaluation_texts(operation) if recipe.text.evaluation else []
    choice = None
    if automatic:
        with operation.stage("choose and calibrate"):
            choice = choose(operation, recipe.init, recipe.calibrate, recipe.heal)
            rows = choice.rows
    else:
        with operation.stage("initialise"):
            rows = patch_rows(operation, methods, recipe.init, initialiser)
        with operation.stage("calibrate"):
            # A method that is named is left as it is, unless stages are named too.
            rows = calibrated(operation, rows, recipe.calibrate or (), recipe.heal)
    rows = replace(rows, early=None)  # no healing goes on from there: a matrix less to hold
    if recipe.clip is not None:
        rows = clipped(operation, rows, recipe.clip)
    operation.warnings += rows.notes
    made = [("patched", rows)]
    evaluation = None
    if texts:
        made += _baselines(operation, rows)
        if untied(operation):
            made.append((TIED_ENTRY, tied_rows(operation)))
        evaluation = measure(operation, made, texts)
    operation.timings["total"] = time.perf_counter() - start
    report = make_report(
        operation, methods=methods, made=made, evaluation=evaluation, choice=choice
    )
    output = None
    if recipe.export_map is not None:
        write_token_map(operation.alignment, operation.pieces, recipe.export_map)
    if recipe.output is not None:
        with operation.stage("write"):
            report, output = _write(operation, rows, report)
    return SurgeryResult(report, output, operation.alignment, rows, evaluation)


def _check_settings(recipe: Recipe) -> None:
    """Refuse unknown methods and wrong settings before anything is read."""
    spec = recipe.init
    named = tuple(name for name in (spec.input, spec.output) if name not in (None, AUTO))
    for name in sorted({*named, *recipe.baselines}):
        build_initialiser(name, spec, named)
    for name, settings in spec.settings.items():
        if name != "*":
            build(name, settings)


def _baselines(operation: Operation, rows: PatchedRows) -> list[tuple[str, PatchedRows]]:
    """Compute the plain baselines that are not the chosen method itself."""
    found = []
    # What was said for whichever method is chosen was not said for these.
    every = operation.recipe.init.settings
    named_settings = {name: settings for name, settings in every.items() if name != "*"}
    for name in operation.recipe.baselines:
        if name == rows.input.method == rows.output.method:
            continue
        with operation.stage("baselines"):
            plain = operation.recipe.init.model_copy(update={"settings": named_settings})
            found.append((name, patch_rows(operation, (name, name), plain)))
    return found


def _write(
    operation: Operation, rows: PatchedRows, report: SurgeryReport
) -> tuple[SurgeryReport, Path]:
    """Write the checkpoint with its report, card and records; return the completed report."""
    recipe = operation.recipe
    assert recipe.output is not None
    output = Path(recipe.output)
    plan = PatchPlan(
        checkpoint=operation.checkpoint,
        target=operation.alignment.target,
        input_rows=rows.input.rows,
        output_rows=rows.output.rows,
        output_bias=rows.output_bias,
        copied_input=rows.input.copied,
        copied_output=rows.output.copied,
        untie=recipe.untie and operation.checkpoint.layout.tied,
        id_map=id_map(operation.alignment),
        chat_template=recipe.chat_template,
        allow_nonfinite=recipe.allow_nonfinite,
    )
    finished: list[SurgeryReport] = []

    def extra_files(ids: dict[str, Any], warnings: Sequence[str]) -> dict[str, bytes | str]:
        """Complete the report once the writer knows what it changed."""
        complete = report.model_copy(
            update={
                "ids": ids,
                "warnings": (*report.warnings, *warnings),
                "written_to": str(output),
            }
        )
        finished.append(complete)
        return {
            "report.json": complete.to_json(),
            "README.md": model_card(complete),
            **record_files(operation, rows),
        }

    spread = recipe.device == SPREAD
    runs = not spread and fits(operation.checkpoint, recipe.dtype, copies=2)
    if not runs:
        why = "is spread over devices" if spread else "is larger than memory"
        note = f"the source {why}: the result was checked by its headers, not run"
        report = report.model_copy(update={"warnings": (*report.warnings, note)})
    written = write_checkpoint(
        plan,
        output,
        force=recipe.force,
        extra_files=extra_files,
        recipe_yaml=recipe.to_yaml(),
        probe_texts=[*hard_texts(), *operation.calibration_texts[:8]],
        allow_autotokenizer_mismatch=recipe.allow_autotokenizer_mismatch,
        expected=patched_model(operation, rows) if runs else None,
        reload_check=runs,
        seed=recipe.seed,
    )
    return finished[-1].model_copy(update={"manifest": written.manifest_sha256}), output
