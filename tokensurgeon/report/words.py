"""Figures and phrases that the card and the terminal share. No arithmetic on models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from tokensurgeon.report.surgery_report import SideReport, SurgeryReport, TokenFact

MATCHES = {
    "none": "no source token has these bytes",
    "exact": "bytes, kind and spelling equal",
    "byte": "bytes equal",
    "control": "a control token of the same spelling or role",
    "normalised": "equal once the source has normalised it",
    "map": "named by --map",
}
"""How a target token was matched with a source token, by the names of `Match`."""


@dataclass(frozen=True)
class Figure:
    """One line of a table of figures; None where it is not known."""

    name: str
    bits_per_byte: float | None
    after_steps: float | None = None
    gap: float | None = None
    interval: tuple[float, float] | None = None
    perplexity_ratio: float | None = None
    bytes_per_token: float | None = None
    closed: float | None = None
    gap_adapted: float | None = None
    donor: bool = False
    text_bytes: int = 0
    forward_tokens: int = 0
    gradient_steps: int = 0
    body_numbers: int = 0
    seconds: float | None = None
    seed_range: tuple[float, float] | None = None
    error: str | None = None
    lost: int = 0
    """Chunks of the text on which its tokenizer loses text: not comparable, in no figure of it."""

    @property
    def given(self) -> str:
        """What the method had besides the source and the tokenizers."""
        parts = []
        if self.donor:
            parts.append("donor rows")
        if self.text_bytes:
            parts.append(f"{size(self.text_bytes)} of text")
        if self.forward_tokens:
            parts.append(f"{self.forward_tokens:,} tokens run")
        if self.gradient_steps:
            parts.append(count(self.gradient_steps, "gradient step"))
        return ", ".join(parts) or "nothing"

    def cells(self) -> list[str]:
        """Return bits per byte, gap, interval, ratio and bytes per token as they are shown."""
        return [
            number(self.bits_per_byte, 4),
            number(self.gap, 4, sign=True),
            interval(self.interval),
            number(self.perplexity_ratio, 3),
            number(self.bytes_per_token, 2),
        ]


HEADINGS = ("bits per byte", "gap", "95 % interval", "perplexity ratio", "bytes per token")
"""Over `Figure.cells`."""

SHORT_HEADINGS = ("bits/byte", "gap", "95 % interval", "ppl ratio", "bytes/token")
"""The same on a terminal."""


def figure_of(row: Mapping[str, Any], name: str | None = None, **more: Any) -> Figure:
    """Read one entry of an evaluation, or one row of a comparison; other keys are not looked at.

    An entry has its gap to the source and the interval of it under ``difference``, a row of a
    comparison under ``gap`` and ``interval``.
    """
    known: dict[str, Any] = {field.name: row.get(field.name) for field in fields(Figure)} | more
    known |= {"name": name or str(row.get("name") or row.get("method"))}
    known |= {"donor": bool(known["donor"]), "lost": row.get("chunks_not_comparable")}
    if difference := row.get("difference"):
        bounds = (difference["low"], difference["high"])
        known |= {"gap": difference["estimate"], "interval": bounds}
    for key in ("interval", "seed_range"):
        known[key] = tuple(map(float, known[key])) if known[key] else None
    for key in ("text_bytes", "forward_tokens", "gradient_steps", "body_numbers", "lost"):
        known[key] = int(known[key] or 0)
    return Figure(**known)


def figures(report: SurgeryReport, key: str = "evaluation") -> list[Figure]:
    """Return the lines of a report's table: source, patched, baselines; empty if not measured.

    `key` is ``evaluation`` or ``elsewhere``.
    """
    evaluation: Mapping[str, Any] | None = getattr(report, key)
    if evaluation is None:
        return []
    steps = sum(stage.gradient_steps for stage in report.stages)
    lines = []
    for entry in evaluation["entries"]:
        name, patched = str(entry["name"]), entry["name"] == "patched"
        lines.append(
            figure_of(
                entry,
                f"patched: {methods(report)}" if patched else name,
                donor=name in report.donor_methods,
                text_bytes=report.calibration_bytes if name in report.text_methods else 0,
                gradient_steps=steps if patched else 0,
            )
        )
    return lines


def entry_of(evaluation: Mapping[str, Any] | None, name: str | None) -> Mapping[str, Any] | None:
    """Return the entry of an evaluation by its name, None where it has none such."""
    entries = (evaluation or {}).get("entries", ())
    return next((entry for entry in entries if entry["name"] == name), None)


def notes(figures: Sequence[Figure]) -> list[str]:
    """Say which figures leave chunks out (such a line cannot be ranked), and what is random."""
    lines = [
        f"{figure.name}: not comparable on {count(figure.lost, 'chunk')} where its tokenizer loses "
        "text; they are left out, and its gap is over what both could score"
        for figure in figures
        if figure.lost
    ]
    for figure in figures:
        if figure.seed_range:
            low, high = figure.seed_range
            lines.append(
                f"{figure.name} is random: {low:.4f} … {high:.4f} bits per byte over the seeds"
            )
    return lines


def after_steps_heading(facts: Mapping[str, Any]) -> str | None:
    """Head the second figure of a comparison; None where it was not measured."""
    training = facts.get("after_steps")
    return training and f"after {count(training['steps'], 'step')}"


def after_steps(facts: Mapping[str, Any]) -> list[str]:
    """Say how the models of a comparison were trained further, and how far both figures agree."""
    training = facts.get("after_steps")
    if not training:
        return []
    heading = after_steps_heading(facts)
    if training["weights"] == "all":
        what, unit = "all weights", ""
    else:
        what, unit = "the vocabulary rows", " root mean squares of the rows"
    passes = training["passes"]
    often = f"{passes:.2g} times" if passes < 10 else f"{passes:.0f} times"
    lines = [
        f"{heading}: bits per byte once {what} were trained on the calibration text "
        f"({size(training['text_bytes'])}, read about {often}); Adam, learning rate "
        f"{training['rate']:g}{unit} after a warm-up of {training['warm_up']} steps, "
        f"{training['tokens_per_step']:,} tokens a step, seed {training['seed']}, the same batches "
        f"in the same order for every method; the source alike on its own tokenizer",
        rank_correlation(training),
    ]
    if training["best"] is not None:
        by = heading if training["choose_by"] == "after-steps" else "right after the surgery"
        lines.append(
            f"best right after the surgery: {training['best_first']}; best {heading}: "
            f"{training['best']}; the table is in order of the figure {by}"
        )
    return lines


def rank_correlation(training: Mapping[str, Any]) -> str:
    """Say how far the two figures of a comparison rank its methods alike."""
    ranked = count(training["ranked"], "method")
    correlation = training["rank_correlation"]
    if correlation is None:
        return f"no rank correlation of the two figures is claimed of {ranked}"
    return f"Spearman rank correlation of the two figures, {ranked}: {number(correlation, 2, True)}"


def untying(report: SurgeryReport) -> str | None:
    """Say what a second matrix costs and buys; None where nothing was untied."""
    if report.untied is None:
        return None
    costs = f"the second matrix adds {size(report.untied.extra_bytes)}"
    entries = (report.evaluation or {}).get("entries", ())
    bits = {entry["name"]: entry["bits_per_byte"] for entry in entries}
    tied, patched = bits.get(report.untied.tied_entry), bits.get("patched")
    if tied is None or patched is None:
        return f"{costs}; what it buys was not measured"
    buys = f"{tied - patched:.4f} bits per byte less than" if tied > patched else "nothing over"
    return f"{costs} and buys {buys} {report.untied.tied_entry} ({tied:.4f})"


def body(report: SurgeryReport) -> str | None:
    """Say how the body was changed; None where it is the source's."""
    facts = report.body
    if not facts.changed:
        return None
    tensors, numbers = count(facts.tensors, "tensor"), count(facts.numbers, "number")
    return f"body changed: yes (rank {facts.rank}, {tensors}, {numbers})"


