"""Discrimination: a true continuation told from false ones by likelihood, and plain bits per byte.

Nothing is written here. A model may tell texts apart nearly as well as before a surgery and write
far worse: Haltiuk and Smywiński-Pohl (2025, arXiv 2510.21954) measure both for that reason.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tokensurgeon.errors import CorpusError
from tokensurgeon.evaluation.metrics import LN2
from tokensurgeon.evaluation.probes.estimates import Answers, Figure, figure
from tokensurgeon.evaluation.probes.probe_text import SPARE, ProbeText, tail
from tokensurgeon.evaluation.probes.subject import Subject
from tokensurgeon.evaluation.tasks.make_tasks import CHOICES, choice_items, cloze_items
from tokensurgeon.text.chunks import chunk_documents

PROBE = "discrimination"
CONTEXT = 160
"""Characters before a choice: a sentence or two, so that a minute is enough for a small model."""
CHUNK = 256
"""Bytes of a chunk whose bits per byte are measured: it fits into every model's window."""
LAST_WORD = "last word, of 4"
"""The choice whose items `generation` asks for in writing."""
Choice = tuple[str, tuple[str, ...], int]
"""What stands before, the possible continuations, and which of them is true."""


def discrimination(subjects: Sequence[Subject], text: ProbeText, n: int) -> list[Figure | None]:
    """Measure bits per byte, and two choices of four on `n` items each."""
    return [
        _bits_per_byte(subjects, text, n),
        _accuracy(subjects, text, n, "second half of a sentence, of 4", halves(text, n)),
        _accuracy(subjects, text, n, LAST_WORD, last_words(text)),
    ]


def halves(text: ProbeText, n: int) -> list[Choice]:
    """Return candidates for `n` items: second halves hidden among those of other documents."""
    items = choice_items(text.sentences, SPARE * n, text.generator("halves"))
    return [
        (tail(item["context"], CONTEXT), tuple(item["choices"]), item["answer"]) for item in items
    ]


def last_words(text: ProbeText) -> list[Choice]:
    """Return every sentence that ends in a word, which is hidden among other sentences' last words.

    Raises
    ------
    CorpusError
        If the sentences end in too few words.
    """
    generator = text.generator("last words")
    items = cloze_items(text.sentences, len(text.sentences), generator)
    every = sorted({item["target"] for item in items})
    if len(every) < CHOICES:
        raise CorpusError(
            f"the sentences of the text end in {len(every)} different words, and {CHOICES} are "
            "needed; give more text"
        )
    choices = []
    for item in items:
        others = generator.sample([word for word in every if word != item["target"]], CHOICES - 1)
        answer = generator.randrange(CHOICES)
        others.insert(answer, item["target"])
        choices.append((tail(item["context"], CONTEXT), tuple(others), answer))
    return choices


def likelier(subject: Subject, items: Sequence[Choice], what: str) -> list[float]:
    """Return 1 for each item whose true continuation costs the fewest bits per byte, else 0."""
    texts = [before + own for before, choices, _ in items for own in choices]
    starts = [len(before.encode()) for before, choices, _ in items for _ in choices]
    sizes = [len(own.encode()) for _, choices, _ in items for own in choices]
    costs = subject.losses(texts, starts, what) / np.array(sizes, dtype=np.float64)
    hits, start = [], 0
    for _, choices, answer in items:
        own = costs[start : start + len(choices)]
        # Of equals the first is taken, whichever is true.
        hits.append(float(int(own.argmin()) == answer))
        start += len(choices)
    return hits


def readable(
    subjects: Sequence[Subject], text: ProbeText, n: int, name: str, possible: list[Choice]
) -> list[Choice]:
    """Draw `n` items that all models can read; the same for the same name."""

    def fits(item: Choice) -> bool:
        whole = [item[0] + own for own in item[1]]
        return all(one.room(whole) and all(map(one.reads, whole)) for one in subjects)

    return text.drawn(possible, n, name, fits)


def _accuracy(
    subjects: Sequence[Subject], text: ProbeText, n: int, name: str, possible: list[Choice]
) -> Figure | None:
    items = readable(subjects, text, n, name, possible)
    if not items:
        return None
    answers = [Answers.of(likelier(one, items, PROBE)) for one in subjects]
    return figure(PROBE, name, answers, seed=text.seed)


def _bits_per_byte(subjects: Sequence[Subject], text: ProbeText, n: int) -> Figure | None:
    chunks = [
        own
        for chunk in chunk_documents(text.texts, max_bytes_per_chunk=CHUNK)
        if " " in (own := chunk.text.strip())
    ]

    def fits(chunk: str) -> bool:
        return all(one.room([chunk]) and one.reads(chunk) for one in subjects)

    drawn = text.drawn(chunks, n, "chunks", fits)
    if not drawn:
        return None
    # After the first word: a model without BOS and EOS cannot say what that costs.
    starts = [len(chunk[: chunk.find(" ")].encode()) for chunk in drawn]
    sizes = [len(c.encode()) - start for c, start in zip(drawn, starts, strict=True)]
    answers = [
        Answers.of((one.losses(drawn, starts, PROBE) / LN2).tolist(), sizes) for one in subjects
    ]
    return figure(
        PROBE,
        "text",
        answers,
        unit="bits per byte",
        higher_is_better=False,
        seed=text.seed,
    )
