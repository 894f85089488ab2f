"""A trim in words and tables, for the terminal and the card."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from tokensurgeon.report import words
from tokensurgeon.report.surgery_report import SurgeryReport
from tokensurgeon.report.tables import figures_table, say
from tokensurgeon.report.trim_facts import BeforeAfter, OtherText, ProofFacts, TrimFacts
from tokensurgeon.trainers.vocabulary_card import WHY

if TYPE_CHECKING:
    from rich.console import Console

SIZE_HEADINGS = ("before", "after", "left")
"""Over `size_rows`, after the name."""
OTHER_HEADINGS = (
    "documents changed", "lines changed", "tokens dropped", "bytes/token", "bits/byte",
    "95 % interval of the change",
)  # fmt: skip
"""Over `other_rows`, after the name."""


def size_rows(trim: TrimFacts) -> list[tuple[str, str, str, str]]:
    """Return what the trim saves, a line for each measure: name, before, after, share left."""
    rows = [
        _sizes("vocabulary rows", trim.rows, "{:,.0f}".format),
        _sizes("vocabulary weights", trim.weights, "{:,.0f}".format),
        _sizes("weights on disk", trim.weight_bytes, words.size),
        _sizes("tokenizer.json, compact", trim.tokenizer_bytes, words.size),
    ]
    if trim.text is not None and trim.text.tokens_before:
        each = BeforeAfter(
            before=trim.text.n_bytes / trim.text.tokens_before,
            after=trim.text.n_bytes / trim.text.tokens_after,
        )
        rows.append(_sizes("bytes per token, kept text", each, "{:.3f}".format))
    if trim.proof is not None:
        pace = BeforeAfter(
            before=1e3 * trim.proof.seconds_before, after=1e3 * trim.proof.seconds_after
        )
        rows.append(_sizes("ms per token, forward pass", pace, "{:.3g}".format))
    return rows


def _sizes(name: str, both: BeforeAfter, form: object) -> tuple[str, str, str, str]:
    assert callable(form)
    return name, form(both.before), form(both.after), f"{100 * both.share:.0f} %"


def kept(trim: TrimFacts) -> str:
    """Say how many tokens are kept, and why."""
    parts = [f"{n:,} {WHY[key]}" for key, n in trim.why.items() if n]
    total = sum(trim.why.values())
    return f"{total:,} of {trim.rows.before:,.0f} rows: {', '.join(parts)}"


def on_text(trim: TrimFacts) -> str | None:
    """Say whether the kept text is encoded as before; None where there was none."""
    text = trim.text
    if text is None:
        return None
    whole = f"{words.count(text.documents, 'document')} ({words.size(text.n_bytes)})"
    if not text.documents_changed:
        return (
            f"kept text: all tokens of {whole} are as before, those around each document included"
        )
    return (
        f"kept text: of {whole} {text.documents_changed:,} are encoded otherwise "
        f"({_percent(text.documents_changed, text.documents)}), for "
        f"{_percent(text.tokens_dropped, text.tokens_before)} of the tokens are not kept; where "
        "all are, none changed"
    )


def left_out(trim: TrimFacts) -> str | None:
    """Say what text like the kept one would lose; None where nothing tells."""
    text = trim.text
    if text is None or text.documents_left_out is None or text.tokens_left_out is None:
        return None
    return (
        f"text like it: left out in turn, {text.documents_left_out:,} of "
        f"{words.count(text.documents, 'document')} would be encoded otherwise; no other document "
        f"has {_percent(text.tokens_left_out, text.tokens_before)} of the tokens"
    )


def on_logits(trim: TrimFacts) -> str:
    """Say what both models compute on kept tokens."""
    proof = trim.proof
    if proof is None:
        return f"not compared: {trim.not_proven or 'nothing was run'}"
    at = "logits at the kept ids" if proof.compared == "logits" else "final states"
    of = "of the kept text" if trim.text is not None else "of kept tokens drawn at random"
    run = f"{words.count(proof.n_sequences, 'sequence')} {of} ({proof.n_tokens:,} tokens)"
    if proof.max_difference == 0:
        return f"{at}: equal to the bit on {run}"
    return (
        f"{at}: {proof.max_difference:.2g} apart at the most on {run}, where the largest is "
        f"{proof.largest:.3g}"
    )


def on_softmax(proof: ProofFacts | None) -> list[str]:
    """Say what the smaller softmax does to the loss."""
    if proof is None or proof.removed_mass is None:
        return []
    mass = f"the rows that went had {100 * proof.removed_mass:.2g} % of the probability"
    if proof.max_loss_difference is None or proof.max_rise is None:
        return [f"softmax: {mass}"]
    bound = f" by more than {proof.max_rise:.1g} nats" if proof.max_rise > 0 else ""
    law = (
        f"softmax: the loss over the kept rows of the source and the loss after differ by "
        f"{proof.max_loss_difference:.1g} nats at the most; the loss of no token rose{bound}"
    )
    if proof.bits_before is None:
        return [f"softmax: {mass}", law]
    return [
        f"softmax: {proof.bits_before:.4f} bits per byte before, {proof.bits_kept:.4f} over the "
        f"kept rows of the source, {proof.bits_after:.4f} after; {mass}",
        law,
    ]


def other_rows(trim: TrimFacts) -> list[tuple[str, ...]]:
    """Return what changes on other texts, a line for each."""
    return [_other(text) for text in trim.others]


def _other(text: OtherText) -> tuple[str, ...]:
    before, after = (
        words.number(text.n_bytes / n if n else None, 3)
        for n in (text.tokens_before, text.tokens_after)
    )
    bits, interval = "–", "–"
    if text.bits is not None and text.rise is not None:
        rise = f"{text.rise[0]:+z.4f}"
        bits = f"{text.bits.before:.4f} → {text.bits.after:.4f} ({rise})"
        interval = words.interval((text.rise[1], text.rise[2]))
    return (
        text.name,
        f"{text.documents_changed:,} of {text.documents:,}",
        f"{text.lines_changed:,} of {text.lines:,} ({_percent(text.lines_changed, text.lines)})",
        _percent(text.tokens_dropped, text.tokens_before),
        f"{before} → {after}",
        bits,
        interval,
    )


def not_scored(trim: TrimFacts) -> list[str]:
    """Say why a text has no bits per byte, and on how much of each they were measured."""
    lines = [f"{text.name}: no bits per byte: {text.not_scored}"
             for text in trim.others if text.not_scored]  # fmt: skip
    scored = [text for text in trim.others if text.bits is not None]
    if scored:
        sizes = ", ".join(f"{words.size(text.scored_bytes)} of {text.name}" for text in scored)
        lines.append(f"bits per byte are measured on {sizes}")
    return lines


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.2g} %" if whole else "0 %"


def command(report: SurgeryReport) -> str:
    """Return the command that makes the checkpoint again."""
    assert report.trim is not None
    settings, recipe = report.trim.settings, report.recipe
    parts = ["tokensurgeon", "trim", str(recipe["source"])]
    given = {name.partition("=")[2] for name in settings["languages"] if "=" in name}
    for key, option in (("text", "--text"), ("languages", "--languages"),
                        ("other_text", "--other-text")):  # fmt: skip
        for value in settings[key]:
            if key != "text" or value not in given:
                parts += [option, value]
    if settings["scripts"]:
        parts += ["--keep-script", ",".join(settings["scripts"])]
    numbers = {"size": None, "least_uses": 1, "pad_to_multiple_of": 1}
    for key, default in numbers.items():
        if settings[key] != default:
            parts += [f"--{key.replace('_', '-')}", str(settings[key])]
    for key, usual in (("device", "cpu"), ("dtype", "float32"), ("seed", "0")):
        if str(recipe[key]) != usual:
            parts += [f"--{key}", str(recipe[key])]
    return " ".join([*map(shlex.quote, parts), "-o", "PATH"])


def print_trim(console: Console, report: SurgeryReport) -> None:
    """Print what was kept, what that saves, and the proof."""
    from tokensurgeon.report.terminal import facts

    trim = report.trim
    assert trim is not None
    known = dict(facts(report))
    lines = [("source", known["source"]), ("kept", kept(trim))]
    written = known.get("written", "nothing: a dry run")
    for label, text in [*lines, ("written", written)]:
        console.print(f"[bold]{label:8}[/bold]", markup=True, end="")
        console.print(text, markup=label != "kept", soft_wrap=True)
    console.print()
    table = figures_table("", *SIZE_HEADINGS)
    for row in size_rows(trim):
        table.add_row(*row)
    console.print(table)
    console.print()
    say(console, on_text(trim), left_out(trim), None if report.dry_run else on_logits(trim))
    say(console, *on_softmax(trim.proof))
    if trim.others:
        console.print()
        _print_others(console, trim)
    say(console, *(f"warning: {warning}" for warning in report.warnings))


def _print_others(console: Console, trim: TrimFacts) -> None:
    """Print what changes on other texts, each figure on a line of its own."""
    from rich.markup import escape

    rows = other_rows(trim)
    table = figures_table("other text", *(escape(row[0]) for row in rows))
    for i, heading in enumerate(OTHER_HEADINGS, 1):
        cells = [row[i] for row in rows]
        if any(cell != "–" for cell in cells):
            table.add_row(heading, *cells)
    console.print(table)
    say(console, *not_scored(trim))
