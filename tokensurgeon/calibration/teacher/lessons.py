"""Lessons: what a teacher says of some text, at the states of a student that reads the same."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np

from tokensurgeon.arrays import Float32, Ids, blocks
from tokensurgeon.calibration.byte_positions import BytePositions, positions_of
from tokensurgeon.calibration.teacher.implied import Implied, ImpliedTokens
from tokensurgeon.models.head import shape_logits
from tokensurgeon.models.language_model import LanguageModel
from tokensurgeon.text.chunks import Chunk
from tokensurgeon.text.encoding import encode_chunks
from tokensurgeon.vocabulary.spellings import Spellings

if TYPE_CHECKING:
    import torch

Reads = TypeVar("Reads", contravariant=True)
"""A piece of text as a teacher reads it."""
CHUNKS_AT_ONCE = 4
"""Whose logits are in memory together: some thousand positions times the source's vocabulary."""

WRITTEN_EVERY = 4
"""One chunk of so many ordinary ones is of text that the source wrote."""


@dataclass(frozen=True)
class Lesson:
    """What a teacher says of some text that a student reads.

    Attributes
    ----------
    sequences : tuple of tuples of int
        What the student is given.
    states : int64 (n,)
        Which of its states is to say what the teacher says, counted over all sequences.
    tokens : int64 (n,)
        What follows them in the text.
    implied : Implied
        What the teacher says there.
    """

    sequences: tuple[tuple[int, ...], ...]
    states: Ids
    tokens: Ids
    implied: Implied

    @property
    def n_states(self) -> int:
        """Ids that the student reads."""
        return sum(map(len, self.sequences))


class Teaches(Protocol[Reads]):
    """What gives lessons.

    Attributes
    ----------
    group : int64 (n_target,)
        The token for which each counts where the teacher tells them apart only later; see
        `Spellings.group`.
    """

    group: Ids

    def lesson(self, batch: Sequence[Reads]) -> Lesson:
        """Run the teacher over a few pieces of text."""


class Teacher:
    """Gives lessons of what the source implies.

    Parameters
    ----------
    model : LanguageModel
        The source, or a faster copy.
    spellings : Spellings

    Attributes
    ----------
    group : int64 (n_target,)
    n_tokens : int
        Run through the source so far.
    """

    def __init__(self, model: LanguageModel, spellings: Spellings) -> None:
        self.model, self.spellings = model, spellings
        self.group, self.n_tokens = spellings.group, 0
        self._implied = ImpliedTokens(spellings)

    def lesson(self, batch: Sequence[Chunk]) -> Lesson:
        """Run the source over a few chunks; memory holds its logits at all their tokens."""
        target, implied = self._read(batch)
        at = implied.positions
        return Lesson(target.sequences, target.before[at], target.ids[at], implied)

    def read(self, chunks: Sequence[Chunk]) -> Implied:
        """Return what the source implies on many chunks, positions counted over all of them."""
        parts, n_before = [], 0
        for part in blocks(len(chunks), CHUNKS_AT_ONCE):
            target, implied = self._read(chunks[part])
            parts.append(replace(implied, positions=implied.positions + n_before))
            n_before += len(target.ids)
        return Implied.joined(parts)

    def _read(self, chunks: Sequence[Chunk]) -> tuple[BytePositions, Implied]:
        source, target = (
            positions_of(encode_chunks(vocabulary, chunks), chunks)
            for vocabulary in (self.spellings.source, self.spellings.target)
        )
        states = self.model.all_states(source.sequences, self.model.n_layers)
        self.n_tokens += len(states)
        return target, self._implied.of(source, target, log_probs(self.model, states))


def batches(
    spellings: Spellings,
    chunks: Sequence[Chunk],
    beside: Sequence[Chunk] = (),
    written: Sequence[Chunk] = (),
    *,
    size: int,
    seed: int,
) -> Iterator[list[Chunk]]:
    """Yield batches of chunks, of which one is of those `beside` where these are given.

    Chunks whose tokens the two tokenizers cut differently come first. Those beside, which are
    ordinary text where the others are not, are gone through again and again, and so are chunks that
    the source has `written`: one after every few of ordinary text.
    """
    own = _ordered(spellings, written, seed)
    ordered = _ordered(spellings, chunks, seed)
    if not beside:
        stream = mixed(ordered, own)
        while batch := list(itertools.islice(stream, size)):
            yield batch
        return
    ordinary = itertools.cycle(mixed(_ordered(spellings, beside, seed), own))
    for part in blocks(len(ordered), size - 1):
        yield [*ordered[part], next(ordinary)]


def mixed(chunks: Sequence[Chunk], written: Sequence[Chunk]) -> Iterator[Chunk]:
    """Yield chunks, and one of those written after every few of them."""
    again = itertools.cycle(written)
    for number, chunk in enumerate(chunks, start=1):
        yield chunk
        if number % (WRITTEN_EVERY - 1) == 0:
            yield from itertools.islice(again, 1)


def _ordered(spellings: Spellings, chunks: Sequence[Chunk], seed: int) -> list[Chunk]:
    """Return chunks in an order in which those with many tokens cut differently tend to come first.

    A random order in which a chunk with twice the share is twice as likely to be next.
    """
    shares = []
    for chunk in chunks:
        ends = [
            set(vocabulary.encode_with_bytes(chunk.text).ends)
            for vocabulary in (spellings.source, spellings.target)
        ]
        differ = len(ends[0] ^ ends[1])
        shares.append((1 + differ) / max(1, len(ends[0] | ends[1])))
    draws = np.random.default_rng(seed).exponential(size=len(chunks)) / np.maximum(shares, 1e-9)
    return [chunks[i] for i in np.argsort(draws, kind="stable").tolist()]


def log_probs(model: LanguageModel, states: Float32) -> torch.Tensor:
    """Return next-token log-probabilities after final states, float32 (n, n_rows), on the CPU.

    Products are in the model's own dtype; its logits must be plain products.
    """
    import torch

    outer = model.model.get_output_embeddings()
    with torch.inference_mode():
        given = torch.from_numpy(states).to(outer.weight.device, outer.weight.dtype)
        logits = shape_logits(outer(given).float(), model.logit_scale, model.softcap)
        logits -= logits.logsumexp(1, keepdim=True)
        return logits.cpu()
