"""Sequences grouped into batches by their length, so that little or nothing is padded."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from tokensurgeon.arrays import Ids, blocks

TOKENS_PER_BATCH = 4096
"""Most tokens of one forward pass: enough to keep a processor busy, and states that fit anywhere.

At a width of 4096 the states of one layer take 64 MiB.
"""


ENOUGH_TOKENS = 512
"""Of a forward pass: a processor is as fast with them as with more."""
MOST_PADDING = 1.04
"""Padded tokens by real ones, where a pass has enough of them. On SmolLM2-135M, passes of 4,096
tokens of chunks of 120 to 280 tokens took 28 % more processor time than passes of 512 tokens did,
and these 4 % more than one chunk at a time."""


def batches_of_one_length(ids: Sequence[Sequence[int]]) -> Iterator[Ids]:
    """Yield members of equal length, at most `TOKENS_PER_BATCH` at once; empty ones never."""
    lengths = np.array([len(sequence) for sequence in ids], dtype=np.int64)
    for length in np.unique(lengths[lengths > 0]):
        members = np.flatnonzero(lengths == length)
        for block in blocks(len(members), TOKENS_PER_BATCH // int(length)):
            yield members[block]


def batches_by_length(
    lengths: Sequence[int], limit: int, most_padding: float = math.inf
) -> Iterator[list[int]]:
    """Yield members, shortest first, at most `limit` tokens with their padding at once.

    Where `ENOUGH_TOKENS` are together, no member comes to them that would make the padded batch
    more than `most_padding` times the real one.
    """
    members: list[int] = []
    real = 0
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        padded = lengths[i] * (len(members) + 1)
        wasteful = real >= ENOUGH_TOKENS and padded > most_padding * (real + lengths[i])
        if members and (padded > limit or wasteful):
            yield members
            members, real = [], 0
        members.append(i)
        real += lengths[i]
    if members:
        yield members


def padded_batches(
    ids: Sequence[Sequence[int]], limit: int = TOKENS_PER_BATCH, shortest: int = 1
) -> Iterator[tuple[list[int], list[list[int]]]]:
    """Yield members by length, at most `limit` tokens with their padding, and the padded batch.

    A sequence is padded on the right, with its last id, where a causal model's earlier positions
    cannot look. Sequences below the length `shortest` are left out.
    """
    long = [i for i, sequence in enumerate(ids) if len(sequence) >= shortest]
    for batch in batches_by_length([len(ids[i]) for i in long], limit, MOST_PADDING):
        members = [long[i] for i in batch]
        longest = len(ids[members[-1]])
        yield members, [[*ids[i], *[ids[i][-1]] * (longest - len(ids[i]))] for i in members]
