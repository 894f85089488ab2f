"""A few short texts of several kinds, to show how tokenizers cut them.

They are ours, so that a report that shows them holds no line of anybody's own text.
"""

from __future__ import annotations

from tokensurgeon.inspection.spans import Excerpt, spans_of
from tokensurgeon.vocabulary import Vocabulary

SAMPLES = (
    ("English", "The lighthouse keeper wrote down every ship that passed, and nobody read it."),
    ("numbers", "On 29 February 2024 the index fell by 1,234.56 points to 18907."),
    ("code", "def total(rows):\n    return sum(row['price'] * 1.19 for row in rows)\n"),
    ("German", "Die Straßenbahnhaltestelle wurde wegen Bauarbeiten verlegt."),
    ("Russian", "Смотритель маяка записывал каждый корабль."),
    ("Japanese", "灯台守は通る船をすべて書き留めた。"),
)
"""Kind and text."""


def sample_cuts(source: Vocabulary, target: Vocabulary) -> list[Excerpt]:
    """Return the samples as both tokenizers cut them, the source's cut first."""
    return [
        Excerpt(name, text, (spans_of(source, text), spans_of(target, text)))
        for name, text in SAMPLES
    ]
