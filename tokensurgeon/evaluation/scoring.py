"""Score chunks under one model: the negative log-likelihood of every token, and of every chunk.

A chunk is tokenised whole and scored whole after the prefix (BOS, else EOS, else nothing); the end
of the text is not scored. Models of other kinds are asked as `kinds` says. Losses are in nats. What
is *compared* (bits per byte, intervals) is computed from `Scores` elsewhere; this module knows one
model at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tokensurgeon.checkpoint.embeddings import CAUSAL, ENCODER_DECODER, MASKED
from tokensurgeon.errors import EvaluationError
from tokensurgeon.evaluation.model_kinds import decoder_losses, frame_of, masked_losses
from tokensurgeon.progress import Progress, no_progress
from tokensurgeon.text.chunks import CHUNK_SIZES, Chunk, chunk_documents
from tokensurgeon.vocabulary import Vocabulary

Floats = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

TOKENS_PER_CALL = 16_384
"""Handed to the model at once; it sees to its own memory."""


class Scorer(Protocol):
    """What is asked of a model; `tokensurgeon.checkpoint.LanguageModel` is one."""

    @property
    def kind(self) -> str:
        """As `tokensurgeon.checkpoint.layout.Layout.kind`; what is asked of others than causal
        models stands in `kinds`.
        """

    @property
    def max_positions(self) -> int | None:
        """The longest sequence it takes, or None."""

    def nll(self, batch: Sequence[Sequence[int]]) -> Sequence[npt.NDArray[Any]]:
        """Return for each list the loss in nats of each id but the first, given those before."""
        ...


@dataclass(frozen=True)
class Encoded:
    """The chunks under one tokenizer.

    Attributes
    ----------
    ids : tuple of int64 (n_tokens,), len n_chunks
    ends : tuple of int64 (n_tokens,), len n_chunks
        Where in the chunk's UTF-8 each token ends.
    lossless : bool (n_chunks,)
        Where the tokens spell the chunk.
    prefix : tuple of int
        Ids that stand before every chunk: BOS, else EOS, else none; of an encoder its start; -1
        of an encoder–decoder, for its decoder's own start, whatever that is.
    suffix : tuple of int
        Ids that stand after it, for an encoder.
    """

    ids: tuple[Ids, ...]
    ends: tuple[Ids, ...]
    lossless: Mask
    prefix: tuple[int, ...]
    suffix: tuple[int, ...] = ()

    def fits(self, max_positions: int | None) -> Mask:
        """Return where prefix, chunk and suffix fit a model, bool (n_chunks,)."""
        around = len(self.prefix) + len(self.suffix)
        lengths = np.array([around + len(ids) for ids in self.ids], dtype=np.int64)
        if max_positions is None:
            return np.ones(len(lengths), dtype=np.bool_)
        return np.asarray(lengths <= max_positions)


@dataclass(frozen=True)
class Scores:
    """Losses of one model on the chunks.

    Attributes
    ----------
    nll : float64 (n_chunks,)
        Sum over the scored tokens, in nats.
    n_bytes, n_tokens : int64 (n_chunks,)
        What was scored; 0 where nothing was.
    document : int64 (n_chunks,)
        Which document each chunk is from.
    comparable : bool (n_chunks,)
        Scored, and its tokens spell the chunk.
    lost : bool (n_chunks,)
        The tokenizer loses text here, so the loss says nothing about the bytes.
    token_ids : tuple of int64, len n_chunks
        The scored tokens.
    token_nll : tuple of float64, len n_chunks
        The loss of each.
    token_ends : tuple of int64, len n_chunks
        The byte of the chunk at which each ends.
    start : int64 (n_chunks,)
        The byte of the chunk at which the first scored token begins.
    """

    nll: Floats
    n_bytes: Ids
    n_tokens: Ids
    document: Ids
    comparable: Mask
    lost: Mask
    token_ids: tuple[Ids, ...]
    token_nll: tuple[Floats, ...]
    token_ends: tuple[Ids, ...] = ()
    start: Ids = field(default_factory=lambda: np.zeros(0, dtype=np.int64))


def encode_chunks(vocabulary: Vocabulary, chunks: Sequence[Chunk], kind: str = CAUSAL) -> Encoded:
    """Tokenise each chunk whole, for a kind of model."""
    prefix, suffix = frame_of(vocabulary, kind)
    encodings = vocabulary.encode_many([chunk.text for chunk in chunks])
    return Encoded(
        ids=tuple(np.asarray(one.ids, dtype=np.int64) for one in encodings),
        ends=tuple(np.asarray(one.ends, dtype=np.int64) for one in encodings),
        lossless=np.array([bool(one.lossless) for one in encodings], dtype=np.bool_),
        prefix=prefix,
        suffix=suffix,
    )


def fitting_chunks(
    vocabulary: Vocabulary,
    texts: Sequence[str],
    max_positions: int | None,
    *,
    longest: int = CHUNK_SIZES[0],
    max_bytes: int | None = None,
) -> tuple[list[Chunk], Encoded, Mask]:
    """Cut texts into the longest chunks that all fit a model; where none does, the shortest.

    Parameters
    ----------
    longest : int
        Bytes of a chunk at most.
    max_bytes : int or None
        Of text.

    Returns
    -------
    chunks, their tokens, and which fit
    """
    for size in (size for size in CHUNK_SIZES if size <= longest):
        chunks = chunk_documents(texts, max_bytes_per_chunk=size, max_bytes_total=max_bytes)
        encoded = encode_chunks(vocabulary, chunks)
        fits = encoded.fits(max_positions)
        if fits.all():
            break
    return chunks, encoded, fits


def left_out_bytes(table: Sequence[Encoded], chunks: Sequence[Chunk], kind: str = CAUSAL) -> Ids:
    """Return how many first bytes of each chunk are scored for nobody, int64 (n_chunks,).

    Of an encoder–decoder about the first half, which its encoder reads.

    None where every model has a prefix. A model without one cannot score its first token; then
    the bytes up to the first border that all tokenizers share, at or after the longest first
    token, are left out for all. Tokenizers that lose text on a chunk have no say there.
    """
    skip = np.zeros(len(chunks), dtype=np.int64)
    half = kind == ENCODER_DECODER
    if all(encoded.prefix for encoded in table) and not half:
        return skip
    for i, chunk in enumerate(chunks):
        ends = [encoded.ends[i] for encoded in table if encoded.lossless[i] and encoded.ids[i].size]
        if not ends:
            continue
        longest = chunk.n_bytes // 2 if half else max(int(one[0]) for one in ends)
        common = set(ends[0].tolist()).intersection(*(one.tolist() for one in ends[1:]))
        skip[i] = min((end for end in common if end >= longest), default=chunk.n_bytes)
    return skip


def score(
    model: Scorer,
    vocabulary: Vocabulary,
    chunks: Sequence[Chunk],
    *,
    encoded: Encoded | None = None,
    keep: Mask | None = None,
    skip: Ids | None = None,
    name: str = "model",
    progress: Progress = no_progress,
) -> Scores:
    """Score chunks under one model.

    Parameters
    ----------
    model : Scorer
    vocabulary : Vocabulary
        The model's own.
    chunks : sequence of Chunk
    encoded : Encoded or None
        The chunks under `vocabulary`; computed if None.
    keep : bool (n_chunks,) or None
        Chunks to score; those that fit the model if None.
    skip : int64 (n_chunks,) or None
        First bytes of each chunk that are not scored (see `left_out_bytes`); they are still read
        by the model.
    name : str
        For messages and progress.
    progress : callable(done, total, what)

    Raises
    ------
    EvaluationError
        If the model lacks a row for an id, returns a loss that is not finite, or a wrong shape.
    """
    if encoded is None:
        encoded = encode_chunks(vocabulary, chunks, model.kind)
    if skip is None:
        skip = left_out_bytes([encoded], chunks, model.kind)
    fits = encoded.fits(model.max_positions)
    wanted = fits if keep is None else keep & fits
    # A chunk that loses text is not worth a forward pass: its loss belongs to another text.
    wanted = wanted & encoded.lossless & np.array([len(ids) > 0 for ids in encoded.ids], np.bool_)
    n = len(chunks)
    nll = np.zeros(n)
    n_bytes = np.zeros(n, dtype=np.int64)
    n_tokens = np.zeros(n, dtype=np.int64)
    token_ids = [np.zeros(0, dtype=np.int64)] * n
    token_nll = [np.zeros(0)] * n
    token_ends = [np.zeros(0, dtype=np.int64)] * n
    done = 0
    for batch in _batches(encoded, np.flatnonzero(wanted), model.kind):
        losses = ask(model, vocabulary, chunks, encoded, skip, batch)
        for i, loss in zip(batch, losses, strict=True):
            first = 0 if encoded.prefix else 1
            ids, ends = encoded.ids[i][first:], encoded.ends[i][first:]
            values = np.asarray(loss, dtype=np.float64)
            if values.shape != ids.shape:
                raise EvaluationError(
                    f"{name} gave {values.size} losses for {ids.size} tokens; "
                    "its nll must leave out the first id only"
                )
            if not np.isfinite(values).all():
                raise EvaluationError(
                    f"{name} gives a loss that is not finite for token "
                    f"{int(ids[~np.isfinite(values)][0])}; look for NaN or infinities in its rows"
                )
            scored = ends > skip[i]
            token_ids[i], token_nll[i] = ids[scored], values[scored]
            token_ends[i] = ends[scored]
            nll[i] = values[scored].sum()
            n_tokens[i] = scored.sum()
            n_bytes[i] = max(0, chunks[i].n_bytes - int(skip[i]))
        done += len(batch)
        progress(done, int(wanted.sum()), f"scoring {name}")
    return Scores(
        nll=nll,
        n_bytes=n_bytes,
        n_tokens=n_tokens,
        document=np.array([chunk.document for chunk in chunks], dtype=np.int64),
        comparable=n_bytes > 0,
        lost=~encoded.lossless,
        token_ids=tuple(token_ids),
        token_nll=tuple(token_nll),
        token_ends=tuple(token_ends),
        start=np.asarray(skip, dtype=np.int64),
    )


def ask(
    model: Scorer,
    vocabulary: Vocabulary,
    chunks: Sequence[Chunk],
    encoded: Encoded,
    skip: Ids,
    batch: Sequence[int],
) -> Sequence[npt.NDArray[Any]]:
    """Return the losses of some chunks' tokens, as the kind of the model is asked for them."""
    if model.kind == CAUSAL:
        return model.nll([[*encoded.prefix, *encoded.ids[i].tolist()] for i in batch])
    if model.kind == MASKED:
        return [masked_losses(model, vocabulary, chunks[i].text, encoded, i) for i in batch]
    return [decoder_losses(model, encoded, i, int(skip[i])) for i in batch]


def _batches(encoded: Encoded, chosen: Ids, kind: str) -> list[list[int]]:
    """Group chunks by length: those of one length can share a forward pass without padding."""
    if kind != CAUSAL:  # each is work enough to report
        return [[int(i)] for i in chosen]
    order = sorted((int(i) for i in chosen), key=lambda i: (len(encoded.ids[i]), i))
    batches: list[list[int]] = []
    for i in order:
        length = len(encoded.ids[i]) + len(encoded.prefix)
        # Sorted by length, so this one is the longest of its batch.
        if batches and (len(batches[-1]) + 1) * length <= TOKENS_PER_CALL:
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches
