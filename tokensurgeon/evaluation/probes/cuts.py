"""Tokenization consistency: whether one text stays one text however its tokens are cut.

After Ayoobi, Armstrong and Mukherjee (2026, arXiv 2601.14658): a model copies a word, and replaces
one in a sentence. A *phantom edit* is an answer in which nothing is replaced and yet the tokens
differ from the tokenizer's own. Besides, the probability that a model gives to other cuts of a word
that it has just read, by kind of cut, of the probability of these and its own cut together.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np

from tokensurgeon.evaluation.generation import non_canonical
from tokensurgeon.evaluation.probes.estimates import Answers, Figure, figure
from tokensurgeon.evaluation.probes.probe_text import ProbeText
from tokensurgeon.evaluation.probes.subject import Subject
from tokensurgeon.evaluation.tasks.make_tasks import Sentence
from tokensurgeon.vocabulary import Vocabulary

PROBE = "consistency"
KINDS = ("whitespace", "inside words", "casing", "plural tails")
"""Of cuts: after the space; between two letters; after a capital; before a plural's s."""
SHOTS = 2
"""Words copied before the one that is asked for."""
SHORT = (30, 110)
"""Bytes of a sentence in which a word is replaced."""
EDIT = (
    "Text: The old table is locked. Replace table by window: The old window is locked.\n"
    "Text: A row of the index is read. Replace index by list: A row of the list is read.\n"
)
"""Two examples, from which a model knows what is asked for."""

Item = tuple[str, str]
"""A prompt, and the word that is to follow with its space."""


def consistency(subjects: Sequence[Subject], text: ProbeText, n: int) -> list[Figure | None]:
    """Let each model copy and replace `n` words, and measure its other cuts of `n` of each kind."""
    figures = [*_copies(subjects, text, n), *_edits(subjects, text, n)]
    for kind in KINDS:
        items = _items(subjects, text, n, kind)
        if items:
            answers = [Answers.of(other_cuts(one, items, kind)) for one in subjects]
            figures.append(
                figure(
                    PROBE,
                    f"probability of other cuts: {kind}",
                    answers,
                    higher_is_better=False,
                    seed=text.seed,
                )
            )
    if len(subjects) > 1:
        figures.append(_sources_cut(subjects, text, n))
    return figures


def pairs(vocabulary: Vocabulary, data: bytes, kind: str) -> list[tuple[int, int]]:
    """Return the cuts of a word with its space into two tokens, of one kind.

    Parameters
    ----------
    vocabulary : Vocabulary
    data : bytes
        A space and a word.
    kind : str
        One of `KINDS`.
    """
    text = data.decode("utf-8")
    plural = text.endswith("s")
    found = []
    for i in range(1, len(text)):
        if i == 1:
            own = "whitespace"
        elif i == 2 and text[1].isupper():
            own = "casing"
        elif i == len(text) - 1 and plural:
            own = "plural tails"
        else:
            own = "inside words"
        if own == kind:
            left, right = (vocabulary.preferred_ids(part.encode()) for part in (text[:i], text[i:]))
            if left and right:
                found.append((left[0], right[0]))
    return found


def other_cuts(subject: Subject, items: Sequence[Item], kind: str) -> list[float]:
    """Return for each word the share of other cuts of a kind in the probability of all of these."""

    def alternatives(word: str) -> list[tuple[int, ...]]:
        return list(pairs(subject.vocabulary, word.encode(), kind))

    return _shares(subject, items, alternatives, f"{PROBE}: {kind}")


def _shares(
    subject: Subject,
    items: Sequence[Item],
    alternatives: Callable[[str], list[tuple[int, ...]]],
    what: str,
) -> list[float]:
    most = subject.model.max_positions
    sequences, owner, lengths = [], [], []
    for i, (prompt, word) in enumerate(items):
        before = subject.sequence(prompt)
        whole = subject.sequence(prompt + word)
        if whole[: len(before)] != before:
            continue  # the word's tokens are not those after the prompt's
        own = tuple(whole[len(before) :])
        for cut in (own, *dict.fromkeys(one for one in alternatives(word) if one != own)):
            if most is None or len(before) + len(cut) <= most:
                sequences.append([*before, *cut])
                owner.append(i)
                lengths.append(len(cut))
    losses = subject.token_losses(sequences, what)
    logs = np.array([-own[-n:].sum() for own, n in zip(losses, lengths, strict=True)])
    shares = []
    for i in range(len(items)):
        mine = logs[np.array(owner, dtype=np.int64) == i]
        if len(mine) < 2:
            shares.append(0.0)  # no other cut of this kind
            continue
        likely = np.exp(mine - mine.max())
        shares.append(float(likely[1:].sum() / likely.sum()))
    return shares


def _prompt(words: Sequence[str], word: str) -> str:
    """Return lines that say each word twice, up to the second time of the last."""
    return "".join(f"{own}: {own}\n" for own in words) + f"{word}:"


def _has(word: str, kind: str, lower: set[str]) -> bool:
    """Return whether a word has a place for a kind of cut."""
    if kind == "casing":
        return word.istitle()
    if kind == "plural tails":
        return word.endswith("s") and word[:-1] in lower
    return word.islower()


