"""The texts of a calibration: what stages are fitted to, what chooses among them, another domain.

Without text the source writes some itself, from its start token: it then calibrates on what it
believes its language to be, and the report says so. Text of another domain that is not given it
writes too.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from tokensurgeon.calibration.written_texts import WritingTime, generate_texts
from tokensurgeon.errors import CalibrationError
from tokensurgeon.models import LanguageModel
from tokensurgeon.progress import Progress, no_progress
from tokensurgeon.text.chunks import CHUNK_SIZES, Chunk, chunk_documents, separable
from tokensurgeon.text.encoding import encode_chunks
from tokensurgeon.vocabulary import Vocabulary

SELECTION_SHARE = 0.16
"""Of the text: enough to choose by, and most is left to fit to."""
MOST_SELECTION = 40_000
"""Bytes: on so many a gain of a thousandth of a bit per byte is told from nothing."""
MOST_OTHER = 20_000
"""Bytes: a bound is asked of this text, no choice."""
MOST_TAUGHT = 10_000
"""Bytes of other text that trainings read: about what the source writes for them besides."""
DRAWN_FROM = 8
"""Chunks are drawn from documents of so many times the bytes that are looked at: a few documents
whole would be few kinds of text, and stages would be fitted to, and judged by, those."""
SPARE = 2
"""Chunks are drawn of so many times the bytes, for some are not spelled or do not fit."""
MOST_HELD = 0.05
"""Share of a large text that this may take from healing, for the chunks to choose by."""
GENERATED = 60_000
"""Bytes that the source writes where nobody gives text: a minute for a small model."""
FEWEST_CHUNKS = 16
"""Of a text that was cut to the time: differences between rows are told from chance by them."""


@dataclass(frozen=True)
class TextBounds:
    """How much text there is to be at most.

    Attributes
    ----------
    fit, more : int
        Bytes to fit to, and to draw besides.
    selection, other : int
        Bytes to choose by, and of text of another domain.
    writing : WritingTime
        For what is not given.
    lessons : WritingTime
        For text of many kinds that a training reads beside a given text.
    """

    fit: int
    more: int = 0
    selection: int = MOST_SELECTION
    other: int = field(default_factory=lambda: MOST_OTHER)
    writing: WritingTime = field(default_factory=WritingTime)
    lessons: WritingTime = field(default_factory=WritingTime)

    @property
    def cut(self) -> bool:
        """Whether time leaves less text to judge by than would be taken."""
        return self.selection < MOST_SELECTION

    def to_write(self, *, texts: bool, other: bool) -> tuple[int, int]:
        """Return the bytes that the source writes: to calibrate on, and of another domain.

        `texts` and `other` say which of the two are given, and so not written.
        """
        return 0 if texts else GENERATED, 0 if other else self.other


@dataclass(frozen=True)
class CalibrationTexts:
    """Chunks that both tokenizers spell and the model has room for.

    Attributes
    ----------
    fit, selection, other : tuple of Chunk
        No document is in two of them. Each is drawn from many documents, in random order.
    more : tuple of Chunk
        Drawn like `fit`, for what one run through them is enough for.
    documents : tuple of str
        All that no acceptance looks at: those of `fit` and `more`, and what no bound left room for.
    generated : bool
        Whether `fit` and `selection` were written by the source.
    generated_other : bool
        Whether `other` was.
    cut : bool
        Whether time left less text to choose by than is taken elsewhere: differences on it are
        then held against chance, chunk by chunk.
    taught : tuple of str
        Documents of another domain that trainings read besides, and no acceptance looks at.
    """

    fit: tuple[Chunk, ...]
    more: tuple[Chunk, ...]
    selection: tuple[Chunk, ...]
    other: tuple[Chunk, ...]
    documents: tuple[str, ...]
    generated: bool
    generated_other: bool
    cut: bool = False
    taught: tuple[str, ...] = ()

    @property
    def n_bytes(self) -> int:
        """Bytes that stages and their acceptance look at, all together."""
        parts = (self.fit, self.more, self.selection, self.other)
        return sum(chunk.n_bytes for part in parts for chunk in part)


def bytes_to_calibrate_on(texts: Sequence[str]) -> int:
    """Return the bytes of calibration documents; without any, those that the source writes."""
    return sum(len(text.encode("utf-8")) for text in texts) or GENERATED


def split_texts(
    model: LanguageModel,
    source: Vocabulary,
    target: Vocabulary,
    texts: Sequence[str],
    other: Sequence[str] = (),
    *,
    bounds: TextBounds,
    seed: int = 0,
    progress: Progress = no_progress,
) -> CalibrationTexts:
    """Part the calibration text, and let the source write what is not there.

    Parameters
    ----------
    model : LanguageModel
        The source.
    source, target : Vocabulary
    texts : sequence of str
        The user's calibration documents; none lets the source write some.
    other : sequence of str
        Documents of another domain, about half of them for trainings; none lets the source write
        some to judge by.
    bounds : TextBounds
    seed : int
        Of the parting and of what is generated.
    progress : callable(done, total, what)

    Raises
    ------
    CalibrationError
        If too little text is left to fit to and to choose by.
    """
    generated = not texts
    wanted = bounds.to_write(texts=not generated, other=bool(other))
    written = generate_texts(
        model,
        source,
        sum(wanted),
        bounds.writing,
        seed=seed,
        of_kinds=not generated,
        progress=progress,
    )
    n_aside = round(len(written) * wanted[1] / max(1, sum(wanted)))
    own, aside = written[n_aside:], written[:n_aside]
    taught: Sequence[str] = ()
    documents = own if generated else separable(list(texts))
    rng = np.random.default_rng(seed)
    if other:
        aside, taught = _judging_and_taught(other, bounds.other, rng)
    order = rng.permutation(len(documents))
    spent = np.cumsum([len(documents[i].encode("utf-8")) for i in order])
    whole = int(spent[-1]) if len(spent) else 0
    total = whole if bounds.cut else min(whole, bounds.fit + bounds.selection)
    room = min(bounds.selection, int(total * SELECTION_SHARE))
    held = max(room, min(MOST_HELD * whole, DRAWN_FROM * room))
    n_selection = int(np.searchsorted(spent, held)) + 1
    chosen, free = (
        tuple(documents[i] for i in part) for part in (order[:n_selection], order[n_selection:])
    )
    size = _chunk_size(model, source, target, documents)

    def cut(texts: Sequence[str], most: int, size: int = size) -> tuple[Chunk, ...]:
        chunks = _first(_drawn(texts, size, most, rng), SPARE * most)
        return tuple(_first(_usable(model, source, target, chunks), most))

    short = min(size, _short(min(room, bounds.other))) if bounds.cut else size
    drawn, selection = cut(free, bounds.fit + bounds.more), cut(chosen, room, short)
    fit = tuple(_first(drawn, bounds.fit)) if drawn else ()
    if not fit or not selection:
        raise CalibrationError(
            f"{total:,} bytes of calibration text leave nothing to fit to and to choose by: "
            "give more text, or --calibrate none"
        )
    return CalibrationTexts(
        fit,
        drawn[len(fit) :],
        selection,
        cut(aside, bounds.other, short),
        free,
        generated,
        generated_other=not other,
        cut=bounds.cut,
        taught=tuple(taught),
    )


def _judging_and_taught(
    texts: Sequence[str], most: int, rng: np.random.Generator
) -> tuple[list[str], list[str]]:
    """Part text of another domain, at random: half to judge by, or more where that is too little.

    What is drawn from is enough; up to `MOST_TAUGHT` bytes of the rest are for trainings.
    """
    documents = separable(list(texts))
    mixed = [documents[i] for i in rng.permutation(len(documents))]
    spent = np.cumsum([len(text.encode("utf-8")) for text in mixed])
    judging = min(DRAWN_FROM * most, max(most, int(spent[-1]) // 2))
    n = int(np.searchsorted(spent, judging)) + 1
    end = int(np.searchsorted(spent, spent[min(n, len(mixed)) - 1] + MOST_TAUGHT)) + 1
    return mixed[:n], mixed[n:end]


def _short(n_bytes: int) -> int:
    """Return the longest chunk length that gives a text so many chunks that chance is seen."""
    return next((size for size in CHUNK_SIZES if size * FEWEST_CHUNKS <= n_bytes), CHUNK_SIZES[-1])


def _chunk_size(
    model: LanguageModel, source: Vocabulary, target: Vocabulary, texts: Sequence[str]
) -> int:
    """Return the longest chunk length at which nearly all chunks fit the model."""
    for size in CHUNK_SIZES:
        chunks = chunk_documents([t for t in texts[:64] if t], max_bytes_per_chunk=size)[:400]
        fits = [encode_chunks(v, chunks).fits(model.max_positions) for v in (source, target)]
        if (fits[0] & fits[1]).mean() > 0.98:
            break
    return size


def _drawn(texts: Sequence[str], size: int, most: int, rng: np.random.Generator) -> list[Chunk]:
    """Return chunks of the first texts, of many times `most` bytes, in random order."""
    spent = np.cumsum([len(text.encode("utf-8")) for text in texts])
    near = [text for text in texts[: int(np.searchsorted(spent, DRAWN_FROM * most)) + 1] if text]
    if not near:
        return []
    chunks = chunk_documents(near, max_bytes_per_chunk=size)
    return [chunks[i] for i in rng.permutation(len(chunks))]


def _first(chunks: Sequence[Chunk], most: int) -> list[Chunk]:
    """Return the first chunks, up to `most` bytes, at least one where there is one."""
    spent = np.cumsum([chunk.n_bytes for chunk in chunks])
    return list(chunks[: max(1, int(np.searchsorted(spent, most, side="right")))])


def _usable(
    model: LanguageModel, source: Vocabulary, target: Vocabulary, chunks: Sequence[Chunk]
) -> list[Chunk]:
    """Return the chunks that both tokenizers spell and that fit the model."""
    keep = np.ones(len(chunks), dtype=bool)
    for vocabulary in (source, target):
        encoded = encode_chunks(vocabulary, chunks)
        keep &= encoded.fits(model.max_positions) & encoded.lossless
    return list(itertools.compress(chunks, keep))