def methods(report: SurgeryReport) -> str:
    """Say which method made which side."""
    if report.input.method == report.output.method:
        return report.input.method
    return f"{report.input.method} (input), {report.output.method} (output)"


def rows_to_look_at(report: SurgeryReport) -> list[str]:
    """Say, a line each, which new rows to look at; empty where there is nothing to say."""
    lines = []
    for name, side in report.sides(""):
        label, audit = f"{name}: " if name else "", side.audit
        if audit.nonfinite:
            lines.append(f"{label}{count(audit.nonfinite, 'new row')} with NaN or Inf")
        if audit.clipped:
            lines.append(f"{label}{count(audit.clipped, 'new row')} shortened")
        if audit.long:
            lines.append(f"{label}longer than the longest trained row: {tokens(audit.long)}")
        if audit.over_predicted:
            worst = audit.over_predicted[0]
            often = ""
            if worst.frequency is not None:
                often = f" and is {100 * worst.frequency:.2g} % of the text"
            lines.append(
                f"{label}{count(audit.n_over_predicted, 'new row')} predicted far more often than "
                f"the text has the token, over {count(audit.states, 'state')}: "
                f"{tokens(audit.over_predicted)}; the first takes "
                f"{100 * worst.probability:.2g} % of the probability{often}"
            )
        if audit.heavy:
            lines.append(
                f"{label}{count(audit.n_heavy, 'new row')} with large weights, up to a norm of "
                f"{audit.heavy[0].norm:.3g} (median {audit.weights['p50']:.2g}): "
                f"{tokens(audit.heavy)}"
            )
    return lines


