"""Measure several models on one text: the source first, the plain baselines beside.

`evaluate` works on models in memory; `evaluate_checkpoint` loads them and calls it. All models are
scored on the same bytes. A tokenizer that loses text on a chunk is not comparable there: the chunk
is left out of its figure and counted; a chunk that does not fit one of the models is left out for
all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tokensurgeon.alignment import Alignment, align
from tokensurgeon.errors import EvaluationError
from tokensurgeon.evaluation.breakdown import Part, by_kind, by_match, parts_to_dict
from tokensurgeon.evaluation.chunks import Chunk, chunk_bytes_for, chunk_documents
from tokensurgeon.evaluation.generation import Generation, Generator, measure_generation
from tokensurgeon.evaluation.metrics import (
    Interval,
    bits_per_byte,
    bootstrap_ratio,
    bytes_per_token,
    perplexity,
    totals,
)
from tokensurgeon.evaluation.scoring import (
    Encoded,
    Mask,
    Progress,
    Scorer,
    Scores,
    encode_chunks,
    left_out_bytes,
    no_progress,
    score,
)
from tokensurgeon.training.corpus import Corpus, read_corpus
from tokensurgeon.vocabulary import Vocabulary, load_vocabulary

DEFAULT_MAX_BYTES = 500_000
PROTOCOL = (
    "bits per byte = loss / (ln 2 × bytes); chunks cut from the text alone, each tokenised whole "
    "and scored whole after BOS (else EOS); the end of the text is not scored"
)


@dataclass(frozen=True)
class Entry:
    """One row of the table.

    Attributes
    ----------
    name : str
    model : Scorer
        A model in memory; `tokensurgeon.checkpoint.LanguageModel` is one.
    vocabulary : Vocabulary
        The model's own.
    alignment : Alignment or None
        From the source's vocabulary to this one; gives the split by shared and missing tokens.
    """

    name: str
    model: Scorer
    vocabulary: Vocabulary
    alignment: Alignment | None = None


@dataclass(frozen=True)
class EntryResult:
    """Figures of one model.

    Attributes
    ----------
    name : str
    bits_per_byte : float or None
        The headline; None where no chunk is comparable.
    perplexity, byte_perplexity : float or None
        Per token (not comparable between vocabularies) and per byte.
    perplexity_ratio : float or None
        Token perplexity over that of the first entry, as the literature reports it.
    bytes_per_token : float or None
        On the text given.
    n_bytes, n_tokens, n_chunks : int
        What the figures are over.
    n_lost : int
        Chunks on which the tokenizer loses text: not comparable, in no figure of this entry.
    difference : Interval or None
        Bits per byte above the first entry, over the chunks that both could score; None for the
        first.
    by_match : dict of Part, or None
        ``shared`` and ``missing`` tokens, where an alignment was given.
    by_kind : dict of Part
    generation : Generation or None
    """

    name: str
    bits_per_byte: float | None
    perplexity: float | None
    byte_perplexity: float | None
    perplexity_ratio: float | None
    bytes_per_token: float | None
    n_bytes: int
    n_tokens: int
    n_chunks: int
    n_lost: int
    difference: Interval | None
    by_match: dict[str, Part] | None
    by_kind: dict[str, Part]
    generation: Generation | None = None

    @property
    def comparable(self) -> bool:
        """Whether the tokenizer kept all of the text, so that the entry may be ranked."""
        return self.n_lost == 0 and self.bits_per_byte is not None

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain values, ready for JSON."""
        return {
            "name": self.name,
            "bits_per_byte": self.bits_per_byte,
            "difference": self.difference.to_dict() if self.difference else None,
            "perplexity": self.perplexity,
            "perplexity_ratio": self.perplexity_ratio,
            "byte_perplexity": self.byte_perplexity,
            "bytes_per_token": self.bytes_per_token,
            "bytes": self.n_bytes,
            "tokens": self.n_tokens,
            "chunks": self.n_chunks,
            "chunks_not_comparable": self.n_lost,
            "comparable": self.comparable,
            "by_match": parts_to_dict(self.by_match),
            "by_kind": parts_to_dict(self.by_kind),
            "generation": self.generation.to_dict() if self.generation else None,
        }


