"""Tokens by the hidden state that a model has after reading their pieces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from tokensurgeon.arrays import Float32, blocks
from tokensurgeon.spaces.space import Space, row_space
from tokensurgeon.spaces.work import Steps, no_steps

SEQUENCES_AT_ONCE = 256
"""Sequences that one call runs: it bounds memory; the model cuts them into batches of its own."""


class Forward(Protocol):
    """A batched forward pass without gradients."""

    def __call__(
        self,
        ids: Sequence[Sequence[int]],
        layer: int,
        position_ids: Sequence[Sequence[int]] | None = None,
    ) -> Float32:
        """Return the state after the *last* id of each sequence, (len(ids), width) float32.

        `layer` = `n_layers` is the final state after the last norm: what the output rows see.
        Sequences may differ in length; they are batched by length, never padded.
        """


def state_space(
    pieces: Sequence[Sequence[int] | None],
    states: Forward,
    layer: int,
    width: int,
    *,
    prefix: Sequence[int] = (),
    max_positions: int | None = None,
    progress: Steps = no_steps,
) -> Space:
    """Return the state after the last piece of each token.

    Parameters
    ----------
    pieces : sequence of sequences of ids or None, length n
        None is unknown.
    states : callable(ids, layer)
    layer : int
    width : int
        Width of the states.
    prefix : sequence of int
        What every sequence starts with: BOS, for first tokens are special.
    max_positions : int, optional
        A longer token keeps its last pieces.
    progress : callable(done, total)
    """
    index = [token for token, row in enumerate(pieces) if row]
    words = [last_pieces(pieces[token] or (), prefix, max_positions) for token in index]
    vectors = np.zeros((len(pieces), width), dtype=np.float32)
    known = np.zeros(len(pieces), dtype=bool)
    known[index] = True
    sequences = [[*prefix, *word] for word in words]
    vectors[index] = last_states(sequences, states, layer, width, progress=progress)
    return row_space(vectors, known)


def last_states(
    sequences: Sequence[Sequence[int]],
    states: Forward,
    layer: int,
    width: int,
    *,
    positions: Sequence[Sequence[int]] | None = None,
    progress: Steps = no_steps,
) -> Float32:
    """Return the state after the last id of each sequence, float32 (len(sequences), width).

    Like lengths go together, for sequences are batched and never padded.
    """
    result = np.zeros((len(sequences), width), dtype=np.float32)
    order = sorted(range(len(sequences)), key=lambda i: len(sequences[i]))
    for part in blocks(len(order), SEQUENCES_AT_ONCE):
        batch = order[part]
        ids = [sequences[i] for i in batch]
        if positions is None:
            result[batch] = states(ids, layer)
        else:
            result[batch] = states(ids, layer, [positions[i] for i in batch])
        progress(part.stop, len(order))
    return result


def last_pieces(
    row: Sequence[int], prefix: Sequence[int], max_positions: int | None
) -> Sequence[int]:
    """Return the last pieces of a token that fit into a model's positions behind the prefix."""
    return row if max_positions is None else row[-max(1, max_positions - len(prefix)) :]


def state_tokens(
    pieces: Sequence[Sequence[int]], prefix: Sequence[int], max_positions: int | None
) -> int:
    """Return how many tokens `state_space` runs for these pieces, each at least one."""
    return sum(len(prefix) + len(last_pieces(row, prefix, max_positions)) for row in pieces)
