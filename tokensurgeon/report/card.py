"""The model card of a patched checkpoint, in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from tokensurgeon.report import added_tokens, decisions, gap, span_tables, trim_words, words
from tokensurgeon.report.pages import fill
from tokensurgeon.report.surgery_report import SurgeryReport
from tokensurgeon.report.trim_facts import TrimFacts


class _Row(str):
    """A finished line of a table."""


def _row(cells: Sequence[str]) -> _Row:
    return _Row("| " + " | ".join(_in_cell(cell) for cell in cells) + " |")


def model_card(report: SurgeryReport) -> str:
    """Return the card: what was done, how it compares, its limits, how to load and repeat it."""
    if report.trim is not None:
        return _trim_card(report, report.trim)
    sides, parts = report.sides("both"), gap.patched_parts(report)
    entries = (report.evaluation or {}).get("entries", ())
    return fill(
        "card.md.jinja",
        _in_cell,
        report=report,
        source=words.short(report.source.path),
        target=words.short(report.target.path),
        figures=words.figures(report),
        notes=words.notes(words.figures(report)),
        elsewhere=words.figures(report, "elsewhere"),
        extension=added_tokens.lines(report),
        headings=words.HEADINGS,
        gap=gap.table(parts),
        largest=gap.largest(parts),
        on_numbers=gap.on_numbers(report),
        span_headings=span_tables.headings(entries),
        spans=span_tables.rows(entries),
        number=words.number,
        untying=words.untying(report),
        body=words.body(report),
        choice=decisions.choice_rows(report),
        choice_headings=decisions.CHOICE_HEADINGS,
        tokenizer=decisions.tokenizer_rows(report),
        tokenizer_headings=decisions.TOKENIZER_HEADINGS,
        stages=decisions.stage_rows(report),
        stage_headings=decisions.STAGE_HEADINGS,
        trained=any(stage.kept and stage.gradient_steps for stage in report.stages),
        row=_row,
        sides=sides,
        audit=[
            (name, kind, norms)
            for name, side in sides
            for kind, norms in (("made", side.audit.new), ("trained", side.audit.trained))
            if norms
        ],
        audit_lines=words.rows_to_look_at(report),
        alignment=list(_flat(report.alignment)),
        recipe=yaml.safe_dump(report.recipe, sort_keys=False, allow_unicode=True),
        short=words.short,
        copied=words.copied,
        settings=words.settings,
        tokens=words.tokens,
    )


def _trim_card(report: SurgeryReport, trim: TrimFacts) -> str:
    """Return the card of a checkpoint whose vocabulary was cut down."""
    proof = [trim_words.on_text(trim), trim_words.on_logits(trim)]
    return fill(
        "trim_card.md.jinja",
        _in_cell,
        report=report,
        source=words.short(report.source.path),
        kept=f"Kept are {trim_words.kept(trim)}",
        sizes=trim_words.size_rows(trim),
        size_headings=trim_words.SIZE_HEADINGS,
        proof=[line for line in proof if line] + trim_words.on_softmax(trim.proof),
        others=trim_words.other_rows(trim),
        other_headings=trim_words.OTHER_HEADINGS,
        left_out=trim_words.left_out(trim),
        notes=trim_words.not_scored(trim),
        tokenizer=decisions.tokenizer_rows(report),
        tokenizer_headings=decisions.TOKENIZER_HEADINGS,
        command=trim_words.command(report),
        row=_row,
    )


def _in_cell(value: Any) -> Any:
    """Keep a value on one line of a table, unless it is a block such as the recipe."""
    if isinstance(value, str) and not isinstance(value, _Row) and not value.endswith("\n"):
        return value.replace("\n", " ").replace("|", "\\|")
    return value


def _flat(summary: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Turn a nested summary into lines; long lists are cut."""
    lines: list[tuple[str, str]] = []
    for key, value in summary.items():
        name = f"{prefix}{str(key).replace('_', ' ')}"
        if isinstance(value, dict):
            lines += _flat(value, f"{name}: ")
        elif isinstance(value, (list, tuple)):
            shown = ", ".join(str(item) for item in value[:5])
            more = f" and {len(value) - 5} more" if len(value) > 5 else ""
            lines.append((name, f"{shown}{more}" or "none"))
        elif isinstance(value, float):
            lines.append((name, f"{value:.4g}"))
        elif isinstance(value, int) and not isinstance(value, bool):
            lines.append((name, f"{value:,}"))
        else:
            lines.append((name, str(value).lower() if isinstance(value, bool) else str(value)))
    return lines
