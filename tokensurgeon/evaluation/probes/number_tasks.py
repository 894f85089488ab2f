"""Numbers: copied, compared and added, as the tokenizer cuts digits and as others would.

How digits are cut decides what a model can calculate: three at a time from the right serve sums
better than from the left (Singh and Strouse, 2024, arXiv 2402.14903), and what a token hides a
model cannot count (Zhang et al., 2025, arXiv 2505.14178). So each model also reads copies and sums
with digits cut in other ways, where its vocabulary has the tokens and its own cut differs.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from itertools import groupby, pairwise

from tokensurgeon.evaluation.probes.estimates import Answers, Figure, figure
from tokensurgeon.evaluation.probes.probe_text import ProbeText
from tokensurgeon.evaluation.probes.subject import Subject
from tokensurgeon.evaluation.probes.telling_apart import Choice, likelier
from tokensurgeon.text.encoding import prefix_of
from tokensurgeon.vocabulary import Vocabulary

PROBE = "numbers"
SCHEMES = {"single": (1, False), "left-3": (3, False), "right-3": (3, True)}
"""Cuts of digit runs: the size of a group, and whether groups are counted from the right."""
LENGTHS = {"1–3 digits": (1, 3), "4–6 digits": (4, 6)}
"""Of numbers that are copied and compared: one group of three, and two."""
SUM_LENGTHS = {"1–2 digits": (1, 2), "3–4 digits": (3, 4)}
"""Of numbers that are added: what small models know, and what large ones do."""
SHOTS = 3
"""Examples before each item, drawn anew for each."""
_DIGITS = re.compile(rb"[0-9]+")
_PARTS = re.compile(rb"[0-9]+|[^0-9]+")

Task = tuple[str, str]
"""A prompt, and the number that is to follow."""


def numbers(subjects: Sequence[Subject], text: ProbeText, n: int) -> list[Figure | None]:
    """Ask `n` items of each kind and length; those of the seed alone, whatever the text."""
    figures = []
    for length, digits in LENGTHS.items():
        figures += _written(subjects, text, n, f"copied, {length}", copy_item, digits)
    for length, digits in LENGTHS.items():
        figures.append(_compared(subjects, text, n, f"compared, {length}", digits))
    for length, digits in SUM_LENGTHS.items():
        figures += _written(subjects, text, n, f"added, {length}", sum_item, digits)
    return figures


def drawn_number(generator: random.Random, digits: tuple[int, int]) -> int:
    """Draw a number, its length first; no zero in front, and never 0."""
    length = generator.randint(*digits)
    return generator.randrange(10 ** (length - 1), 10**length)


def copy_item(generator: random.Random, digits: tuple[int, int]) -> Task:
    """Return lines that say a number twice, and the last one's second time."""
    own = [str(drawn_number(generator, digits)) for _ in range(SHOTS + 1)]
    return "".join(f"{x} is {x}\n" for x in own[:-1]) + f"{own[-1]} is", own[-1]


def sum_item(generator: random.Random, digits: tuple[int, int]) -> Task:
    """Return sums with their results, and the result of the last."""
    own = [
        (drawn_number(generator, digits), drawn_number(generator, digits)) for _ in range(SHOTS + 1)
    ]
    *shots, (a, b) = own
    lines = "".join(f"{x} + {y} = {x + y}\n" for x, y in shots)
    return f"{lines}{a} + {b} =", str(a + b)


def compare_item(generator: random.Random, digits: tuple[int, int]) -> Choice:
    """Return a question which of two numbers of one length is larger; both are possible answers."""

    def two() -> tuple[int, int]:
        a = drawn_number(generator, digits)
        size = len(str(a))
        b = a
        while b == a:
            b = drawn_number(generator, (size, size))
        return a, b

    def asked(a: int, b: int) -> str:
        return f"The larger of {a} and {b} is"

    lines = "".join(f"{asked(a, b)} {max(a, b)}.\n" for a, b in (two() for _ in range(2)))
    a, b = two()
    return lines + asked(a, b), (f" {a}.", f" {b}."), int(b > a)


