"""Measure several models on one text: the source first, the plain baselines beside.

`evaluate` works on models in memory; `evaluate_checkpoints` loads finished checkpoints, the first
and one other at a time. All models are scored on the same bytes. A tokenizer that loses text on a
chunk is not comparable there: the chunk is left out of its figure and counted; a chunk that does
not fit one of the models is left out for all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from tokensurgeon.alignment import align
from tokensurgeon.checkpoint import Checkpoint
from tokensurgeon.checkpoint.embeddings import CAUSAL
from tokensurgeon.checkpoint.files import find_folder
from tokensurgeon.errors import EvaluationError
from tokensurgeon.evaluation.exact_bytes import exact_bytes, first_bytes
from tokensurgeon.evaluation.generation import Generation, Generator, measure_generation
from tokensurgeon.evaluation.measured_source import MeasuredSource
from tokensurgeon.evaluation.model_kinds import kind_of_all
from tokensurgeon.evaluation.protocol import DEFAULT_MAX_BYTES, Entry, EvaluationProtocol
from tokensurgeon.evaluation.shared_work import shared_work
from tokensurgeon.evaluation.table import EntryResult, Evaluation
from tokensurgeon.models import LanguageModel, load_model
from tokensurgeon.progress import Progress, no_progress
from tokensurgeon.text.chunks import Chunk
from tokensurgeon.text.corpus import Corpus, read_to_measure
from tokensurgeon.text.grouped import By, read_grouped
from tokensurgeon.text.seen import refuse_seen
from tokensurgeon.vocabulary import Vocabulary, load_vocabulary


def evaluate(
    entries: Sequence[Entry],
    texts: Sequence[str],
    *,
    max_bytes: int | None = DEFAULT_MAX_BYTES,
    chunk_bytes: int | None = None,
    seed: int = 0,
    generate: int = 0,
    n_exact_bytes: int = 0,
    generators: int | None = None,
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
    generators : int or None
        Let only so many models write, the first ones; None lets all.
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
    for entry in entries if n_exact_bytes else ():
        _check_reads_bytes(entry.name, getattr(entry.model, "kind", ""), entry.vocabulary)
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
    more = _More(protocol, n_exact_bytes, seed, progress)
    for i, entry in enumerate(entries):
        n = generate if generators is None or i < generators else 0
        results[i] = more.beside(results[i], entry, results[0].generation, n)
    return protocol.table(results)


@dataclass(frozen=True)
class _More:
    """What is measured beside the loss: text that a model writes, and exact bytes of chunks."""

    protocol: EvaluationProtocol
    n_exact_bytes: int
    seed: int
    progress: Progress

    def beside(
        self, result: EntryResult, entry: Entry, first: Generation | None, n: int
    ) -> EntryResult:
        """Return a result with `n` samples beside the first model's, and exact bytes, if asked."""
        if n:
            result = _with_generation(result, entry, first, n, self.seed, self.progress)
        if self.n_exact_bytes:
            result = _with_exact_bytes(result, entry, self._first, self.progress)
        return result

    @cached_property
    def _first(self) -> Sequence[Chunk]:
        """The chunks whose bytes are measured exactly, the same for all."""
        return first_bytes(self.protocol.chunks, self.n_exact_bytes)


def _with_generation(
    result: EntryResult,
    entry: Entry,
    first: Generation | None,
    n: int,
    seed: int,
    progress: Progress,
) -> EntryResult:
    """Let a model write samples, and add what is saved on them beside the first model's."""
    if not isinstance(entry.model, Generator) or entry.model.kind != CAUSAL:
        raise EvaluationError(f"{entry.name} cannot generate text; evaluate it without generation")
    generation = measure_generation(
        entry.model, entry.vocabulary, n=n, seed=seed, name=entry.name, progress=progress
    )
    return replace(result, generation=generation if first is None else generation.beside(first))


def _check_reads_bytes(name: str, kind: str, vocabulary: Vocabulary) -> None:
    """Refuse, before anything is measured, what says nothing of the next byte."""
    if kind != CAUSAL:
        raise EvaluationError(f"{name} says nothing of the next byte; give a causal model")
    if vocabulary.start_id is None:
        raise EvaluationError(
            f"{name} has neither BOS nor EOS, so nothing predicts the first byte; leave exact "
            "bytes out"
        )


def _with_exact_bytes(
    result: EntryResult, entry: Entry, chunks: Sequence[Chunk], progress: Progress
) -> EntryResult:
    if not isinstance(entry.model, LanguageModel):
        raise EvaluationError(f"{entry.name} has no next tokens to ask for; leave exact bytes out")
    exact = exact_bytes(entry.model, entry.vocabulary, chunks, name=entry.name, progress=progress)
    return replace(result, exact_bytes=exact)