@dataclass(frozen=True)
class Evaluation:
    """A table of models on one text.

    Attributes
    ----------
    entries : tuple of EntryResult
        In the order given; the first is the source.
    n_documents, n_chunks, n_bytes : int
        What was chosen from the text.
    n_too_long : int
        Chunks left out for all because one model does not take so many tokens.
    n_left_out_bytes : int
        First bytes of chunks left out for all because a model has neither BOS nor EOS.
    chunk_bytes, max_bytes : int, int or None
    sha256 : str
        Of the chunks' text.
    seed : int
        Of the bootstrap and of generation.
    """

    entries: tuple[EntryResult, ...]
    n_documents: int
    n_chunks: int
    n_bytes: int
    n_too_long: int
    n_left_out_bytes: int
    chunk_bytes: int
    max_bytes: int | None
    sha256: str
    seed: int

    def __getitem__(self, name: str) -> EntryResult:
        for entry in self.entries:
            if entry.name == name:
                return entry
        raise KeyError(name)

    def to_dict(self) -> dict[str, Any]:
        """Return the table as plain values, ready for JSON."""
        return {
            "entries": [entry.to_dict() for entry in self.entries],
            "text": {
                "documents": self.n_documents,
                "chunks": self.n_chunks,
                "bytes": self.n_bytes,
                "chunks_too_long": self.n_too_long,
                "left_out_bytes": self.n_left_out_bytes,
                "chunk_bytes": self.chunk_bytes,
                "max_bytes": self.max_bytes,
                "sha256": self.sha256,
            },
            "seed": self.seed,
            "protocol": PROTOCOL,
        }


def evaluate(
    entries: Sequence[Entry],
    texts: Sequence[str],
    *,
    max_bytes: int | None = DEFAULT_MAX_BYTES,
    chunk_bytes: int | None = None,
    seed: int = 0,
    generate: int = 0,
    progress: Progress = no_progress,
) -> Evaluation:
    """Measure models on the same text.

    Parameters
    ----------
    entries : sequence of Entry
        The first is the source: differences and perplexity ratios are against it.
    texts : sequence of str
        Documents.
    max_bytes : int or None
        Whole documents, in their order, are taken while they fit into this many bytes.
    chunk_bytes : int or None
        Longest chunk; if None, 1,024 or less, so that even a token per byte fits every model.
    seed : int
        Of the bootstrap and of generation.
    generate : int
        Let each model write this many samples, and measure bytes per token on them.
    progress : callable(done, total, what)

    Raises
    ------
    EvaluationError
        If there is nothing to score: no entry, no text, no chunk that fits all models.
    """
    check_names(entries)
    size = chunk_bytes_for([entry.model.max_positions for entry in entries], chunk_bytes)
    chunks = chunk_documents(texts, max_bytes_per_chunk=size, max_bytes_total=max_bytes)
    # Entries often share a vocabulary: the source's rows under several methods, say.
    cache: dict[int, Encoded] = {}
    table = [
        cache.setdefault(id(e.vocabulary), encode_chunks(e.vocabulary, chunks))
        if id(e.vocabulary) not in cache
        else cache[id(e.vocabulary)]
        for e in entries
    ]
    fits = np.ones(len(chunks), dtype=np.bool_)
    for entry, encoded in zip(entries, table, strict=True):
        # What is not comparable is not scored, so it need not fit.
        fits &= encoded.fits(entry.model.max_positions) | ~encoded.lossless
    if not fits.any():
        raise EvaluationError(
            f"none of {len(chunks):,} chunks fits all models; take shorter chunks than {size} bytes"
        )
    skip = left_out_bytes(table, chunks)
    results: list[EntryResult] = []
    scores: list[Scores] = []
    for entry, encoded in zip(entries, table, strict=True):
        scores.append(
            score(
                entry.model,
                entry.vocabulary,
                chunks,
                encoded=encoded,
                keep=fits,
                skip=skip,
                name=entry.name,
                progress=progress,
            )
        )
        results.append(_figures(entry, scores[-1], scores[0], fits, results, seed))
    if generate:
        results = [
            _with_generation(entry, result, generate, seed, progress)
            for entry, result in zip(entries, results, strict=True)
        ]
    if results[0].bits_per_byte is None:
        raise EvaluationError(
            f"the tokenizer of {results[0].name} loses text on all {len(chunks):,} chunks; "
            "nothing is comparable with it: give text it can spell"
        )
    return Evaluation(
        entries=tuple(results),
        n_documents=len({chunk.document for chunk in chunks}),
        n_chunks=len(chunks),
        n_bytes=sum(chunk.n_bytes for chunk in chunks),
        n_too_long=int((~fits).sum()),
        n_left_out_bytes=int(skip.sum()),
        chunk_bytes=size,
        max_bytes=max_bytes,
        sha256=_hash(chunks),
        seed=seed,
    )


