"""Where the tokens of two tokenizers lie on the same text, in bytes.

A `Track` lays the chunks of a text end to end on one line of byte offsets, with a gap after each
chunk, and says which state of a model stands before and after each token. Two tracks over the same
chunks meet at their common boundaries: there a state of the one model and a state of the other
have read the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tokensurgeon.evaluation.scoring import Encoded
from tokensurgeon.text.chunks import Chunk

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Track:
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


def make_track(encoded: Encoded, chunks: Sequence[Chunk]) -> Track:
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
    first = np.concatenate([[prefix == 0] + [False] * (len(s) - 1) for s in states if len(s)])
    before = np.where(first, -1, after - 1) if len(after) else after
    line, line_states = _joined(edges), _joined(edge_states)
    last = np.append(line[1:] != line[:-1], True) if len(line) else np.zeros(0, dtype=bool)
    return Track(
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


def meetings(one: Track, other: Track) -> tuple[Ids, Ids]:
    """Return the states of both tracks at their common boundaries, int64 (n_meetings,) each."""
    _, here, there = np.intersect1d(
        one.boundaries, other.boundaries, assume_unique=True, return_indices=True
    )
    return one.boundary_states[here], other.boundary_states[there]


def state_at(track: Track, offsets: Ids) -> Ids:
    """Return the state at each offset, or -1 where the track has no boundary."""
    if not len(track.boundaries):
        return np.full(len(offsets), -1, dtype=np.int64)
    place = np.searchsorted(track.boundaries, offsets)
    place = np.minimum(place, len(track.boundaries) - 1)
    return np.where(track.boundaries[place] == offsets, track.boundary_states[place], -1)
