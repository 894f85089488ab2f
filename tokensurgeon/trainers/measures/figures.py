"""What a vocabulary does to texts: the figures that are always printed.

Texts come as sources (a file each). Counts are kept per source and in all; nothing is judged here
beyond `find_boilerplate`, and no text is changed.
"""

from __future__ import annotations

import math
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tokensurgeon.errors import CorpusError
from tokensurgeon.progress import Progress, no_progress
from tokensurgeon.trainers.measures.formulas import gini, is_multi_word, renyi_efficiency
from tokensurgeon.vocabulary import Encoding, Kind, Vocabulary

Ints = npt.NDArray[np.int64]

ALPHAS = (2.5, 3.0)
LONG_TOKEN = 12
"""Bytes from which on a token may be boilerplate."""
FEWEST_USES = 5
FEWEST_LINES = 10
"""Lines that files must have, and all the same number, to be taken for translations."""
SPEED_BYTES = 2_000_000


@dataclass(frozen=True)
class Source:
    """Texts that belong together, such as the documents of a file."""

    name: str
    documents: tuple[str, ...]


@dataclass(frozen=True)
class SourceFigures:
    """Counts over one source, or over all, and what follows from them.

    Attributes
    ----------
    words : int
        Runs of characters between white space.
    lines : int
        Lines that are not blank.
    lossy : int
        Documents that do not come back byte for byte.
    used : int
        Distinct tokens of text that stand in the source.
    multi_word : int
        Tokens on the text that hold several words.
    renyi : mapping of alpha to efficiency
        See `metrics.renyi_efficiency`.
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
        """How much text a token carries."""
        return self.bytes / self.tokens if self.tokens else math.nan

    @property
    def fertility(self) -> float:
        """Tokens per word; says little where a script has no spaces."""
        return self.tokens / self.words if self.words else math.nan

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            **asdict(self),
            "bytes_per_token": self.bytes_per_token,
            "fertility": self.fertility,
        }


@dataclass(frozen=True)
class Parity:
    """How unevenly a vocabulary serves the sources: Gini of tokens per unit over the sources.

    The unit is "source" where all are said to be translations of each other; "document" or "line"
    where they have equally many, as translations do; else "byte", in which a script of three bytes
    a letter looks cheaper than it is.
    """

    gini: float
    unit: str
    tokens_per_unit: dict[str, float]


@dataclass(frozen=True)
class Boilerplate:
    """A long token that stands in few different lines, or few documents, for its many uses."""

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
        Ids that have a token; the \|V\| of Rényi efficiency.
    kinds : mapping of kind to number of ids
    longest : bytes
        The longest token of text.
    multi_word : int
        Tokens of the vocabulary that hold several words.
    sources, total
        Empty and None where no text was given.
    unused : int or None
        Tokens of text that never stand in the text.
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
            "sources": [each.to_dict() for each in self.sources],
            "total": self.total.to_dict() if self.total else None,
            "parity": asdict(self.parity) if self.parity else None,
            "unused": self.unused,
            "boilerplate": [
                {**asdict(each), "bytes": each.bytes.hex()} for each in self.boilerplate
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
    """Return the figures of a vocabulary, on texts where there are any.

    Parameters
    ----------
    vocabulary : Vocabulary
    sources : sequence of Source
    progress : callable(done, total, what)
    parallel : bool
        The sources are translations of each other, whatever their numbers of lines.

    Raises
    ------
    CorpusError
        If a source has no text.
    TokenizerError
        If the tokenizer fails on a text.
    """
    kinds = {kind.name.lower(): int((vocabulary.kinds == kind).sum()) for kind in Kind}
    is_text = (vocabulary.kinds == Kind.ORDINARY) | (vocabulary.kinds == Kind.BYTE)
    several = np.array([is_multi_word(data) for data in vocabulary.token_bytes], dtype=bool)
    lengths = np.array([len(data or b"") for data in vocabulary.token_bytes])
    longest = int(lengths.argmax())
    size = vocabulary.n_rows - kinds[Kind.PADDING.name.lower()]
    plain = Figures(
        size=size,
        text_tokens=int(is_text.sum()),
        kinds=kinds,
        longest_id=longest,
        longest=vocabulary.token_bytes[longest] or b"",
        multi_word=int(several.sum()),
    )
    if not sources:
        return plain
    for source in sources:
        if not any(source.documents):
            raise CorpusError(f"{source.name} holds no text; leave it out")
    speed = _speed(vocabulary, sources)  # before anything else has warmed the tokenizer's cache
    tally = _Tally(vocabulary)
    found, counts = [], []
    for number, source in enumerate(sources):
        progress(number, len(sources), "encoding")
        encodings = vocabulary.encode_many(source.documents)
        ids = np.concatenate([np.asarray(one.ids, dtype=np.int64) for one in encodings])
        counts.append(np.bincount(ids, minlength=vocabulary.n_rows))
        for text, encoding in zip(source.documents, encodings, strict=True):
            tally.add(text, encoding)
        lossy = sum(not encoding.lossless for encoding in encodings)
        found.append(_figures(source.name, source.documents, lossy, counts[-1], several, size))
    progress(len(sources), len(sources), "encoding")
    total_counts = np.sum(counts, axis=0)
    every = [text for source in sources for text in source.documents]
    total = _figures("all", every, sum(f.lossy for f in found), total_counts, several, size)
    return Figures(
        size=plain.size,
        text_tokens=plain.text_tokens,
        kinds=kinds,
        longest_id=longest,
        longest=plain.longest,
        multi_word=plain.multi_word,
        sources=tuple(found),
        total=total,
        parity=parity(found, parallel=parallel),
        unused=int((is_text & (total_counts == 0)).sum()),
        boilerplate=tally.suspects(total_counts),
        megabytes_per_cpu_second=speed,
    )


def parity(sources: Sequence[SourceFigures], *, parallel: bool = False) -> Parity | None:
    """Return how unevenly sources are served; None for fewer than two."""
    if len(sources) < 2:
        return None
    first = sources[0]
    unit = "byte"
    if parallel:
        unit = "source"
    elif first.documents > 1 and all(one.documents == first.documents for one in sources):
        unit = "document"
    elif first.lines >= FEWEST_LINES and all(one.lines == first.lines for one in sources):
        unit = "line"
    per_unit = {
        one.name: one.tokens
        / {"byte": one.bytes, "document": one.documents, "line": one.lines, "source": 1}[unit]
        for one in sources
    }
    return Parity(gini(list(per_unit.values())), unit, per_unit)


def peak_memory() -> int:
    """Return the most memory, in bytes, that this process has held so far (ru_maxrss)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _figures(
    name: str,
    documents: Sequence[str],
    lossy: int,
    counts: Ints,
    several: npt.NDArray[np.bool_],
    size: int,
) -> SourceFigures:
    return SourceFigures(
        name=name,
        documents=len(documents),
        bytes=sum(len(text.encode()) for text in documents),
        tokens=int(counts.sum()),
        words=sum(len(text.split()) for text in documents),
        lines=sum(bool(line.strip()) for text in documents for line in text.split("\n")),
        lossy=lossy,
        used=int((counts > 0).sum()),
        multi_word=int(counts[several].sum()),
        renyi={f"{alpha:g}": renyi_efficiency(counts, alpha, size) for alpha in ALPHAS},
    )