def _same(one: Entry, two: Entry) -> bool:
    return one.model is two.model and one.vocabulary is two.vocabulary


def evaluate_checkpoint(
    path: str | Path,
    texts: Sequence[str | Path] | Corpus,
    against: str | Path | None = None,
    **settings: Any,
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
    **settings
        As in `evaluate_checkpoints`.

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
    return evaluate_checkpoints([path] if against is None else [against, path], texts, **settings)


def evaluate_checkpoints(
    paths: Sequence[str | Path],
    texts: Sequence[str | Path] | Corpus,
    *,
    by: By | None = None,
    language_field: str = "language",
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
    """Load finished checkpoints, and measure them on the same text beside the first.

    The first is in memory from beginning to end, the others one after another.

    Parameters
    ----------
    paths : sequence of str or Path
        Checkpoints with their own tokenizers. Differences are from the first, mostly the source of
        the others; their tokens are split into those it has and those it lacks.
    texts : sequence of str or Path, or Corpus
        Files, folders or globs; see `tokensurgeon.text.read_corpus`.
    by : 'file', 'language' or None
        Say the figures of each file or language too; see `tokensurgeon.text.read_grouped`. Each
        then has an equal part of `max_bytes`.
    language_field : str
        The key that holds the language of a text in JSON objects.
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
        Entries in the order given, each named by its path.

    Raises
    ------
    CheckpointError
        If there is no such checkpoint.
    EvaluationError
        As `evaluate`.
    UsageError
        If a vocabulary was trained on the text, as far as its folder says.
    """
    if not paths:
        raise EvaluationError("no model was given; give at least one")
    device = shared_work().device(device)
    for folder in paths:
        find_folder(folder)  # before the text is read: the two may stand in each other's place
    corpus = texts
    groups: tuple[str, ...] = ()
    if isinstance(corpus, Corpus) and by is not None:
        raise EvaluationError("a text that is read already has no files to group by; give files")
    if not isinstance(corpus, Corpus):
        if by is None:
            corpus = read_to_measure(
                corpus, max_bytes=max_bytes, field=field, allow_invalid=allow_invalid_text
            )
        else:
            grouped = read_grouped(
                corpus,
                by,
                max_bytes=max_bytes,
                field=field,
                language_field=language_field,
                allow_invalid=allow_invalid_text,
            )
            corpus, groups = grouped.corpus, grouped.groups
    trusts = {"trust_remote_code": trust_remote_code}
    opened = [Checkpoint.open(folder, **trusts) for folder in paths]
    vocabularies = [load_vocabulary(folder) for folder in paths]
    for vocabulary in vocabularies:
        refuse_seen(vocabulary.folder, corpus.texts, allow_seen_text)
    if n_exact_bytes:
        for folder, one, vocabulary in zip(paths, opened, vocabularies, strict=True):
            _check_reads_bytes(str(folder), one.layout.kind, vocabulary)
    protocol = EvaluationProtocol.fix(
        [
            (vocabulary, one.max_positions)
            for vocabulary, one in zip(vocabularies, opened, strict=True)
        ],
        corpus.texts,
        max_bytes=None if groups else max_bytes,  # of groups no more was taken
        chunk_bytes=chunk_bytes,
        seed=seed,
        kind=kind_of_all([one.layout.kind for one in opened]),
        groups=groups,
    )
    results: list[EntryResult] = []
    source: MeasuredSource | None = None
    more = _More(protocol, n_exact_bytes, seed, progress)
    for i, (folder, vocabulary) in enumerate(zip(paths, vocabularies, strict=True)):
        alignment = None
        if i and vocabulary.fingerprint != vocabularies[0].fingerprint:
            alignment = align(vocabularies[0], vocabulary)
        again = " (again)" * [str(one) for one in paths[:i]].count(str(folder))
        model = load_model(folder, device=device, dtype=dtype, **trusts)
        entry = Entry(f"{folder}{again}", model, vocabulary, alignment)
        if source is None:
            source = MeasuredSource(protocol, entry, progress, lend=len(paths) > 1)
        result = source.result(entry) if i else source.own_result()
        first = results[0].generation if i else None
        results.append(more.beside(result, entry, first, generate))
        del model, entry  # before the next is loaded
    notes = dict.fromkeys(note for vocabulary in vocabularies for note in vocabulary.notes)
    return replace(
        protocol.table(results),
        max_bytes=max_bytes,
        n_replaced=corpus.n_replaced,
        notes=tuple(notes),
    )
