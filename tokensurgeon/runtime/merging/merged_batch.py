"""A batch whose tokens were merged: ids, the pieces of merged ones, and the way back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tokensurgeon.arrays import Ids

Pieces = tuple[int, ...]
"""Ids of the model's own vocabulary, two or more, in order."""
Span = tuple[int, int]
"""Where pieces stand in a sequence: the first index, and the one after the last."""


@dataclass(frozen=True)
class MergedBatch:
    """Sequences of ids in which adjacent tokens were merged.

    Attributes
    ----------
    sequences : tuple of int64 (n_tokens,)
        Ids below `n_own` are the model's own; id ``n_own + i`` is the merged token `i`.
    merged : tuple of tuples of int
        The pieces of each merged token. No two are alike; shorter ones come first, then lower ids.
    n_own : int
        Rows of the model.
    n_merges : int
        Pairs that were merged, where a policy merges pairs; else the merged tokens.
    """

    sequences: tuple[Ids, ...]
    merged: tuple[Pieces, ...]
    n_own: int
    n_merges: int

    @classmethod
    def of_spans(
        cls,
        sequences: Sequence[Sequence[int]],
        spans: Sequence[Sequence[Span]],
        n_own: int,
        n_merges: int | None = None,
    ) -> MergedBatch:
        """Put one merged token in the place of each span.

        Parameters
        ----------
        sequences : sequence of sequences of int
            The model's own ids.
        spans : sequence of sequences of (start, end)
            Of each sequence; ascending, none overlaps another.
        n_own : int
        n_merges : int, optional
            The number of merged tokens if None.
        """
        found = {tuple(ids[a:b]) for ids, own in zip(sequences, spans, strict=True) for a, b in own}
        merged = sorted(found, key=lambda pieces: (len(pieces), pieces))
        id_of = {pieces: n_own + i for i, pieces in enumerate(merged)}
        shorter: list[Ids] = []
        for ids, own in zip(sequences, spans, strict=True):
            row: list[int] = []
            end = 0
            for a, b in own:
                row.extend(ids[end:a])
                row.append(id_of[tuple(ids[a:b])])
                end = b
            row.extend(ids[end:])
            shorter.append(np.array(row, dtype=np.int64))
        count = len(merged) if n_merges is None else n_merges
        return cls(tuple(shorter), tuple(merged), n_own, count)

    def pieces_of(self, token: int) -> Pieces:
        """Return the model's own ids that a token stands for: of one of its own, itself."""
        return (token,) if token < self.n_own else self.merged[token - self.n_own]

    def unmerged(self) -> list[list[int]]:
        """Return the ids as they were before."""
        return [
            [piece for token in sequence.tolist() for piece in self.pieces_of(token)]
            for sequence in self.sequences
        ]

    @cached_property
    def _counts(self) -> Ids:
        return np.array([len(pieces) for pieces in self.merged], dtype=np.int64)

    def n_pieces(self, sequence: Ids) -> Ids:
        """Return of how many pieces each token of a sequence is, int64 (n_tokens,)."""
        counts = np.ones(len(sequence), dtype=np.int64)
        is_merged = sequence >= self.n_own
        counts[is_merged] = self._counts[sequence[is_merged] - self.n_own]
        return counts

    @property
    def n_before(self) -> int:
        """Tokens before merging, over all sequences."""
        return sum(int(self.n_pieces(sequence).sum()) for sequence in self.sequences)

    @property
    def n_after(self) -> int:
        """Tokens after merging."""
        return sum(map(len, self.sequences))

    @property
    def saving(self) -> float:
        """Share of the tokens that merging saved."""
        before = self.n_before
        return 1.0 - self.n_after / before if before else 0.0