def _speed(vocabulary: Vocabulary, sources: Sequence[Source]) -> float:
    """Return megabytes per CPU-second of one batch, the tokenizer's own call, cache cold."""
    batch: list[str] = []
    n_bytes = 0
    for source in sources:
        for text in source.documents:
            if n_bytes < SPEED_BYTES:
                batch.append(text)
                n_bytes += len(text.encode())
    started = time.process_time()
    vocabulary.tokenizer.encode_batch_fast(batch, add_special_tokens=False)
    return n_bytes / 1e6 / max(time.process_time() - started, 1e-9)


class _Tally:
    """In which lines and documents the long tokens stand."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._bytes = vocabulary.token_bytes
        self._long = np.array(
            [len((data or b"").strip()) >= LONG_TOKEN for data in vocabulary.token_bytes],
            dtype=bool,
        )
        self._lines: dict[int, set[int]] = {}
        self._documents: dict[int, int] = {}
        self.n_documents = 0

    def add(self, text: str, encoding: Encoding) -> None:
        """Note the long tokens of a document."""
        self.n_documents += 1
        ids = np.asarray(encoding.ids, dtype=np.int64)
        at = np.flatnonzero(self._long[ids]) if len(ids) else ids
        if not len(at):
            return
        data = text.encode()
        starts = np.concatenate([[0], encoding.ends[:-1]])
        for place in at.tolist():
            token = int(ids[place])
            line = data[
                data.rfind(b"\n", 0, int(starts[place])) + 1 : _line_end(
                    data, int(encoding.ends[place])
                )
            ]
            self._lines.setdefault(token, set()).add(hash(line.strip()))
        for token in set(ids[at].tolist()):
            self._documents[token] = self._documents.get(token, 0) + 1

    def suspects(self, counts: Ints) -> tuple[Boilerplate, ...]:
        """Return long tokens with a third as many different lines as uses, or fewer.

        So are those of several words of which a document has ten on average, where there are many
        documents; a single word may well be what a document is about.
        """
        found = []
        for token, lines in self._lines.items():
            uses, documents = int(counts[token]), self._documents[token]
            repeated = 3 * len(lines) <= uses
            data = self._bytes[token] or b""
            crowded = self.n_documents >= 20 and uses >= 10 * documents and is_multi_word(data)
            if uses >= FEWEST_USES and (repeated or crowded):
                found.append(Boilerplate(token, data, uses, len(lines), documents))
        return tuple(sorted(found, key=lambda each: (-each.uses * len(each.bytes), each.id)))


def _line_end(data: bytes, start: int) -> int:
    end = data.find(b"\n", start)
    return len(data) if end < 0 else end
