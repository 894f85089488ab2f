"""Where the gap to the source is, in words: kinds of token, shared and missing apart.

What is read here is the ``excess`` of an entry of an evaluation: both models' losses on the bytes
of the patched model's tokens. The parts add up to the gap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokensurgeon.report import words
from tokensurgeon.report.surgery_report import SurgeryReport

SMALL = 0.01
"""Parts under this share of the gap, on either side of zero, are taken together."""

# A kind that is in neither is a script, such as Cyrillic: "Cyrillic words".
_PLURALS = {
    "mixed": "mixed tokens",
    "control": "controls",
    "UTF-8 piece": "UTF-8 pieces",
    "multi-word": "tokens of several words",
}
_AS_THEY_ARE = {"newlines", "spaces", "digits", "words", "single letters", "punctuation"}


@dataclass(frozen=True)
class Part:
    """One part of the gap; bits per byte are over the whole text, so that parts add up.

    `source` and `patched` are losses on the same bytes, `share` the part's share of the gap (None
    where there is no gap), `examples` the tokens that cost most.
    """

    name: str
    source: float
    patched: float
    share: float | None
    tokens: int
    examples: tuple[str, ...] = ()

    @property
    def excess(self) -> float:
        """Bits per byte above the source."""
        return self.patched - self.source


def parts(entry: Mapping[str, Any] | None) -> list[Part]:
    """Return the parts of an entry's gap, the largest first; empty where they are not known."""
    excess: Sequence[Mapping[str, Any]] = (entry or {}).get("excess") or ()
    gap = sum(part["excess"] for part in excess)
    return [
        Part(
            f"{part['match']} {_plural(part['kind'])}",
            part["source_bits_per_byte"],
            part["bits_per_byte"],
            part["excess"] / gap if gap > 0 else None,
            part["tokens"],
            tuple(example["text"] for example in part["examples"]),
        )
        for part in excess
    ]


def patched_parts(report: SurgeryReport) -> list[Part]:
    """Return the parts of the patched model's gap."""
    return parts(words.entry_of(report.evaluation, "patched"))


def of_best(comparison: Mapping[str, Any]) -> tuple[str | None, list[Part]]:
    """Return the first method of a comparison that has a gap, and the parts of that."""
    figures = map(words.figure_of, comparison["rows"])
    best = next((f.name for f in figures if f.gap is not None and f.error is None), None)
    return best, parts(words.entry_of(comparison["evaluation"], best))


def table(parts: Sequence[Part]) -> list[Part]:
    """Return the lines of a table: shared and missing whole, then the parts worth a line."""
    if not parts:
        return []
    whole = [
        joined
        for word in ("missing", "shared")
        if (joined := _joined(f"all {word} tokens", [p for p in parts if p.name.startswith(word)]))
    ]
    large = [part for part in parts if abs(part.share or 0.0) >= SMALL or part.share is None]
    rest = _joined("the rest", [part for part in parts if part not in large])
    return [*whole, *large, *([rest] if rest else [])]


def largest(parts: Sequence[Part]) -> str | None:
    """Name the part of the largest excess in a sentence; None where there is no gap."""
    if not parts or parts[0].share is None or parts[0].excess <= 0:
        return None
    first = parts[0]
    gap = sum(part.excess for part in parts)
    such = ", ".join(repr(text) for text in first.examples[:4])
    return (
        f"The largest failure is {first.name}: {first.excess:.4f} of the {gap:.4f} bits per byte "
        f"above the source ({100 * first.excess / gap:.0f} %)"
        + (f", such as {such}" if such else "")
    )


def in_short(parts: Sequence[Part], n: int = 4) -> str | None:
    """List the largest parts on one line; None where there is no gap."""
    if largest(parts) is None:
        return None
    shown = [part for part in parts[:n] if part.excess > 0]
    rest = sum(part.excess for part in parts) - sum(part.excess for part in shown)
    listed = [f"{part.name} {part.excess:+.4f}" for part in shown]
    if len(parts) > len(shown):
        listed.append(f"the rest {rest:+.4f}")
    return f"Where the gap is: {', '.join(listed)}"


def on_numbers(report: SurgeryReport) -> str | None:
    """Say what source and patched model pay for digits; None where the text has none."""
    entries = (report.evaluation or {}).get("entries", ())
    found = {entry["name"]: entry.get("numbers") for entry in entries}
    patched = found.get("patched")
    source = next(iter(found.values()), None)
    if not source or not patched:
        return None
    bits = (source["bits_per_digit"], patched["bits_per_digit"])
    return (
        f"Numbers: {bits[0]:.4f} bits per digit in the source, {bits[1]:.4f} patched "
        f"({bits[1] - bits[0]:+.4f}; {words.count(patched['digits'], 'digit')})"
    )


def _joined(name: str, several: Sequence[Part]) -> Part | None:
    if not several:
        return None
    shares = [part.share for part in several if part.share is not None]
    return Part(
        name,
        sum(part.source for part in several),
        sum(part.patched for part in several),
        sum(shares) if shares else None,
        sum(part.tokens for part in several),
    )


def _plural(kind: str) -> str:
    return _PLURALS.get(kind, kind if kind in _AS_THEY_ARE else f"{kind} words")
