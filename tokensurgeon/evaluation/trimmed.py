"""What a model computes with fewer vocabulary rows, beside the whole model: laws, and figures.

Where an encoding stays as it was, the states do, and so do the logits of the rows that are left.
The softmax is over fewer rows. So each token loses ``-log(mass)`` less, where the mass is the
probability that the source gave to the rows that are left: the loss can only fall. Both sides of
that equation are measured, one from the source's logits and one from the trimmed model's.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tokensurgeon.arrays import Float32, Float64, Ids, blocks
from tokensurgeon.checkpoint.embeddings import CAUSAL, HEADLESS
from tokensurgeon.errors import EvaluationError
from tokensurgeon.evaluation.metrics import bits_per_byte
from tokensurgeon.models import LanguageModel
from tokensurgeon.progress import Clock, Progress, no_progress
from tokensurgeon.text.chunks import Chunk
from tokensurgeon.text.encoding import encode_chunks
from tokensurgeon.vocabulary import Vocabulary

LOGITS_AT_ONCE = 1 << 26
"""Most logits of a sequence, 256 MiB: 256 tokens over the largest vocabularies there are."""
SHORTEST = 8
"""Tokens that a sequence is cut to at the least, however many rows there are."""
LOGITS_IN_DOUBLE = 1 << 22
"""Logits whose sum is taken at once in float64."""


@dataclass(frozen=True)
class TokenSequence:
    """The ids of a text as a model takes them, and how many bytes their losses are of.

    `ids` are whole encodings, the tokens around the text included; `n_bytes` counts those of the
    tokens after the first.
    """

    ids: tuple[int, ...]
    n_bytes: int


@dataclass(frozen=True)
class Proof:
    """Two models on the same sequences, one with a part of the other's rows.

    Attributes
    ----------
    compared : str
        ``logits`` at the kept ids, or ``states`` (of a model without output rows).
    n_sequences, n_tokens : int
    max_difference, largest : float
        The largest absolute difference of what is compared, and the largest absolute value.
    seconds_before, seconds_after : float
        Per token of a forward pass, on the same sequences in turn.
    bits_before, bits_kept, bits_after : float or None
        Bits per byte of the source, of the source over the kept rows alone, and of the trimmed
        model; of a causal model.
    max_loss_difference : float or None
        The largest difference of a token's loss between the latter two, in nats.
    max_rise : float or None
        By how much the loss of a token rose at the most, in nats; no more than rounding.
    removed_mass : float or None
        The mean probability that the source gave to the rows that went.
    """

    compared: str
    n_sequences: int
    n_tokens: int
    max_difference: float
    largest: float
    seconds_before: float
    seconds_after: float
    bits_before: float | None = None
    bits_kept: float | None = None
    bits_after: float | None = None
    max_loss_difference: float | None = None
    max_rise: float | None = None
    removed_mass: float | None = None


@dataclass(frozen=True)
class Changes:
    """How often a text is encoded otherwise than before.

    A document, or a line that is not blank, is changed where any token of its whole encoding is.
    `tokens_dropped` counts the tokens of the old encoding that are not kept.
    """

    n_bytes: int
    n_documents: int
    documents_changed: int
    n_lines: int
    lines_changed: int
    tokens_before: int
    tokens_after: int
    tokens_dropped: int


def whole_sequences(
    vocabulary: Vocabulary, chunks: Sequence[Chunk], kind: str, longest: int
) -> list[TokenSequence]:
    """Return chunks as a kind of model reads them, each cut to `longest` tokens.

    A causal model reads them as in an evaluation, after its start token; others read the whole
    encoding of the tokenizer.
    """
    if kind != CAUSAL:
        encodings = vocabulary.tokenizer.encode_batch([chunk.text for chunk in chunks])
        return [TokenSequence(tuple(encoding.ids[:longest]), 0) for encoding in encodings]
    encoded = encode_chunks(vocabulary, chunks)
    found = []
    for ids, ends in zip(encoded.ids, encoded.ends, strict=True):
        taken = min(len(ids), longest - len(encoded.prefix))
        if taken <= 0:
            continue
        n_bytes = int(ends[taken - 1]) - (0 if encoded.prefix else int(ends[0]))
        found.append(TokenSequence((*encoded.prefix, *ids[:taken].tolist()), n_bytes))
    return found


def most_tokens(model: LanguageModel) -> int:
    """Return how many tokens of a sequence are run at the most."""
    afforded = max(SHORTEST, LOGITS_AT_ONCE // max(1, model.n_rows))
    return afforded if model.max_positions is None else min(afforded, model.max_positions)


def prove(
    source: LanguageModel,
    trimmed: LanguageModel,
    copied: Ids,
    sequences: Sequence[TokenSequence],
    *,
    most: int,
    seconds: float,
    progress: Progress = no_progress,
) -> Proof:
    """Run both models on sequences of kept tokens, and compare.

    Parameters
    ----------
    source, trimmed : LanguageModel
    copied : int64 (n_trimmed,)
        The source row of each row of the trimmed model, or -1.
    sequences : sequence of TokenSequence
        In the source's ids, all of which are kept.
    most : int
        Tokens that are run at the most; the first sequence is run in any case.
    seconds : float
        Of both models; no sequence is begun later.
    progress : callable(done, total, what)

    Raises
    ------
    EvaluationError
        If there is no sequence, or one has a token that is not kept.
    """
    if not sequences:
        raise EvaluationError("there is no sequence of kept tokens to run; give more text")
    new = {int(old): i for i, old in enumerate(copied.tolist()) if old >= 0}
    kept = np.flatnonzero(copied >= 0)
    headless, causal = source.kind == HEADLESS, source.kind == CAUSAL
    clock, run = Clock(seconds), 0
    took = [0.0, 0.0]
    difference = largest = 0.0
    losses: list[list[Float64]] = [[], [], []]
    removed: list[Float64] = []
    n_bytes = n_sequences = 0
    for number, sequence in enumerate(sequences):
        if number and (clock.over or run + len(sequence.ids) > most):
            break
        if any(old not in new for old in sequence.ids):
            raise EvaluationError("a sequence has a token that is not kept; give another text")
        given = list(sequence.ids), [new[old] for old in sequence.ids]
        if not number:  # the first pass also allocates
            _ = source.logits(given[0][:SHORTEST]), trimmed.logits(given[1][:SHORTEST])
        results: list[Float32] = []
        for which, model in enumerate((source, trimmed)):
            start = time.perf_counter()
            results.append(model.logits(given[which]))
            took[which] += time.perf_counter() - start
        before, after = results
        at_kept = before if headless else before[..., copied[kept]]
        now = after if headless else after[..., kept]
        largest = max(largest, float(np.abs(at_kept).max(initial=0.0)))
        difference = max(difference, float(np.abs(at_kept - now).max(initial=0.0)))
        if not headless:
            whole, part = _logsumexp(before), _logsumexp(at_kept)
            removed.append(-np.expm1(np.minimum(part - whole, 0.0)))
            if causal:
                goals, own = np.array(given[0][1:]), np.array(given[1][1:])
                places = np.arange(len(goals))
                logit = before[places, goals].astype(np.float64)
                losses[0].append(whole[:-1] - logit)
                losses[1].append(part[:-1] - logit)
                losses[2].append(_logsumexp(after)[:-1] - after[places, own])
        n_bytes += sequence.n_bytes
        n_sequences += 1
        run += len(sequence.ids)
        progress(run, min(most, sum(len(one.ids) for one in sequences)), "comparing logits")
    proof = Proof(
        compared="states" if headless else "logits",
        n_sequences=n_sequences,
        n_tokens=run,
        max_difference=difference,
        largest=largest,
        seconds_before=took[0] / run,
        seconds_after=took[1] / run,
        removed_mass=float(np.concatenate([r.ravel() for r in removed]).mean())
        if removed
        else None,
    )
    if not causal:
        return proof
    of_source, of_kept, of_trimmed = (np.concatenate(own) for own in losses)
    return _with_losses(proof, of_source, of_kept, of_trimmed, n_bytes)


def _with_losses(
    proof: Proof, before: Float64, kept: Float64, after: Float64, n_bytes: int
) -> Proof:
    """Return the proof with what the losses of the tokens say."""
    bits = [bits_per_byte(own.sum(), n_bytes) if n_bytes else None for own in (before, kept, after)]
    return replace(
        proof,
        bits_before=bits[0],
        bits_kept=bits[1],
        bits_after=bits[2],
        max_loss_difference=float(np.abs(kept - after).max(initial=0.0)),
        max_rise=float((after - before).max(initial=0.0)),
    )


def _logsumexp(logits: Float32) -> Float64:
    """Return the logsumexp over the last axis, in float64, a few rows at a time."""
    flat = logits.reshape(-1, logits.shape[-1])
    sums = np.empty(len(flat))
    for part in blocks(len(flat), LOGITS_IN_DOUBLE // max(1, flat.shape[1])):
        own = flat[part].astype(np.float64)
        top = own.max(axis=1, keepdims=True)
        sums[part] = top[:, 0] + np.log(np.exp(own - top).sum(axis=1))
    return sums.reshape(logits.shape[:-1])


def encoding_changes(
    source: Vocabulary, trimmed: Vocabulary, copied: Ids, texts: Sequence[str]
) -> Changes:
    """Return how often texts are encoded otherwise with the tokens that are left.

    Parameters
    ----------
    source, trimmed : Vocabulary
    copied : int64 (n_trimmed,)
        The source id of each id, or -1.
    texts : sequence of str
        Documents.
    """
    old = copied.tolist()
    kept = set(old)
    lines = [line for text in texts for line in text.splitlines() if line.strip()]
    changed, counts = [0, 0], [0, 0, 0]
    for which, units in enumerate((list(texts), lines)):
        both = (v.tokenizer.encode_batch_fast(units) for v in (source, trimmed))
        for before, after in zip(*both, strict=True):
            changed[which] += [old[i] for i in after.ids] != before.ids
    both = (
        v.tokenizer.encode_batch_fast(texts, add_special_tokens=False) for v in (source, trimmed)
    )
    for before, after in zip(*both, strict=True):
        counts[0] += len(before.ids)
        counts[1] += len(after.ids)
        counts[2] += sum(i not in kept for i in before.ids)
    return Changes(
        n_bytes=sum(len(text.encode("utf-8")) for text in texts),
        n_documents=len(texts),
        documents_changed=changed[0],
        n_lines=len(lines),
        lines_changed=changed[1],
        tokens_before=counts[0],
        tokens_after=counts[1],
        tokens_dropped=counts[2],
    )
