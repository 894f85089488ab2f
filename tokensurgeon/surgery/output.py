"""Write what came of a surgery: the checkpoint, whole or not at all, its report and its records."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tokensurgeon.checkpoint import PatchPlan, check_tokenizer, write_checkpoint
from tokensurgeon.checkpoint.embeddings import CAUSAL
from tokensurgeon.checkpoint.ids import id_map
from tokensurgeon.evaluation.tasks import report_commands
from tokensurgeon.handover.facts import facts_of
from tokensurgeon.handover.trainer_files import NO_NEW_ROWS, hand_over_files
from tokensurgeon.models.device_map import AUTO_DEVICE_MAP
from tokensurgeon.models.memory import fits
from tokensurgeon.models.reload import reload_check
from tokensurgeon.report import SurgeryReport, model_card, surgery_page
from tokensurgeon.report.token_map import write_token_map
from tokensurgeon.surgery.measure import patched_model
from tokensurgeon.surgery.row_records import new_tokens, record_files
from tokensurgeon.surgery.rows import PatchedRows
from tokensurgeon.surgery.session import Session
from tokensurgeon.vocabulary.hard_text import hard_texts


def write_output(
    session: Session, rows: PatchedRows, report: SurgeryReport
) -> tuple[SurgeryReport, Path | None]:
    """Write what the recipe asks for: the token map, and the checkpoint with report and records.

    Returns
    -------
    SurgeryReport, Path or None
        The report completed with what the writer changed, and where the checkpoint is.
    """
    recipe, inputs = session.recipe, session.inputs
    if recipe.export_map is not None:
        write_token_map(inputs.alignment, inputs.pieces, recipe.export_map)
    if recipe.output is None:
        return report, None
    with session.timings.timed("write"):
        return _write_checkpoint(session, rows, report, Path(recipe.output))


def check_loads(session: Session, dry_run: bool = False) -> None:
    """Refuse a tokenizer that AutoTokenizer would read otherwise, before anything is computed.

    Where nothing is to be written, that is no matter; a dry run then says it.

    What was decided about the tokenizer goes to the session's decisions and warnings.

    Raises
    ------
    TokenizerError, CheckpointError
    """
    recipe, inputs = session.recipe, session.inputs
    if recipe.output is None and not dry_run:
        return
    shape = inputs.n_rows, inputs.checkpoint.layout.width
    nothing, none = np.broadcast_to(np.float32(0), shape), np.full(inputs.n_rows, -1)
    plan = _plan(
        session,
        input_rows=nothing,
        output_rows=nothing,
        copied_input=none,
        copied_output=none,
    )
    allow = recipe.allow_autotokenizer_mismatch or recipe.output is None
    decisions, warnings = check_tokenizer(plan, _probe_texts(session), allow=allow)
    session.tokenizer_decisions += decisions
    session.warnings += warnings


def _probe_texts(session: Session) -> list[str]:
    return [*hard_texts(), *session.calibration_texts[:8]]


def _plan(session: Session, **rows: Any) -> PatchPlan:
    """Return what becomes of the checkpoint, with these rows."""
    recipe, inputs = session.recipe, session.inputs
    return PatchPlan(
        checkpoint=inputs.checkpoint,
        target=inputs.alignment.target,
        untie=inputs.untied,
        id_map=id_map(inputs.alignment),
        chat_template=recipe.chat_template,
        special_tokens="target" if recipe.for_draft else recipe.special_tokens,
        allow_nonfinite=recipe.allow_nonfinite,
        **rows,
    )


def _harness_commands(session: Session, output: Path) -> dict[str, str]:
    """Return how lm-evaluation-harness measures the source and what is written."""
    inputs, recipe = session.inputs, session.recipe
    if inputs.checkpoint.layout.kind != CAUSAL:
        return {}
    return report_commands(
        (recipe.source, inputs.alignment.source),
        (output, inputs.alignment.target),
        trust_remote_code=recipe.trust_remote_code,
    )


def _write_checkpoint(
    session: Session, rows: PatchedRows, report: SurgeryReport, output: Path
) -> tuple[SurgeryReport, Path]:
    recipe, inputs = session.recipe, session.inputs
    plan = _plan(
        session,
        input_rows=rows.input.rows,
        output_rows=rows.output.rows,
        output_bias=rows.output_bias,
        copied_input=rows.input.copied,
        copied_output=rows.output.copied,
        body=rows.body,
    )
    completed: list[SurgeryReport] = []
    handed_over: dict[str, bytes | str] = {}
    if recipe.hand_over:
        facts = facts_of(inputs.checkpoint, new_tokens(rows), tied=rows.tied)
        handed_over = hand_over_files(facts, recipe.hand_over)
        if not facts.ids:
            report = report.model_copy(update={"warnings": (*report.warnings, NO_NEW_ROWS)})

    def extra_files(ids: dict[str, Any], warnings: Sequence[str]) -> dict[str, bytes | str]:
        """Complete the report once the writer knows what it changed."""
        complete = report.model_copy(
            update={
                "ids": ids,
                "warnings": tuple(dict.fromkeys([*report.warnings, *warnings])),
                "written_to": str(output),
                "harness": _harness_commands(session, output),
            }
        )
        completed.append(complete)
        return {
            "report.json": complete.to_json(),
            "README.md": model_card(complete),
            "report.html": surgery_page(complete),
            **record_files(session, rows),
            **handed_over,
        }

    on_one_device = recipe.device != AUTO_DEVICE_MAP
    copies = 2 if rows.body is None else 3  # the source, its changed body, and what was written
    runs = on_one_device and fits(inputs.checkpoint, recipe.dtype, copies=copies)
    if not runs:
        why = "is larger than memory" if on_one_device else "lies on several devices"
        note = f"the source {why}: the result was checked by its headers, not run"
        report = report.model_copy(update={"warnings": (*report.warnings, note)})
    written = write_checkpoint(
        plan,
        output,
        force=recipe.force,
        extra_files=extra_files,
        recipe_yaml=recipe.to_yaml(),
        probe_texts=_probe_texts(session),
        allow_autotokenizer_mismatch=recipe.allow_autotokenizer_mismatch,
        check=reload_check(plan, patched_model(session, rows)) if runs else None,
        seed=recipe.seed,
    )
    return completed[-1].model_copy(update={"manifest": written.manifest_sha256}), output
