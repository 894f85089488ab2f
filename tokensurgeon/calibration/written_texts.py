"""Texts that a model writes itself: from its start token, or of many kinds."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tokensurgeon.calibration.openings import OPENINGS
from tokensurgeon.models import LanguageModel
from tokensurgeon.progress import Clock, Progress, no_progress
from tokensurgeon.text.encoding import prefix_of
from tokensurgeon.vocabulary import Kind, Vocabulary

AT_ONCE, FEW_AT_ONCE = 32, 8
"""Texts written side by side, in one batch; few where the time ends the writing, so that these are
long enough to be text."""
LONGEST, LONGEST_OF_KINDS = 256, 128
"""Tokens of a text that the source writes, and of one of many kinds."""
OPENING_TOKENS = 12
"""Of an opening: all in a batch begin with equally many."""


@dataclass(frozen=True)
class WritingTime:
    """The time that a model may take to write.

    Attributes
    ----------
    seconds : float
    slow : bool
        Whether this will end the writing: fewer texts are then written side by side.
    expected : float
        Seconds that the writing is expected to take, at most `seconds`.
    """

    seconds: float = math.inf
    slow: bool = False
    expected: float = 0.0

    @classmethod
    def within(cls, seconds: float, needed: float) -> WritingTime:
        """Return the time for writing that needs some seconds and may take others."""
        return cls(seconds, needed > seconds, min(seconds, needed))


def generate_texts(
    model: LanguageModel,
    vocabulary: Vocabulary,
    n_bytes: int,
    time: WritingTime | None = None,
    *,
    seed: int = 0,
    of_kinds: bool = False,
    progress: Progress = no_progress,
) -> list[str]:
    """Let a model write about `n_bytes`; seeded.

    Parameters
    ----------
    model : LanguageModel
    vocabulary : Vocabulary
        The model's own.
    n_bytes : int
    time : WritingTime, optional
    seed : int
    of_kinds : bool
        Begin with a token at random, and every second batch with openings of many kinds, so that
        short texts of all kinds come of it, in random order. Otherwise texts begin after the start
        token: such texts of SmolLM2-135M have a quarter of the runs of spaces.
    progress : callable(done, total, what)

    Returns
    -------
    list of str
        Less where the time ends it, or the model keeps writing nothing; none where there is
        nothing to begin with.
    """
    prefix = prefix_of(vocabulary)
    if not prefix and not of_kinds:
        return []
    longest = LONGEST_OF_KINDS if of_kinds else LONGEST
    stop = [i for i in (vocabulary.eos_id,) if i is not None]
    time = time or WritingTime()
    clock, n = Clock(time.seconds), FEW_AT_ONCE * LONGEST // longest if time.slow else AT_ONCE
    rng = np.random.default_rng(seed)
    batches = beginnings(vocabulary, n, rng) if of_kinds else itertools.repeat([[]] * n)
    texts: list[str] = []
    written = empty = 0
    while written < n_bytes and empty < 3 and not clock.over:
        starts = next(batches)
        continued = model.generate(
            prefix, longest, seed + len(texts), starts, stop=stop, until=lambda: clock.over
        )
        samples = [
            vocabulary.decode([i for i in (*start, *ids) if i not in stop])
            for start, ids in zip(starts, continued, strict=True)
        ]
        samples = [text for text in samples if text.strip()]
        empty = 0 if samples else empty + 1
        texts += samples
        written += sum(len(text.encode("utf-8")) for text in samples)
        progress(min(written, n_bytes), n_bytes, "the source writes text")
    return [texts[i] for i in rng.permutation(len(texts))] if of_kinds else texts


def beginnings(
    vocabulary: Vocabulary, n: int, rng: np.random.Generator
) -> Iterator[list[list[int]]]:
    """Yield the ids that texts begin with: tokens at random and openings in turn."""
    begin = np.flatnonzero(vocabulary.kinds == Kind.ORDINARY)
    openings = [
        ids[:OPENING_TOKENS]
        for text in OPENINGS
        if len(ids := vocabulary.encode(text)) >= OPENING_TOKENS
        and vocabulary.decode(ids).strip() == text.strip()
    ]
    while True:
        yield [[i] for i in rng.choice(begin, n).tolist()]
        if openings:
            yield [openings[i] for i in _spread(len(openings), n, rng)]


def _spread(n_kinds: int, n: int, rng: np.random.Generator) -> list[int]:
    """Return `n` numbers below `n_kinds` at random, all of them before any again."""
    rounds = [rng.permutation(n_kinds) for _ in range(-(-n // n_kinds))]
    return [int(i) for i in np.concatenate(rounds)[:n]]
