"""Tokens by the hidden state that a model has after reading their pieces."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tokensurgeon.spaces.space import Progress, Space, Vectors, made, no_progress

_BATCH = 256

Forward = Callable[[Sequence[Sequence[int]], int], Vectors]


def state_space(
    pieces: Sequence[Sequence[int] | None],
    states: Forward,
    layer: int,
    width: int,
    *,
    prefix: Sequence[int] = (),
    max_positions: int | None = None,
    progress: Progress = no_progress,
) -> Space:
    """Return the state after the last piece of each token.

    Parameters
    ----------
    pieces : sequence of sequences of ids or None, length n
        None is unknown.
    states : callable(ids, layer)
        Returns the state after the last id of each sequence, float32 (len(ids), width).
    layer : int
    width : int
        Width of the states.
    prefix : sequence of int
        What every sequence starts with: BOS, for first tokens are special.
    max_positions : int, optional
        A longer token keeps its last pieces.
    progress : callable(done, total)
    """
    room = None if max_positions is None else max(1, max_positions - len(prefix))
    here = [i for i, row in enumerate(pieces) if row]
    sequences = {i: [*prefix, *_last(pieces[i] or (), room)] for i in here}
    # Like lengths go together: sequences are batched, never padded.
    here.sort(key=lambda i: len(sequences[i]))
    vectors = np.zeros((len(pieces), width), dtype=np.float32)
    known = np.zeros(len(pieces), dtype=bool)
    known[here] = True
    for start in range(0, len(here), _BATCH):
        batch = here[start : start + _BATCH]
        vectors[batch] = states([sequences[i] for i in batch], layer)
        progress(start + len(batch), len(here))
    return made(vectors, known)


def _last(row: Sequence[int], room: int | None) -> Sequence[int]:
    return row if room is None else row[-room:]
