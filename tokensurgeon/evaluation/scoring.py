"""Score chunks under one model: the negative log-likelihood of every token, and of every chunk.

A chunk is tokenised whole and scored whole after the prefix (BOS, else EOS, else nothing); the end
of the text is not scored. Models of other kinds are asked as `model_kinds` says. Losses are in
nats. What is *compared* (bits per byte, intervals) is computed from `Scores` elsewhere; this module
knows one model at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from tokensurgeon.arrays import Float64, Ids, Mask
from tokensurgeon.checkpoint.embeddings import CAUSAL, ENCODER_DECODER, MASKED
from tokensurgeon.errors import EvaluationError
from tokensurgeon.evaluation.model_kinds import decoder_losses, frame_of, masked_losses
from tokensurgeon.evaluation.shared_work import shared_work
from tokensurgeon.models.batches import batches_by_length
from tokensurgeon.progress import Progress, no_progress
from tokensurgeon.text.chunks import Chunk
from tokensurgeon.text.encoding import Encoded, encode_chunks
from tokensurgeon.vocabulary import Vocabulary

TOKENS_PER_CALL = 16_384
"""Handed to the model at once, between two reports of progress; it sees to its own memory."""


class Scorer(Protocol):
    """What is asked of a model; `tokensurgeon.models.LanguageModel` is one."""

    @property
    def kind(self) -> str:
        """As `Layout.kind`; `model_kinds` says what is asked of others than causal models."""

    @property
    def max_positions(self) -> int | None:
        """The longest sequence it takes, or None."""

    def nll(self, batch: Sequence[Sequence[int]]) -> Sequence[Float64]:
        """Return for each list the loss in nats of each id but the first, given those before."""
        ...


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

    nll: Float64
    n_bytes: Ids
    n_tokens: Ids
    document: Ids
    comparable: Mask
    lost: Mask
    token_ids: tuple[Ids, ...]
    token_nll: tuple[Float64, ...]
    token_ends: tuple[Ids, ...] = ()
    start: Ids = field(default_factory=lambda: np.zeros(0, dtype=np.int64))


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
        longest = chunk.n_bytes // 2 if half else max(int(own[0]) for own in ends)
        common = set(ends[0].tolist()).intersection(*(own.tolist() for own in ends[1:]))
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
        encoded = encode_chunks(vocabulary, chunks, frame_of(vocabulary, model.kind))
    if skip is None:
        skip = left_out_bytes([encoded], chunks, model.kind)
    # Where a tokenizer loses text, the loss belongs to another text.
    fitting = encoded.fits(model.max_positions) & encoded.lossless
    fitting &= np.array([len(ids) > 0 for ids in encoded.ids], np.bool_)
    share = shared_work()
    chosen = share.own(np.flatnonzero(fitting if keep is None else fitting & keep))
    losses: dict[int, Float64] = {}
    # Of other kinds each chunk is work enough to report.
    limit = TOKENS_PER_CALL if model.kind == CAUSAL else 1
    lengths = [len(encoded.prefix) + len(encoded.ids[i]) for i in chosen]
    for members in batches_by_length(lengths, limit):
        batch = chosen[members].tolist()
        if model.kind == CAUSAL:
            of_batch = model.nll(encoded.sequences(np.array(batch)))
        elif model.kind == MASKED:
            of_batch = [masked_losses(model, vocabulary, chunks[i].text, encoded, i) for i in batch]
        else:
            of_batch = [decoder_losses(model, encoded, i, int(skip[i])) for i in batch]
        for i, loss in zip(batch, of_batch, strict=True):
            losses[i] = _checked(loss, encoded, i, name)
        progress(len(losses), len(chosen), f"scoring {name}")
    return _scores(chunks, encoded, skip, share.gathered(losses))


def _checked(loss: Float64, encoded: Encoded, i: int, name: str) -> Float64:
    """Return the losses of a chunk's tokens, one each and all finite."""
    ids = encoded.ids[i][0 if encoded.prefix else 1 :]
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
    return values


def _scores(
    chunks: Sequence[Chunk], encoded: Encoded, skip: Ids, losses: Mapping[int, Float64]
) -> Scores:
    """Return the scores from the losses of chunks, without their first `skip` bytes.

    A first token without bytes, such as a lone word marker, is scored where nothing is left out.
    """
    first = 0 if encoded.prefix else 1
    nothing = np.zeros(0, dtype=np.bool_)
    scored = [
        (encoded.ends[i][first:] > skip[i]) | (skip[i] == 0) if i in losses else nothing
        for i in range(len(chunks))
    ]

    def of_scored(values: Sequence[Ids]) -> tuple[Ids, ...]:
        return tuple(
            own[first:][at] if at.size else own[:0] for own, at in zip(values, scored, strict=True)
        )

    token_nll = tuple(losses[i][at] if i in losses else np.zeros(0) for i, at in enumerate(scored))
    n_bytes = np.array(
        [max(0, c.n_bytes - int(skip[i])) if i in losses else 0 for i, c in enumerate(chunks)],
        dtype=np.int64,
    )
    return Scores(
        nll=np.array([own.sum() for own in token_nll], dtype=np.float64),
        n_bytes=n_bytes,
        n_tokens=np.array([at.sum() for at in scored], dtype=np.int64),
        document=np.array([chunk.document for chunk in chunks], dtype=np.int64),
        comparable=n_bytes > 0,
        lost=~encoded.lossless,
        token_ids=of_scored(encoded.ids),
        token_nll=token_nll,
        token_ends=of_scored(encoded.ends),
        start=np.asarray(skip, dtype=np.int64),
    )