def copied(side: SideReport, total: int, verb: str = "") -> str:
    """Say how many rows were copied, and how many of them calibration then changed."""
    said = f"{side.from_source:,}{verb} ({share(side.from_source, total)})"
    if side.recalibrated:
        said += f", of them {side.recalibrated:,} then calibrated"
    return said


def settings(side: SideReport) -> str:
    """Say a side's settings, as in "k = 64, centre = true"; what is off or zero is left out."""
    return ", ".join(
        f"{key} = {_setting(value)}"
        for key, value in side.settings.items()
        if value not in (None, False, 0, "")
    )


def _setting(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def count(n: int, singular: str, plural: str | None = None) -> str:
    """Say a count with its noun, thousands parted."""
    return f"{n:,} {singular if n == 1 else plural or singular + 's'}"


def share(part: int, whole: int) -> str:
    """Say a share in whole per cent."""
    return f"{100 * part / whole:.0f} %" if whole else "0 %"


def size(n: float) -> str:
    """Say a number of bytes."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if n < 1000:
            return f"{n:.0f} {unit}" if unit in ("bytes", "kB") else f"{n:.1f} {unit}"
        n /= 1000
    return f"{n:.1f} TB"


def seconds(value: float) -> str:
    """Say a time."""
    return f"{value:.1f} s" if value < 120 else f"{value / 60:.0f} min"


def number(value: float | None, digits: int, sign: bool = False) -> str:
    """Say a figure, "–" where there is none."""
    if value is None:
        return "–"
    return f"{value:{'+' if sign else ''}z,.{digits}f}"  # z: no minus before a zero


def percent(value: float | None) -> str:
    """Say a share, "–" where there is none."""
    return "–" if value is None else f"{100 * value:z.0f} %"


def interval(value: tuple[float, float] | None) -> str:
    """Say an interval."""
    return "–" if value is None else f"{value[0]:+.4f} … {value[1]:+.4f}"


def tokens(facts: Sequence[TokenFact], limit: int = 8) -> str:
    """List the first few tokens by spelling."""
    shown = ", ".join(repr(fact.spelling) for fact in facts[:limit])
    more = len(facts) - limit
    return f"{shown} and {more:,} more" if more > 0 else shown


def short(path: str | None) -> str:
    """Return the last part of a local path, a model id as it is."""
    if path is None:
        return "trained for this"
    return Path(path).name if Path(path).is_absolute() or path.startswith(".") else path
