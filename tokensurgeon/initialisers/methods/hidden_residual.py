"""Input rows from what the model's own first blocks make of a token's pieces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tokensurgeon.arrays import Float32, Ids
from tokensurgeon.errors import InitialiserError
from tokensurgeon.initialisers.contract import InitContext, NewRows, SideRows
from tokensurgeon.initialisers.fallback_rows import trained_rows
from tokensurgeon.initialisers.methods.hidden_state import ReadsStates
from tokensurgeon.initialisers.numerics.clip import longest_norm
from tokensurgeon.initialisers.numerics.piece_weights import last_weights, piece_weights
from tokensurgeon.initialisers.registry import initialiser
from tokensurgeon.spaces.states import last_pieces, last_states

_SAMPLE = 512
"""Trained tokens whose states are read to find the gain, a single number."""


@initialiser("hidden-residual")
@dataclass(frozen=True)
class HiddenResidual(ReadsStates):
    """The last piece's row plus what the first blocks add to it behind the other pieces.

    e_t = E[s_k] + α/(g·m)·(h_ℓ(BOS s₁…s_k) − h_ℓ(BOS s_k)), h_ℓ the state after block ℓ at the
    last position, m the model's embedding multiplier, g how much longer the states of single
    trained tokens are than their rows (root mean square, centred). The lone piece gets the
    position that it has in the word, so that positions cancel; BOS (or EOS) stays in front as
    attention's sink. No text, no donor, no gradient: two short forward passes per missing token.

    Input side only. A tied matrix takes the row for both sides, though it behaves like an output
    matrix, for which the method says nothing: prefer --untie.

    Parameters
    ----------
    layer : int or None
        ℓ, 1 to the number of blocks. None takes two fifths of the depth, at least 1.
    alpha : float
        α, -10 to 10; 0 is `subword-last` on the input side.

    Notes
    -----
    The method is this project's own; nothing is random but the sample of trained tokens for g,
    drawn from `context.seed`. Rows are clipped to the 99th percentile of the trained rows' norms.
    Words longer than the model's positions keep their last pieces.

    A least-squares fit of α on shared tokens rebuilt from their pieces was tried and dropped: in
    the space of rows it comes out near 0, although α = 1 is better in bits per byte.
    """

    _alphas = (-10, 10)

    def __call__(self, context: InitContext) -> NewRows:
        """Return weight one on the last piece plus a dense residual; no output rows."""
        states, layer = self._states_and_layer(context)
        if states.width != context.width:
            raise InitialiserError(
                f"'hidden-residual' adds hidden states of width {states.width} to rows of width "
                f"{context.width}. Use 'subword-mean'."
            )
        weights = piece_weights(context.pieces, context.n_source, last_weights)
        scale = self.alpha / (state_gain(context, layer) * context.embedding_multiplier)
        dense = np.float32(scale) * residuals(context, context.pieces, layer, "hidden-residual")
        norms = np.linalg.norm(weights @ context.input_rows + dense, axis=1)
        limit = longest_norm(trained_rows(context.input_rows, context.anchors))
        clip = np.minimum(1.0, limit / np.maximum(norms, 1e-30))
        weights.data *= np.repeat(clip, np.diff(weights.indptr))
        dense *= clip[:, None].astype(np.float32)
        return NewRows(input=SideRows(weights=weights, dense=dense))

    def forward_tokens(self, context: InitContext) -> int:
        """Return how many tokens it runs through the source: words, and their last pieces."""
        if context.states is None:
            return 0
        runs = _runs_of(context, context.pieces)
        sampled = len(_sample(context)) * (len(context.prefix) + 1)
        return sum(map(len, runs.words)) + sum(map(len, runs.lone)) + sampled


def _sample(context: InitContext) -> Ids:
    return context.generator().permutation(np.flatnonzero(context.anchors))[:_SAMPLE]


def state_gain(context: InitContext, layer: int) -> float:
    """Return how far single tokens' states lie apart after `layer` blocks, over their inputs.

    Root mean squared distance from the mean, of h_ℓ(prefix t) and of m·E[t], over a seeded sample
    of trained tokens; 1 where either is 0.
    """
    assert context.states is not None
    ids = _sample(context)
    if not len(ids):
        return 1.0
    states = context.states([[*context.prefix, int(i)] for i in ids], layer).astype(np.float64)
    rows = context.embedding_multiplier * context.input_rows[ids].astype(np.float64)
    after, before = np.linalg.norm(states.std(axis=0)), np.linalg.norm(rows.std(axis=0))
    gain = float(after / max(float(before), 1e-30))
    return gain if np.isfinite(gain) and 0 < gain < 1e20 else 1.0


@dataclass(frozen=True)
class _Runs:
    """The sequences that residuals are read from.

    `words` are those of more than one piece, `index` their numbers. `lone` are their last pieces
    alone, each once at each of its `positions`; `lone_of` says which belongs to a word.
    """

    index: list[int]
    words: list[list[int]]
    lone: list[list[int]]
    positions: list[list[int]]
    lone_of: list[int]


def _runs_of(context: InitContext, pieces: Sequence[Sequence[int]]) -> _Runs:
    assert context.states is not None
    prefix, most = list(context.prefix), context.states.max_positions
    cut = [list(last_pieces(row, prefix, most)) for row in pieces]
    index = [i for i, row in enumerate(cut) if len(row) > 1]
    ends = [(len(cut[i]), cut[i][-1]) for i in index]
    distinct = {end: number for number, end in enumerate(sorted(set(ends)))}
    return _Runs(
        index,
        [prefix + cut[i] for i in index],
        [[*prefix, piece] for _, piece in distinct],
        [[*range(len(prefix)), len(prefix) + length - 1] for length, _ in distinct],
        [distinct[end] for end in ends],
    )


def residuals(
    context: InitContext, pieces: Sequence[Sequence[int]], layer: int, what: str
) -> Float32:
    """Return h_ℓ(prefix s₁…s_k) − h_ℓ(prefix s_k), s_k at its position in the word.

    float32 (len(pieces), width), zero for a single piece; `what` is for the progress display.
    """
    states, width = context.states, context.width
    assert states is not None
    runs, steps = _runs_of(context, pieces), context.steps(what)
    words = last_states(runs.words, states, layer, width, progress=steps)
    lone = last_states(runs.lone, states, layer, width, positions=runs.positions, progress=steps)
    result = np.zeros((len(pieces), width), dtype=np.float32)
    result[runs.index] = words - lone[runs.lone_of]
    return result
