"""What healing reads: chunks under the target's tokenizer, in padded batches.

Chunks are short, for attention costs most where sequences are long, and rows are learnt as well
from short ones. A batch holds chunks of about one length; the order of batches is drawn anew for
each pass over the text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tokensurgeon.arrays import Ids, Mask
from tokensurgeon.errors import EvaluationError
from tokensurgeon.text.chunks import Chunk
from tokensurgeon.text.encoding import Encoded, fitting_chunks
from tokensurgeon.vocabulary import Vocabulary

LONGEST_CHUNK = 256
"""In bytes: some 60 tokens, at which attention costs little beside the rest."""


@dataclass(frozen=True)
class TrainingText:
    """Chunks under one tokenizer, each with its prefix.

    Attributes
    ----------
    chunks : tuple of Chunk
        Those that the tokenizer spells without loss and that fit the model.
    sequences : tuple of int64 arrays
        Their ids, the prefix first.
    ends : tuple of int64 arrays
        Where in the chunk's UTF-8 each id ends, the prefix left out.
    """

    chunks: tuple[Chunk, ...]
    sequences: tuple[Ids, ...]
    ends: tuple[Ids, ...]

    @classmethod
    def read(
        cls, vocabulary: Vocabulary, texts: Sequence[str], max_positions: int | None
    ) -> TrainingText:
        """Cut texts into chunks and tokenise them.

        Raises
        ------
        EvaluationError
            If no chunk is left to train on.
        """
        chunks, encoded, fits = fitting_chunks(
            vocabulary, texts, max_positions, longest=LONGEST_CHUNK
        )
        usable = fits & encoded.lossless
        usable &= np.array([len(ids) + len(encoded.prefix) > 1 for ids in encoded.ids], np.bool_)
        if not usable.any():
            raise EvaluationError(
                f"none of {len(chunks):,} chunks of text can be trained on: the tokenizer loses "
                "text on them, or the model has too few positions; give other text"
            )
        usable_ids = np.flatnonzero(usable).tolist()
        return cls(
            chunks=tuple(chunks[i] for i in usable_ids),
            sequences=tuple(_with_prefix(encoded, i) for i in usable_ids),
            ends=tuple(encoded.ends[i] for i in usable_ids),
        )

    @property
    def n_tokens(self) -> int:
        """Number of ids that one pass is scored on."""
        return sum(len(one) - 1 for one in self.sequences)

    def batches(self, rng: np.random.Generator, n_tokens: int) -> Iterator[list[int]]:
        """Yield one pass: lists of chunks of about one length, of at most `n_tokens` padded ids."""
        lengths = np.array([len(one) for one in self.sequences])
        # Neighbours in length change from pass to pass, so that batches do.
        order = np.argsort(lengths + rng.uniform(0, 8, lengths.size), kind="stable")
        batches: list[list[int]] = []
        longest = 0
        for i in order.tolist():
            longest = max(longest, int(lengths[i]))
            if batches and (len(batches[-1]) + 1) * longest <= n_tokens:
                batches[-1].append(i)
            else:
                batches.append([i])
                longest = int(lengths[i])
        for number in rng.permutation(len(batches)):
            yield batches[number]

    def passes(self, rng: np.random.Generator, n_tokens: int) -> Iterator[list[int]]:
        """Yield the batches of one pass after another, without end."""
        while True:
            yield from self.batches(rng, n_tokens)

    def padded(self, batch: Sequence[int]) -> tuple[Ids, Mask]:
        """Return the ids of a batch, padded on the right, and where they are real."""
        return padded([self.sequences[i] for i in batch])


def padded(sequences: Sequence[Sequence[int] | Ids]) -> tuple[Ids, Mask]:
    """Return ids of sequences, padded on the right, and where they are real."""
    longest = max(map(len, sequences))
    ids = np.empty((len(sequences), longest), dtype=np.int64)
    real = np.zeros(ids.shape, dtype=np.bool_)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = sequence
        # Not an id of its own: a row that the text does not have must not be touched.
        ids[row, len(sequence) :] = sequence[-1]
        real[row, : len(sequence)] = True
    return ids, real


def _with_prefix(encoded: Encoded, number: int) -> Ids:
    return np.concatenate([np.array(encoded.prefix, dtype=np.int64), encoded.ids[number]])
