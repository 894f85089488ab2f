"""Sequences grouped into batches by their length, so that little or nothing is padded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from tokensurgeon.arrays import Ids, blocks

TOKENS_PER_BATCH = 4096
"""Most tokens of one forward pass: enough to keep a processor busy, and states that fit anywhere.

At a width of 4096 the states of one layer take 64 MiB.
"""


def batches_of_one_length(ids: Sequence[Sequence[int]]) -> Iterator[Ids]:
    """Yield members of equal length, at most `TOKENS_PER_BATCH` at once; empty ones never."""
    lengths = np.array([len(sequence) for sequence in ids], dtype=np.int64)
    for length in np.unique(lengths[lengths > 0]):
        members = np.flatnonzero(lengths == length)
        for block in blocks(len(members), TOKENS_PER_BATCH // int(length)):
            yield members[block]


def batches_by_length(lengths: Sequence[int], limit: int) -> Iterator[list[int]]:
    """Yield members, shortest first, at most `limit` tokens with their padding at once."""
    members: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if members and lengths[i] * (len(members) + 1) > limit:
            yield members
            members = []
        members.append(i)
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
    for batch in batches_by_length([len(ids[i]) for i in long], limit):
        members = [long[i] for i in batch]
        longest = len(ids[members[-1]])
        yield members, [[*ids[i], *[ids[i][-1]] * (longest - len(ids[i]))] for i in members]
