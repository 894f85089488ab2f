"""Where the tokens of a tokenizer lie on a text, in bytes.

`BytePositions` lay the chunks of a text end to end on one line of byte offsets, with a gap after
each chunk, and say which state of a model stands before and after each token. Those of two
tokenizers over the same chunks share boundaries: there a state of the one model and a state of the
other have read the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tokensurgeon.arrays import Ids
from tokensurgeon.text.chunks import Chunk
from tokensurgeon.text.encoding import Encoded


@dataclass(frozen=True)
class BytePositions:
    """The tokens of one tokenizer on a text.

    States are counted as the model gives them: for each chunk one per id, its prefix's first.

    Attributes
    ----------
    sequences : tuple of tuples of int
        What the model is given, one sequence per chunk, the prefix first.
    ids : int64 (n_tokens,)
    starts, ends : int64 (n_tokens,)
        Byte offsets on the common line.
    before, after : int64 (n_tokens,)
        Index of the state that has read all before the token, and of the one that has read it;
        `before` is -1 at the start of a chunk without a prefix.
    n_states : int
    boundaries, boundary_states : int64 (n_boundaries,)
        Offsets at which a state stands, ascending, and that state.
    """

    sequences: tuple[tuple[int, ...], ...]
    ids: Ids
    starts: Ids
    ends: Ids
    before: Ids
    after: Ids
    n_states: int
    boundaries: Ids
    boundary_states: Ids


def positions_of(encoded: Encoded, chunks: Sequence[Chunk]) -> BytePositions:
    """Lay the tokens of `chunks` on one line of byte offsets.

    A token that spells no byte, such as a lone word marker, starts and ends at one offset; of
    several states at one offset the last counts.
    """
    prefix = len(encoded.prefix)
    sequences: list[tuple[int, ...]] = []
    starts: list[Ids] = []
    ends: list[Ids] = []
    states: list[Ids] = []
    edges: list[Ids] = []
    edge_states: list[Ids] = []
    offset = n_states = 0
    for ids, own_ends, chunk in zip(encoded.ids, encoded.ends, chunks, strict=True):
        sequences.append((*encoded.prefix, *ids.tolist()))
        ends.append(offset + own_ends)
        starts.append(offset + np.concatenate([[0], own_ends[:-1]])[: len(ids)])
        after = n_states + prefix + np.arange(len(ids))
        states.append(after)
        if prefix:
            edges.append(np.array([offset]))
            edge_states.append(np.array([n_states + prefix - 1]))
        edges.append(ends[-1])
        edge_states.append(after)
        n_states += prefix + len(ids)
        offset += chunk.n_bytes + 1  # a gap, so that no boundary belongs to two chunks
    after = _joined(states)
    is_first = [[prefix == 0] + [False] * (len(s) - 1) for s in states if len(s)]
    first = np.concatenate([np.zeros(0, dtype=bool), *is_first])
    before = np.where(first, -1, after - 1) if len(after) else after
    line, line_states = _joined(edges), _joined(edge_states)
    last = np.append(line[1:] != line[:-1], True) if len(line) else np.zeros(0, dtype=bool)
    return BytePositions(
        sequences=tuple(sequences),
        ids=_joined(list(encoded.ids)),
        starts=_joined(starts),
        ends=_joined(ends),
        before=before,
        after=after,
        n_states=n_states,
        boundaries=line[last],
        boundary_states=line_states[last],
    )


def _joined(parts: list[Ids]) -> Ids:
    return np.concatenate([np.zeros(0, dtype=np.int64), *parts]).astype(np.int64)


def common_states(one: BytePositions, other: BytePositions) -> tuple[Ids, Ids]:
    """Return the states of both at their common boundaries, int64 (n,) each."""
    _, of_one, of_other = np.intersect1d(
        one.boundaries, other.boundaries, assume_unique=True, return_indices=True
    )
    return one.boundary_states[of_one], other.boundary_states[of_other]


def state_at(positions: BytePositions, offsets: Ids) -> Ids:
    """Return the state at each offset, or -1 where there is no boundary."""
    if not len(positions.boundaries):
        return np.full(len(offsets), -1, dtype=np.int64)
    index = np.searchsorted(positions.boundaries, offsets)
    index = np.minimum(index, len(positions.boundaries) - 1)
    return np.where(positions.boundaries[index] == offsets, positions.boundary_states[index], -1)
