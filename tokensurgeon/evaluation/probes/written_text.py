"""Generation: continuations and copies of a text, written greedily, and samples of both.

What a model writes is scored by the source, the first model of the table: text that the source
finds odd costs more bits. A model that repeats itself is cheap to predict, so the share of repeated
words stands beside, and the share of words that exist.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tokensurgeon.evaluation.generation import non_canonical
from tokensurgeon.evaluation.metrics import LN2
from tokensurgeon.evaluation.probes.estimates import Answers, Figure, figure
from tokensurgeon.evaluation.probes.probe_text import LETTERS, ProbeText, tail
from tokensurgeon.evaluation.probes.subject import Subject, Written
from tokensurgeon.evaluation.probes.telling_apart import (
    CONTEXT,
    LAST_WORD,
    last_words,
    readable,
)
from tokensurgeon.evaluation.tasks.make_tasks import Sentence

PROBE = "generation"
N_BYTES = 160
"""Of a continuation: a sentence or two, in which a broken model is seen to break."""
SHOWN = 4
"""Samples that the table shows side by side."""
RUN = 3
"""Words that make a repeated run; shorter ones repeat in any text."""
COPIED = (60, 160)
"""Bytes of a sentence that is to be copied: longer than a phrase, short enough for a prompt."""
GIVEN = 3
"""Words of the copy that stand in the prompt, from which a model knows what is asked for."""


@dataclass(frozen=True)
class Sample:
    """A prompt, and what each model wrote after it.

    Attributes
    ----------
    prompt : str
    texts : tuple of str
        In the order of the table.
    """

    prompt: str
    texts: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the sample as plain values."""
        return asdict(self)


def generation(
    subjects: Sequence[Subject], text: ProbeText, n: int
) -> tuple[list[Figure | None], list[Sample]]:
    """Let each model write after `n` prompts of each kind; measure it, and show some."""
    figures, samples = _continuations(subjects, text, n)
    return [*figures, *_copies(subjects, text, n), _last_word(subjects, text, n)], samples


