"""What a vocabulary does to texts: the figures that are always printed.

Texts come as sources, such as one for each file. Figures are of each source and of all together.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from typing import Any

import numpy as np

from tokensurgeon.arrays import Ids, Mask
from tokensurgeon.errors import CorpusError
from tokensurgeon.progress import Progress, no_progress
from tokensurgeon.trainers.measures.formulas import gini, is_multi_word, renyi_efficiency
from tokensurgeon.trainers.measures.sources import Source
from tokensurgeon.trainers.mixture import ALL
from tokensurgeon.vocabulary import Encoding, Kind, Vocabulary

ALPHAS = (2.5, 3.0)
"""Orders of the Rényi efficiencies that are printed. Zouhar et al. (2023) find 2.5 for translation;
3 shows how much the order matters."""
LONG_TOKEN = 12
"""Bytes from which on a token may be boilerplate: longer than most words."""
FEWEST_USES = 5
"""Uses from which on a token may be boilerplate: of fewer, repeats can be chance."""
FEWEST_LINES = 10
"""Files count as translations of each other if all have the same number of lines, at least this."""
SPEED_BYTES = 2_000_000
"""Bytes on which speed is measured: enough that the resolution of the clock does not matter."""


@dataclass(frozen=True)
class SourceFigures:
    """Counts over one source, or over all, and ratios of them.

    Attributes
    ----------
    words : int
        Runs of characters between white space.
    lines : int
        Lines that are not blank.
    lossy : int
        Documents that decoding does not give back byte for byte.
    used : int
        Distinct tokens that occur in the source.
    multi_word : int
        Occurrences of tokens that contain several words.
    renyi : mapping of alpha to efficiency
        See `formulas.renyi_efficiency`.
    """

    name: str
    documents: int
    bytes: int
    tokens: int
    words: int
    lines: int
    lossy: int
    used: int
    multi_word: int
    renyi: dict[str, float]

    @property
    def bytes_per_token(self) -> float:
        """Mean length of a token in the text."""
        return self.bytes / self.tokens if self.tokens else math.nan

    @property
    def fertility(self) -> float:
        """Tokens per word; meaningless for scripts without spaces."""
        return self.tokens / self.words if self.words else math.nan

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values."""
        rates = {"bytes_per_token": self.bytes_per_token, "fertility": self.fertility}
        return asdict(self) | rates


@dataclass(frozen=True)
class Parity:
    """How unevenly a vocabulary splits the sources: Gini of tokens per unit over the sources.

    The unit is "source" if they are declared to be translations of each other; "document" or "line"
    if all have equally many, as translations do; else "byte", in which a script of three bytes a
    letter looks cheaper than it is.
    """

    gini: float
    unit: str
    tokens_per_unit: dict[str, float]


@dataclass(frozen=True)
class Boilerplate:
    """A long token whose many uses are in few different lines or few documents."""

    id: int
    bytes: bytes
    uses: int
    lines: int
    documents: int


