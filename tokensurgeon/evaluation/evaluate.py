"""Measure several models on one text: the source first, the plain baselines beside.

`evaluate` works on models in memory; `evaluate_checkpoint` loads them and calls it. All models are
scored on the same bytes. A tokenizer that loses text on a chunk is not comparable there: the chunk
is left out of its figure and counted; a chunk that does not fit one of the models is left out for
all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tokensurgeon.alignment import align
from tokensurgeon.checkpoint.embeddings import CAUSAL
from tokensurgeon.checkpoint.files import find_folder
from tokensurgeon.errors import EvaluationError
from tokensurgeon.evaluation.exact_bytes import exact_bytes, first_bytes
from tokensurgeon.evaluation.generation import Generator, measure_generation
from tokensurgeon.evaluation.measured_source import MeasuredSource
from tokensurgeon.evaluation.model_kinds import kind_of_all
from tokensurgeon.evaluation.protocol import DEFAULT_MAX_BYTES, Entry, EvaluationProtocol
from tokensurgeon.evaluation.shared_work import shared_work
from tokensurgeon.evaluation.table import Evaluation
from tokensurgeon.models import LanguageModel, load_model
from tokensurgeon.progress import Progress, no_progress
from tokensurgeon.text.corpus import Corpus, read_to_measure
from tokensurgeon.text.seen import refuse_seen
from tokensurgeon.vocabulary import load_vocabulary


def evaluate(
    entries: Sequence[Entry],
    texts: Sequence[str],
    *,
    max_bytes: int | None = DEFAULT_MAX_BYTES,
    chunk_bytes: int | None = None,
    seed: int = 0,
    generate: int = 0,
    n_exact_bytes: int = 0,
    progress: Progress = no_progress,
) -> Evaluation:
    """Measure models on the same text.

    Parameters
    ----------
    entries : sequence of Entry
        The first is the source: differences and perplexity ratios are against it. A model that is
        there under two names is measured once.
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
    n_exact_bytes : int
        Measure each model on so many bytes of the text by exact probabilities of bytes, too.
    progress : callable(done, total, what)

    Raises
    ------
    EvaluationError
        If there is nothing to score (no entry, no text, no chunk that fits all models), or two
        entries have one name.
    """
    names = [entry.name for entry in entries]
    if not names:
        raise EvaluationError("no model was given; give at least one")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise EvaluationError(f"two entries are named '{twice[0]}'; give each its own name")
    by_bytes = _models_of_bytes(entries) if n_exact_bytes else []
    protocol = EvaluationProtocol.fix(
        [(entry.vocabulary, entry.model.max_positions) for entry in entries],
        texts,
        max_bytes=max_bytes,
        chunk_bytes=chunk_bytes,
        seed=seed,
        kind=kind_of_all([entry.model.kind for entry in entries]),
    )
    source = MeasuredSource(protocol, entries[0], progress, lend=len(entries) > 1)
    results = [source.own_result()]
    for i, entry in enumerate(entries[1:], 1):
        twin = next((j for j in range(1, i) if _same(entries[j], entry)), None)
        result = source.result(entry) if twin is None else replace(results[twin], name=entry.name)
        results.append(result)
    for i, entry in enumerate(entries if generate else ()):
        if not isinstance(entry.model, Generator) or entry.model.kind != CAUSAL:
            raise EvaluationError(
                f"{entry.name} cannot generate text; evaluate it without generation"
            )
        generation = measure_generation(
            entry.model, entry.vocabulary, n=generate, seed=seed, name=entry.name, progress=progress
        )
        results[i] = replace(results[i], generation=generation)
    chunks = first_bytes(protocol.chunks, n_exact_bytes) if by_bytes else []
    for i, (entry, model) in enumerate(zip(entries, by_bytes, strict=False)):
        exact = exact_bytes(model, entry.vocabulary, chunks, name=entry.name, progress=progress)
        results[i] = replace(results[i], exact_bytes=exact)
    return protocol.table(results)


def _models_of_bytes(entries: Sequence[Entry]) -> list[LanguageModel]:
    """Return the models of all entries, each of which can say what the next byte is."""
    found = []
    for entry in entries:
        if not isinstance(entry.model, LanguageModel) or entry.model.kind != CAUSAL:
            raise EvaluationError(
                f"{entry.name} says nothing of the next byte; give a causal model"
            )
        if entry.vocabulary.start_id is None:
            raise EvaluationError(
                f"{entry.name} has neither BOS nor EOS, so nothing predicts the first byte; leave "
                "exact bytes out"
            )
        found.append(entry.model)
    return found


def _same(one: Entry, two: Entry) -> bool:
    return one.model is two.model and one.vocabulary is two.vocabulary


def evaluate_checkpoint(
    path: str | Path,
    texts: Sequence[str | Path] | Corpus,
    against: str | Path | None = None,
    *,
    field: str = "text",
    max_bytes: int | None = DEFAULT_MAX_BYTES,
    chunk_bytes: int | None = None,
    seed: int = 0,
    generate: int = 0,
    n_exact_bytes: int = 0,
    device: str = "cpu",
    dtype: str = "float32",
    trust_remote_code: bool = False,
    allow_seen_text: bool = False,
    allow_invalid_text: bool = False,
    progress: Progress = no_progress,
) -> Evaluation:
    """Load a checkpoint, and the one to compare it with, and measure both.

    Parameters
    ----------
    path : str or Path
        A checkpoint with its own tokenizer.
    texts : sequence of str or Path, or Corpus
        Files, folders or globs; see `tokensurgeon.text.read_corpus`.
    against : str, Path or None
        Another checkpoint, mostly the source of `path`; it comes first in the table, and tokens
        of `path` are split into those it has and those it lacks.
    field : str
        The key that holds the text in JSON objects.
    max_bytes, chunk_bytes, seed, generate, n_exact_bytes
        As in `evaluate`.
    device, dtype : str
        Of the forward passes.
    trust_remote_code : bool
    allow_seen_text : bool
        Measure on text that a vocabulary was trained on.
    allow_invalid_text : bool
        Measure on text of which more than 1 % is not UTF-8; it counts as U+FFFD.
    progress : callable(done, total, what)

    Returns
    -------
    Evaluation
        Entries in the order ``against``, ``path``; each named by its path.

    Raises
    ------
    CheckpointError
        If there is no such checkpoint.
    UsageError
        If a vocabulary was trained on the text, as far as its folder says.
    """
    device = shared_work().device(device)
    for folder in (path,) if against is None else (against, path):
        find_folder(folder)  # before the text is read: the two may stand in each other's place
    corpus = texts
    if not isinstance(corpus, Corpus):
        corpus = read_to_measure(
            corpus, max_bytes=max_bytes, field=field, allow_invalid=allow_invalid_text
        )
    entries: list[Entry] = []
    for folder in (path,) if against is None else (against, path):
        vocabulary = load_vocabulary(folder)
        refuse_seen(vocabulary.folder, corpus.texts, allow_seen_text)
        alignment = None
        if entries and vocabulary.fingerprint != entries[0].vocabulary.fingerprint:
            alignment = align(entries[0].vocabulary, vocabulary)
        model = load_model(folder, device=device, dtype=dtype, trust_remote_code=trust_remote_code)
        again = " (again)" if entries and entries[0].name == str(folder) else ""
        entries.append(Entry(f"{folder}{again}", model, vocabulary, alignment))
    evaluation = evaluate(
        entries,
        corpus.texts,
        max_bytes=max_bytes,
        chunk_bytes=chunk_bytes,
        seed=seed,
        generate=generate,
        n_exact_bytes=n_exact_bytes,
        progress=progress,
    )
    notes = dict.fromkeys(note for entry in entries for note in entry.vocabulary.notes)
    return replace(evaluation, n_replaced=corpus.n_replaced, notes=tuple(notes))