def regrouped(vocabulary: Vocabulary, text: str, scheme: str) -> list[int] | None:
    """Return the tokens of a text with its runs of digits cut by a scheme.

    Only tokens that hold a digit are changed; what stands in them besides digits is spelled by
    itself.

    Returns
    -------
    list of int, or None
        None where no tokens spell the text so.
    """
    size, from_right = SCHEMES[scheme]
    encoding = vocabulary.encode_with_bytes(text)
    if not encoding.lossless:
        return None
    data, ends = text.encode(), encoding.ends.tolist()
    spans = list(zip([0, *ends[:-1]], ends, strict=True))
    ids: list[int] = []
    # All tokens of a run hold digits and lie side by side, so a run is never parted here.
    for digits, tokens in groupby(
        range(len(spans)), lambda i: _DIGITS.search(data[slice(*spans[i])]) is not None
    ):
        members = list(tokens)
        if not digits:
            ids.extend(encoding.ids[i] for i in members)
            continue
        for part in _PARTS.findall(data[spans[members[0]][0] : spans[members[-1]][1]]):
            cut = groups_of(part, size, from_right) if part.isdigit() else [part]
            for pieces in map(vocabulary.pieces_of, cut):
                if pieces is None:
                    return None
                ids.extend(pieces)
    return ids


def groups_of(digits: bytes, size: int, from_right: bool) -> list[bytes]:
    """Return a run of digits in groups.

    >>> groups_of(b"12345", 3, from_right=True), groups_of(b"12345", 3, from_right=False)
    ([b'12', b'345'], [b'123', b'45'])
    """
    first = len(digits) % size if from_right else 0
    cuts = [0] * (first > 0) + list(range(first, len(digits), size)) + [len(digits)]
    return [digits[a:b] for a, b in pairwise(cuts)]


def _written(
    subjects: Sequence[Subject],
    text: ProbeText,
    n: int,
    name: str,
    make: Callable[[random.Random, tuple[int, int]], Task],
    digits: tuple[int, int],
) -> list[Figure | None]:
    """Let each model write the answers, with its own cut of digits and with others."""
    generator = text.generator(name)
    items = [make(generator, digits) for _ in range(n)]
    items = [one for one in items if all(s.room([f"{one[0]} {one[1]}"], 2) for s in subjects)]
    if not items:
        return []

    def asked(subject: Subject, prompts: Sequence[Sequence[int]], what: str) -> Answers:
        longest = max(len(answer) for _, answer in items) + 2
        written = subject.write(prompts, longest, f"{PROBE}: {what}", line=True)
        hits = []
        for own, (_, answer) in zip(written, items, strict=True):
            match = _DIGITS.match(own.line.encode())
            hits.append(float(match is not None and match.group() == answer.encode()))
        return Answers.of(hits)

    own_ids = [[one.sequence(prompt) for prompt, _ in items] for one in subjects]
    answers = [asked(one, ids, name) for one, ids in zip(subjects, own_ids, strict=True)]
    figures = [figure(PROBE, name, answers, seed=text.seed)]
    for scheme in SCHEMES:
        by_scheme: list[Answers | None] = []
        for one, own in zip(subjects, own_ids, strict=True):
            ids = _cut_so(one, [prompt for prompt, _ in items], scheme)
            differs = ids is not None and ids != own
            by_scheme.append(asked(one, ids, f"{name}, {scheme}") if ids and differs else None)
        if any(one is not None for one in by_scheme):
            figures.append(figure(PROBE, f"{name}, read as {scheme}", by_scheme, seed=text.seed))
    return figures


def _cut_so(subject: Subject, prompts: Sequence[str], scheme: str) -> list[list[int]] | None:
    """Return prompts with digits cut by a scheme; None where one does not fit the model."""
    most = subject.model.max_positions
    found = []
    for prompt in prompts:
        ids = regrouped(subject.vocabulary, prompt, scheme)
        if ids is None:
            return None
        found.append([*prefix_of(subject.vocabulary), *ids])
        if most is not None and len(found[-1]) >= most:
            return None
    return found


def _compared(
    subjects: Sequence[Subject], text: ProbeText, n: int, name: str, digits: tuple[int, int]
) -> Figure | None:
    generator = text.generator(name)
    items = [compare_item(generator, digits) for _ in range(n)]
    items = [
        one for one in items if all(s.room([one[0] + own for own in one[1]]) for s in subjects)
    ]
    if not items:
        return None
    answers = [Answers.of(likelier(one, items, f"{PROBE}: {name}")) for one in subjects]
    return figure(PROBE, name, answers, seed=text.seed)