@dataclass(frozen=True)
class Figures:
    r"""What a vocabulary does to texts.

    Attributes
    ----------
    size : int
        Ids with a token; the \|V\| of Rényi efficiency.
    kinds : mapping of kind to number of ids
    longest : bytes
        The longest token of text.
    multi_word : int
        Tokens of the vocabulary that contain several words.
    sources, total
        Empty and None if no text was given.
    unused : int or None
        Ordinary and byte tokens that do not occur in the text.
    """

    size: int
    text_tokens: int
    kinds: dict[str, int]
    longest_id: int
    longest: bytes
    multi_word: int
    sources: tuple[SourceFigures, ...] = ()
    total: SourceFigures | None = None
    parity: Parity | None = None
    unused: int | None = None
    boilerplate: tuple[Boilerplate, ...] = ()
    megabytes_per_cpu_second: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values; bytes as hexadecimal."""
        return {
            "size": self.size,
            "text_tokens": self.text_tokens,
            "kinds": self.kinds,
            "longest_token": {
                "id": self.longest_id,
                "length": len(self.longest),
                "bytes": self.longest.hex(),
            },
            "multi_word_tokens": self.multi_word,
            "sources": [source.to_dict() for source in self.sources],
            "total": self.total.to_dict() if self.total else None,
            "parity": asdict(self.parity) if self.parity else None,
            "unused": self.unused,
            "boilerplate": [
                {**asdict(suspect), "bytes": suspect.bytes.hex()} for suspect in self.boilerplate
            ],
            "megabytes_per_cpu_second": self.megabytes_per_cpu_second,
        }


def measure_vocabulary(
    vocabulary: Vocabulary,
    sources: Sequence[Source] = (),
    progress: Progress = no_progress,
    *,
    parallel: bool = False,
) -> Figures:
    """Return the figures of a vocabulary, and those on texts if there are any.

    Parameters
    ----------
    vocabulary : Vocabulary
    sources : sequence of Source
    progress : callable(done, total, what)
    parallel : bool
        Whether the sources are translations of each other, whatever their numbers of lines.

    Raises
    ------
    CorpusError
        If a source has no text.
    TokenizerError
        If the tokenizer fails on a text.
    """
    kinds = {kind.name.lower(): int((vocabulary.kinds == kind).sum()) for kind in Kind}
    is_text = (vocabulary.kinds == Kind.ORDINARY) | (vocabulary.kinds == Kind.BYTE)
    multi_word = np.array([is_multi_word(data) for data in vocabulary.token_bytes], dtype=bool)
    lengths = np.array([len(data or b"") for data in vocabulary.token_bytes])
    longest = int(lengths.argmax())
    size = vocabulary.n_rows - kinds[Kind.PADDING.name.lower()]
    figures = Figures(
        size=size,
        text_tokens=int(is_text.sum()),
        kinds=kinds,
        longest_id=longest,
        longest=vocabulary.token_bytes[longest] or b"",
        multi_word=int(multi_word.sum()),
    )
    if not sources:
        return figures
    for source in sources:
        if not any(source.documents):
            raise CorpusError(f"{source.name} holds no text; leave it out")
    speed = _speed(vocabulary, sources)  # first, while the tokenizer's cache is cold
    long_tokens = _LongTokens(vocabulary)
    by_source, counts = [], []
    for number, source in enumerate(sources):
        progress(number, len(sources), "encoding")
        encodings = vocabulary.encode_many(source.documents)
        ids = np.concatenate([np.asarray(encoding.ids, dtype=np.int64) for encoding in encodings])
        counts.append(np.bincount(ids, minlength=vocabulary.n_rows))
        for text, encoding in zip(source.documents, encodings, strict=True):
            long_tokens.add(text, encoding)
        lossy = sum(not encoding.lossless for encoding in encodings)
        by_source.append(_source_figures(source, lossy, counts[-1], multi_word, size))
    progress(len(sources), len(sources), "encoding")
    total_counts = np.sum(counts, axis=0)
    together = Source(ALL, tuple(text for source in sources for text in source.documents))
    lossy = sum(source.lossy for source in by_source)
    return replace(
        figures,
        sources=tuple(by_source),
        total=_source_figures(together, lossy, total_counts, multi_word, size),
        parity=parity(by_source, parallel=parallel),
        unused=int((is_text & (total_counts == 0)).sum()),
        boilerplate=long_tokens.boilerplate(total_counts),
        megabytes_per_cpu_second=speed,
    )


def parity(sources: Sequence[SourceFigures], *, parallel: bool = False) -> Parity | None:
    """Return how unevenly sources are split into tokens; None for fewer than two."""
    if len(sources) < 2:
        return None
    first = sources[0]
    unit = "byte"
    if parallel:
        unit = "source"
    elif first.documents > 1 and all(s.documents == first.documents for s in sources):
        unit = "document"
    elif first.lines >= FEWEST_LINES and all(s.lines == first.lines for s in sources):
        unit = "line"
    per_unit = {
        s.name: s.tokens
        / {"byte": s.bytes, "document": s.documents, "line": s.lines, "source": 1}[unit]
        for s in sources
    }
    return Parity(gini(list(per_unit.values())), unit, per_unit)


def _source_figures(
    source: Source, lossy: int, counts: Ids, multi_word: Mask, size: int
) -> SourceFigures:
    documents = source.documents
    return SourceFigures(
        name=source.name,
        documents=len(documents),
        bytes=sum(len(text.encode()) for text in documents),
        tokens=int(counts.sum()),
        words=sum(len(text.split()) for text in documents),
        lines=sum(bool(line.strip()) for text in documents for line in text.split("\n")),
        lossy=lossy,
        used=int((counts > 0).sum()),
        multi_word=int(counts[multi_word].sum()),
        renyi={f"{alpha:g}": renyi_efficiency(counts, alpha, size) for alpha in ALPHAS},
    )


def _speed(vocabulary: Vocabulary, sources: Sequence[Source]) -> float:
    """Return megabytes per CPU-second for encoding one batch with a cold cache."""
    batch: list[str] = []
    n_bytes = 0
    for text in chain.from_iterable(source.documents for source in sources):
        if n_bytes < SPEED_BYTES:
            batch.append(text)
            n_bytes += len(text.encode())
    started = time.process_time()
    vocabulary.tokenizer.encode_batch_fast(batch, add_special_tokens=False)
    return n_bytes / 1e6 / max(time.process_time() - started, 1e-9)


class _LongTokens:
    """Counts the lines and documents in which each long token occurs."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._bytes = vocabulary.token_bytes
        lengths = [len((data or b"").strip()) for data in vocabulary.token_bytes]
        self._long = np.array(lengths) >= LONG_TOKEN
        self._lines: dict[int, set[int]] = {}
        self._documents: Counter[int] = Counter()
        self._n_documents = 0

    def add(self, text: str, encoding: Encoding) -> None:
        """Count the long tokens of a document."""
        self._n_documents += 1
        ids = np.asarray(encoding.ids, dtype=np.int64)
        at = np.flatnonzero(self._long[ids]) if len(ids) else ids
        if not len(at):
            return
        data = text.encode()
        starts = np.concatenate([[0], encoding.ends[:-1]])
        for i in at.tolist():
            start = data.rfind(b"\n", 0, int(starts[i])) + 1
            end = data.find(b"\n", int(encoding.ends[i]))
            line = data[start : end if end >= 0 else len(data)]
            self._lines.setdefault(int(ids[i]), set()).add(hash(line.strip()))
        self._documents.update(set(ids[at].tolist()))

    def boilerplate(self, counts: Ids) -> tuple[Boilerplate, ...]:
        """Return long tokens that occur in at most a third as many different lines as uses.

        Among 20 documents or more, also those of several words with ten uses per document on
        average. A single word that is so frequent may be the subject of a document.
        """
        suspects = []
        for token, lines in self._lines.items():
            uses, documents = int(counts[token]), self._documents[token]
            repeated = 3 * len(lines) <= uses
            data = self._bytes[token] or b""
            crowded = self._n_documents >= 20 and uses >= 10 * documents and is_multi_word(data)
            if uses >= FEWEST_USES and (repeated or crowded):
                suspects.append(Boilerplate(token, data, uses, len(lines), documents))
        return tuple(sorted(suspects, key=lambda s: (-s.uses * len(s.bytes), s.id)))