def _items(subjects: Sequence[Subject], text: ProbeText, n: int, kind: str) -> list[Item]:
    """Draw words that have a place for this kind of cut, each after two that are copied before."""
    lower = {word for word in text.words if word.islower()}
    every = [word for word in text.words if _has(word, kind, lower)]
    shots = text.generator("shots").sample(text.words, SHOTS)
    possible = [(_prompt(shots, word), f" {word}") for word in every if word not in shots]

    def fits(item: Item) -> bool:
        whole = "".join(item)
        # Room for a cut that is longer than the tokenizer's own.
        return all(one.room([whole], 8) and one.reads(whole) for one in subjects)

    return text.drawn(possible, n, kind, fits)


def _copies(subjects: Sequence[Subject], text: ProbeText, n: int) -> list[Figure | None]:
    items = _items(subjects, text, n, "inside words")
    if not items:
        return []
    longest = max(len(word.encode()) for _, word in items) + 1
    exact, foreign = [], []
    for one in subjects:
        what = f"{PROBE}: copies"
        written = one.write([prompt for prompt, _ in items], longest, what, line=True)
        hits = [own.line == word.strip() for own, (_, word) in zip(written, items, strict=True)]
        exact.append(Answers.of([float(hit) for hit in hits]))
        pairs_of = [(non_canonical(one.vocabulary, own.ids), len(own.ids)) for own in written]
        foreign.append(Answers.of([a for a, _ in pairs_of], [b for _, b in pairs_of]))
    return [
        figure(PROBE, "words copied", exact, seed=text.seed),
        figure(
            PROBE,
            "tokens of the copies not canonical",
            foreign,
            higher_is_better=False,
            seed=text.seed,
        ),
    ]


def _edits(subjects: Sequence[Subject], text: ProbeText, n: int) -> list[Figure | None]:
    items = _edit_items(subjects, text, n)
    if not items:
        return []
    longest = max(len(new.encode()) for _, _, new in items) + 2
    exact, phantom = [], []
    for one in subjects:
        prompts = [prompt for prompt, _, _ in items]
        written = one.write(prompts, longest, f"{PROBE}: edits", line=True)
        exact.append(
            Answers.of(
                [float(own.line == new) for own, (_, _, new) in zip(written, items, strict=True)]
            )
        )
        phantom.append(
            Answers.of(
                [
                    float(own.line == old and non_canonical(one.vocabulary, own.ids) > 0)
                    for own, (_, old, _) in zip(written, items, strict=True)
                ]
            )
        )
    return [
        figure(PROBE, "words replaced in a sentence", exact, seed=text.seed),
        figure(PROBE, "phantom edits", phantom, higher_is_better=False, seed=text.seed),
    ]


def _edit_items(subjects: Sequence[Subject], text: ProbeText, n: int) -> list[tuple[str, str, str]]:
    """Draw sentences with a word to replace: the prompt, the sentence before, and after."""
    generator = text.generator("edits")
    lower = [word for word in text.words if word.islower()]
    known = frozenset(lower)
    possible = []
    for sentence in text.sentences:
        if not SHORT[0] <= len(sentence.text.encode()) <= SHORT[1]:
            continue
        item = _edit_of(sentence, known, generator.choice(lower), generator.random())
        if item is not None:
            possible.append(item)

    def fits(item: tuple[str, str, str]) -> bool:
        whole = f"{item[0]} {item[2]}"
        return all(one.room([whole], 8) and one.reads(whole) for one in subjects)

    return text.drawn(possible, n, "edits", fits)


def _edit_of(
    sentence: Sentence, lower: frozenset[str], new: str, place: float
) -> tuple[str, str, str] | None:
    words = [own for own in re.findall(r"[^\W\d_]+", sentence.text) if own in lower]
    if not words:
        return None
    old = words[int(place * len(words))]
    whole = rf"(?<!\w){re.escape(old)}(?!\w)"
    if old == new or len(re.findall(whole, sentence.text)) != 1:
        return None
    prompt = f"{EDIT}Text: {sentence.text} Replace {old} by {new}:"
    return prompt, sentence.text, re.sub(whole, new, sentence.text)


def _sources_cut(subjects: Sequence[Subject], text: ProbeText, n: int) -> Figure | None:
    """Measure how likely the patched model is to write a word as the source cuts it."""
    source, patched = subjects[0], subjects[-1]
    items = _items(subjects, text, n, "inside words")
    if not items:
        return None

    def alternatives(word: str) -> list[tuple[int, ...]]:
        pieces = source.vocabulary.pieces_of(word.encode()) or ()
        own = [
            patched.vocabulary.preferred_ids(source.vocabulary.token_bytes[piece] or b"")
            for piece in pieces
        ]
        return [tuple(ids[0] for ids in own)] if own and all(own) else []

    shares = _shares(patched, items, alternatives, f"{PROBE}: the source's cut")
    answers = [*[None] * (len(subjects) - 1), Answers.of(shares)]
    return figure(
        PROBE,
        "probability of the source's cut",
        answers,
        higher_is_better=False,
        seed=text.seed,
    )
