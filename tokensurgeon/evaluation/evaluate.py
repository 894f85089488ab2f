"""Measure several models on one text: the source first, the plain baselines beside.

`evaluate` works on models in memory; `evaluate_checkpoint` loads them and calls it. All models are
scored on the same bytes. A tokenizer that loses text on a chunk is not comparable there: the chunk
is left out of its figure and counted; a chunk that does not fit one of the models is left out for
all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tokensurgeon.alignment import Alignment, align
from tokensurgeon.errors import EvaluationError
from tokensurgeon.evaluation.breakdown import by_kind, by_match
from tokensurgeon.evaluation.chunks import CHUNK_SIZES, SMALLEST_CHUNK_BYTES, Chunk, chunk_documents
from tokensurgeon.evaluation.generation import Generator, measure_generation
from tokensurgeon.evaluation.metrics import (
    bits_per_byte,
    bootstrap_ratio,
    bytes_per_token,
    perplexity,
    totals,
)
from tokensurgeon.evaluation.scoring import (
    Encoded,
    Mask,
    Scorer,
    Scores,
    encode_chunks,
    left_out_bytes,
    score,
)
from tokensurgeon.evaluation.table import EntryResult, Evaluation
from tokensurgeon.training.corpus import Corpus, read_corpus
from tokensurgeon.training.train import Progress, no_progress
from tokensurgeon.vocabulary import Vocabulary, load_vocabulary

DEFAULT_MAX_BYTES = 500_000
TOO_LONG_SHARE = 0.01
"""Most bytes that may be left out because their chunk has too many tokens for a model."""


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
        Longest chunk; chunks that then have too many tokens for a model are left out for all and
        counted. None takes the longest of `CHUNK_SIZES` at which that is 1 % of the bytes or less.
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
    size, chunks, table, fits = _cut(entries, texts, chunk_bytes, max_bytes)
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


def _cut(
    entries: Sequence[Entry], texts: Sequence[str], wanted: int | None, max_bytes: int | None
) -> tuple[int, list[Chunk], list[Encoded], Mask]:
    """Return the chunk length, the chunks, their tokens per entry, and which fit every model."""
    if wanted is not None and wanted < SMALLEST_CHUNK_BYTES:
        raise EvaluationError(
            f"chunks of {wanted} bytes are too short; take {SMALLEST_CHUNK_BYTES} or more"
        )
    for size in CHUNK_SIZES if wanted is None else (wanted,):
        chunks = chunk_documents(texts, max_bytes_per_chunk=size, max_bytes_total=max_bytes)
        # Entries often share a vocabulary: the source's rows under several methods, say.
        own = {id(entry.vocabulary): entry.vocabulary for entry in entries}
        encoded = {key: encode_chunks(vocabulary, chunks) for key, vocabulary in own.items()}
        table = [encoded[id(entry.vocabulary)] for entry in entries]
        fits = np.ones(len(chunks), dtype=np.bool_)
        for entry, tokens in zip(entries, table, strict=True):
            # What is not comparable is not scored, so it need not fit.
            fits &= tokens.fits(entry.model.max_positions) | ~tokens.lossless
        n_bytes = np.array([chunk.n_bytes for chunk in chunks])
        if n_bytes[~fits].sum() <= TOO_LONG_SHARE * n_bytes.sum():
            break
    if not fits.any():
        raise EvaluationError(
            f"none of {len(chunks):,} chunks of {size} bytes fits all models: "
            + ("a model has too few positions" if wanted is None else "take shorter chunks")
        )
    return size, chunks, table, fits


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
    return replace(result, generation=figures)


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