def prompts_of(subjects: Sequence[Subject], text: ProbeText, n: int) -> list[str]:
    """Return `n` prompts that all models can read: text up to the middle of a sentence."""

    def prompt(sentence: Sentence) -> str:
        middle = sentence.text.find(" ", len(sentence.text) // 2)
        return tail(sentence.before + sentence.text[: max(middle, 1)], CONTEXT)

    def fits(one: str) -> bool:
        # A token may be a byte; half of the length has to be there whatever is written.
        return all(own.room([one], N_BYTES // 2) and own.reads(one) for own in subjects)

    return text.drawn([prompt(sentence) for sentence in text.sentences], n, "prompts", fits)


def source_bits(source: Subject, prompts: Sequence[str], texts: Sequence[str]) -> Answers:
    """Return what the source pays for texts after prompts, in bits over bytes.

    A text that the source cannot read or has no room for weighs nothing.
    """
    whole = [prompt + own for prompt, own in zip(prompts, texts, strict=True)]
    weighs = [
        bool(own) and source.room([both]) and source.reads(both)
        for own, both in zip(texts, whole, strict=True)
    ]
    chosen = np.flatnonzero(weighs).tolist()
    bits, sizes = np.zeros(len(whole)), np.zeros(len(whole))
    starts = [len(prompts[i].encode()) for i in chosen]
    losses = source.losses([whole[i] for i in chosen], starts, f"{PROBE}: what was written,")
    bits[chosen] = losses / LN2
    sizes[chosen] = [len(texts[i].encode()) for i in chosen]
    return Answers(bits, sizes)


def repeated(text: str) -> tuple[int, int]:
    """Return how many words end a run of three that stood before in the text, and of how many.

    >>> repeated("the end of the end of the line")
    (2, 8)
    """
    words = text.split()
    seen: set[tuple[str, ...]] = set()
    hits = 0
    for i in range(len(words) - RUN + 1):
        run = tuple(words[i : i + RUN])
        hits += run in seen
        seen.add(run)
    return hits, len(words)


def existing(text: str, known: frozenset[str]) -> tuple[int, int]:
    """Return how many words of three letters or more are known, and of how many.

    The last word counts only where something follows it: the end may have cut it.
    """
    matches = [own.group() for own in LETTERS.finditer(text) if own.end() < len(text)]
    return sum(own.casefold() in known for own in matches), len(matches)


def _continuations(
    subjects: Sequence[Subject], text: ProbeText, n: int
) -> tuple[list[Figure | None], list[Sample]]:
    prompts = prompts_of(subjects, text, n)
    if not prompts:
        return [], []
    written = [one.write(prompts, N_BYTES, PROBE) for one in subjects]
    samples = [
        Sample(prompts[i], tuple(own[i].text for own in written))
        for i in range(min(SHOWN, len(prompts)))
    ]

    def line(name: str, answers: Sequence[Answers | None], **more: Any) -> Figure | None:
        return figure(PROBE, name, answers, seed=text.seed, **more)

    by_source: list[Answers | None] = [None] * len(subjects)
    if len(subjects) > 1:
        by_source = [
            source_bits(subjects[0], prompts, [one.text for one in own]) for own in written
        ]
    # Words of the prompts exist too: a text's own names are not in a list made of other text.
    known = text.known | {word.casefold() for one in prompts for word in LETTERS.findall(one)}
    figures = [
        line(
            "what it writes, under the source",
            by_source,
            unit="bits per byte",
            higher_is_better=False,
        ),
        line(
            "words that repeat a run of 3",
            [_counted([repeated(one.text) for one in own]) for own in written],
            higher_is_better=False,
        ),
        line(
            "words that exist",
            [_counted([existing(one.text, known) for one in own]) for own in written],
        ),
        line(
            "bytes per token, written",
            [_counted([(len(one.data), len(one.ids)) for one in own]) for own in written],
            unit="bytes per token",
            higher_is_better=None,
        ),
        line(
            "tokens not canonical",
            [_foreign(one, own) for one, own in zip(subjects, written, strict=True)],
            higher_is_better=False,
        ),
    ]
    return figures, samples


def _counted(pairs: Sequence[tuple[int, int]]) -> Answers:
    return Answers.of([hits for hits, _ in pairs], [of for _, of in pairs])


def _foreign(subject: Subject, written: Sequence[Written]) -> Answers:
    pairs = [(non_canonical(subject.vocabulary, one.ids), len(one.ids)) for one in written]
    return _counted(pairs)


def _copies(subjects: Sequence[Subject], text: ProbeText, n: int) -> list[Figure | None]:
    """Ask for the rest of a sentence that stands in the prompt."""

    def item(sentence: str) -> tuple[str, str]:
        start = " ".join(sentence.split(" ")[:GIVEN])
        return f"{sentence}\n{sentence}\n{start}", sentence[len(start) :]

    def fits(one: tuple[str, str]) -> bool:
        whole = "".join(one)
        return all(own.room([whole], GIVEN) and own.reads(whole) for own in subjects)

    possible = [
        item(one.text) for one in text.sentences if COPIED[0] <= len(one.text.encode()) <= COPIED[1]
    ]
    items = text.drawn(possible, n, "copies", fits)
    if not items:
        return []
    prompts = [prompt for prompt, _ in items]
    longest = max(len(rest.encode()) for _, rest in items)
    right, exact = [], []
    for one in subjects:
        written = one.write(prompts, longest, f"{PROBE}: copies", line=True)
        common = [
            _common(own.data, rest.encode()) for own, (_, rest) in zip(written, items, strict=True)
        ]
        sizes = [len(rest.encode()) for _, rest in items]
        right.append(Answers.of(common, sizes))
        exact.append(Answers.of([float(a == b) for a, b in zip(common, sizes, strict=True)]))
    return [
        figure(PROBE, "part of a sentence copied before the first error", right, seed=text.seed),
        figure(PROBE, "sentences copied whole", exact, seed=text.seed),
    ]


def _common(written: bytes, wanted: bytes) -> int:
    """Return how many first bytes two texts share."""
    both = zip(written, wanted, strict=False)
    return next((i for i, (a, b) in enumerate(both) if a != b), min(len(written), len(wanted)))


def _last_word(subjects: Sequence[Subject], text: ProbeText, n: int) -> Figure | None:
    """Ask for the last word of the sentences that `discrimination` asks to choose it for."""
    items = readable(subjects, text, n, LAST_WORD, last_words(text))
    if not items:
        return None
    prompts = [before for before, _, _ in items]
    wanted = [choices[answer] for _, choices, answer in items]
    longest = max(len(word.encode()) for word in wanted) + 1
    answers = []
    for one in subjects:
        written = one.write(prompts, longest, f"{PROBE}: last words", line=True)
        hits = [
            float(_first(own) == word.strip()) for own, word in zip(written, wanted, strict=True)
        ]
        answers.append(Answers.of(hits))
    return figure(PROBE, "last word written", answers, seed=text.seed)


def _first(written: Written) -> str:
    """Return the letters that a text begins with, after white space."""
    match = LETTERS.match(written.line)
    return match.group() if match else ""
