"""What `auto` chose from and what calibration bought, in words and as the rows of a table."""

from __future__ import annotations

from tokensurgeon.report import words
from tokensurgeon.report.surgery_report import ChoiceFact, SurgeryReport

CHOICE_HEADINGS = (
    "side",
    "method",
    "error on hidden tokens",
    "bits per byte",
    "on bytes",
    "chosen",
)
STEP_HEADINGS = ("step", "takes about", "fits")
TOKENIZER_HEADINGS = ("of the tokenizer", "is", "as in")
STAGE_HEADINGS = ("stage", "kept", "bits per byte", "on other text", "why")


def choice_rows(report: SurgeryReport) -> list[tuple[str, ...]]:
    """Return the lines of the table that `auto` chose from, by side and then by loss."""

    def key(line: ChoiceFact) -> tuple[str, float]:
        return line.side, float("inf") if line.bits_per_byte is None else line.bits_per_byte

    return [
        (
            line.side,
            line.method,
            words.number(line.rebuilt, 3),
            words.number(line.bits_per_byte, 4),
            "–" if line.n_bytes is None else f"{line.n_bytes:,}",
            "yes" if line.chosen else "",
        )
        for line in sorted(report.choice, key=key)
    ]


def tokenizer_rows(report: SurgeryReport) -> list[tuple[str, str, str]]:
    """Return what the written tokenizer took from which side, one line each."""
    whose = {"source": "the source", "target": "the target"}
    return [
        (one.what.replace("_", " "), one.value, whose.get(one.origin, one.origin))
        for one in report.tokenizer
    ]


def step_rows(report: SurgeryReport) -> list[tuple[str, str, str]]:
    """Return one line per step of a dry run."""
    return [
        (step.step, words.seconds(step.seconds), "yes" if step.fits else "no")
        for step in report.steps
    ]


def stage_rows(report: SurgeryReport) -> list[tuple[str, ...]]:
    """Return one line per stage of calibration."""
    return [
        (
            stage.stage,
            "yes" if stage.kept else "no",
            _change(stage.before, stage.after),
            _change(stage.other_before, stage.other_after),
            stage.why,
        )
        for stage in report.stages
    ]


def _change(before: float | None, after: float | None) -> str:
    if before is None:
        return "–"
    return f"{before:.4f} → {words.number(after, 4)}"


def in_short(report: SurgeryReport) -> list[str]:
    """Return a line on the choice, one on the calibration, and one on a draft's fit."""
    lines = []
    if report.choice:
        chosen = [f"{line.side} {line.method}" for line in report.choice if line.chosen]
        lines.append(f"auto chose {', '.join(chosen)}: {report.choice_why}")
    kept = [stage for stage in report.stages if stage.kept and stage.stage != "draft"]
    if report.stages:
        bought = [
            f"{stage.stage} {words.number(stage.before - stage.after, 3)}"
            for stage in kept
            if stage.before is not None and stage.after is not None
        ]
        whose = "text that the source wrote" if report.generated else "the calibration text"
        lines.append(
            f"calibration on {whose}: "
            + (f"bits per byte bought: {', '.join(bought)}" if bought else "no stage helped")
        )
    refused = [stage.stage for stage in report.stages if not stage.kept]
    if refused:
        lines.append(f"not kept: {', '.join(refused)}; report.json says why, under stages")
    lines += [f"draft: {stage.why}" for stage in report.stages if stage.stage == "draft"]
    return lines