def check_names(entries: Sequence[Entry]) -> None:
    """Refuse an empty table, and two entries of one name.

    Raises
    ------
    EvaluationError
    """
    names = [entry.name for entry in entries]
    if not names:
        raise EvaluationError("no model was given; give at least one")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise EvaluationError(f"two entries are named '{twice[0]}'; give each its own name")


def _figures(
    entry: Entry,
    own: Scores,
    first: Scores,
    fits: Mask,
    before: Sequence[EntryResult],
    seed: int,
) -> EntryResult:
    nll, n_bytes, n_tokens = totals(own)
    known = n_bytes > 0 and n_tokens > 0
    token_perplexity = perplexity(nll, n_tokens) if known else None
    difference = ratio = None
    if before and known and (own.comparable & first.comparable).any():
        difference = bootstrap_ratio(own, first, seed)
        both = own.comparable & first.comparable
        mine, theirs = totals(own, both), totals(first, both)
        ratio = perplexity(mine[0], mine[2]) / perplexity(theirs[0], theirs[2])
    return EntryResult(
        name=entry.name,
        bits_per_byte=bits_per_byte(nll, n_bytes) if known else None,
        perplexity=_finite(token_perplexity),
        byte_perplexity=_finite(perplexity(nll, n_bytes)) if known else None,
        perplexity_ratio=_finite(ratio),
        bytes_per_token=bytes_per_token(n_bytes, n_tokens) if known else None,
        n_bytes=n_bytes,
        n_tokens=n_tokens,
        n_chunks=int(own.comparable.sum()),
        n_lost=int((own.lost & fits).sum()),
        difference=difference,
        by_match=by_match(own, entry.vocabulary, entry.alignment) if entry.alignment else None,
        by_kind=by_kind(own, entry.vocabulary),
    )


def _finite(value: float | None) -> float | None:
    """Return the value, or None where JSON could not hold it."""
    return value if value is not None and np.isfinite(value) else None


def _with_generation(
    entry: Entry, result: EntryResult, n: int, seed: int, progress: Progress
) -> EntryResult:
    if not isinstance(entry.model, Generator):
        raise EvaluationError(f"{entry.name} cannot generate text; evaluate it without generation")
    figures = measure_generation(
        entry.model, entry.vocabulary, n=n, seed=seed, name=entry.name, progress=progress
    )
    return EntryResult(**{**_fields(result), "generation": figures})


def _fields(result: EntryResult) -> dict[str, Any]:
    return {name: getattr(result, name) for name in result.__dataclass_fields__}


def _hash(chunks: Sequence[Chunk]) -> str:
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk.text.encode("utf-8") + b"\xff")
    return digest.hexdigest()


def evaluate_checkpoint(
    path: str | Path,
    texts: Sequence[str | Path] | Corpus,
    against: str | Path | None = None,
    *,
    field: str = "text",
    max_bytes: int | None = DEFAULT_MAX_BYTES,
    chunk_bytes: int | None = None,
    device: str = "cpu",
    dtype: str = "float32",
    seed: int = 0,
    generate: int = 0,
    trust_remote_code: bool = False,
    progress: Progress = no_progress,
) -> Evaluation:
    """Load a checkpoint, and the one to compare it with, and measure both.

    Parameters
    ----------
    path : str or Path
        A checkpoint with its own tokenizer.
    texts : sequence of str or Path, or Corpus
        Files, folders or globs; see `tokensurgeon.training.read_corpus`.
    against : str, Path or None
        Another checkpoint, mostly the source of `path`; it comes first in the table, and tokens
        of `path` are split into those it has and those it lacks.
    field : str
        The key that holds the text in JSON objects.
    device, dtype : str
        Of the forward passes.

    Other parameters are those of `evaluate`.

    Returns
    -------
    Evaluation
        Entries in the order ``against``, ``path``; each named by its path.
    """
    from tokensurgeon.checkpoint import load_model

    corpus = texts if isinstance(texts, Corpus) else read_corpus(texts, field=field)
    entries: list[Entry] = []
    for one in ([against] if against is not None else []) + [path]:
        vocabulary = load_vocabulary(one)
        alignment = None
        if entries and vocabulary.fingerprint != entries[0].vocabulary.fingerprint:
            alignment = align(entries[0].vocabulary, vocabulary)
        model = load_model(one, device=device, dtype=dtype, trust_remote_code=trust_remote_code)
        name = str(one) if not any(str(one) == e.name for e in entries) else f"{one} (again)"
        entries.append(Entry(name, model, vocabulary, alignment))
    return evaluate(
        entries,
        corpus.texts,
        max_bytes=max_bytes,
        chunk_bytes=chunk_bytes,
        seed=seed,
        generate=generate,
        progress=progress,
    )
