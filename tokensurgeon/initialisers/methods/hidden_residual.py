"""Input rows from what the model's own first blocks make of a token's pieces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from tokensurgeon.errors import InitialiserError, SettingError
from tokensurgeon.initialisers.contract import InitContext, NewRows, Rows, SideRows, States
from tokensurgeon.initialisers.fallback_rows import trained_rows
from tokensurgeon.initialisers.numerics.piece_weights import last_weights, piece_weights
from tokensurgeon.initialisers.registry import initialiser

_BATCH = 256
_SAMPLE = 512
"""Trained tokens whose states are read to find the gain."""


@initialiser("hidden-residual")
@dataclass(frozen=True)
class HiddenResidual:
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

    name: ClassVar[str]
    layer: int | None = None
    alpha: float = 1.0

    def __post_init__(self) -> None:
        """Check the ranges of the settings."""
        if self.layer is not None and self.layer < 1:
            raise SettingError(f"hidden-residual.layer must be 1 or more; got {self.layer}")
        if not -10 <= self.alpha <= 10:
            raise SettingError(f"hidden-residual.alpha must be -10 to 10; got {self.alpha}")

    def __call__(self, context: InitContext) -> NewRows:
        """Return weight one on the last piece plus a dense residual; no output rows."""
        states = context.states
        if states is None:
            raise InitialiserError(
                "'hidden-residual' runs the source model, which is not at hand here. "
                "Use 'subword-mean'."
            )
        if states.width != context.width:
            raise InitialiserError(
                f"'hidden-residual' adds hidden states of width {states.width} to rows of width "
                f"{context.width}. Use 'subword-mean'."
            )
        layer = self.resolved_layer(states.n_layers)
        weights = piece_weights(context.pieces, context.n_source, last_weights)
        scale = self.alpha / (state_gain(context, layer) * context.embedding_multiplier)
        dense = np.float32(scale) * residuals(context, context.pieces, layer, "hidden-residual")
        norms = np.linalg.norm(weights @ context.input_rows + dense, axis=1)
        bound = _norm_bound(context)
        clip = np.minimum(1.0, bound / np.maximum(norms, 1e-30))
        weights.data *= np.repeat(clip, np.diff(weights.indptr))
        dense *= clip[:, None].astype(np.float32)
        return NewRows(input=SideRows(weights=weights, dense=dense))

    def resolved(self, context: InitContext) -> HiddenResidual:
        """Return the method with its layer said, for the report."""
        if context.states is None:
            return self
        return replace(self, layer=self.resolved_layer(context.states.n_layers))

    def resolved_layer(self, n_layers: int) -> int:
        """Return ℓ for a model of `n_layers` blocks.

        Raises
        ------
        SettingError
            If the model has fewer blocks than `layer` asks for.
        """
        if self.layer is None:
            return max(1, min(n_layers, round(0.4 * n_layers)))
        if self.layer > n_layers:
            raise SettingError(
                f"hidden-residual.layer is {self.layer}; this model has {n_layers} blocks"
            )
        return self.layer


def state_gain(context: InitContext, layer: int) -> float:
    """Return the spread of single tokens' states after `layer` blocks over that of their inputs.

    Root mean squared distance from the mean, of h_ℓ(prefix t) and of m·E[t], over a seeded sample
    of trained tokens; 1 where either is 0.
    """
    states = context.states
    assert states is not None
    ids = context.generator().permutation(np.flatnonzero(context.anchors))[:_SAMPLE]
    if not len(ids):
        return 1.0
    found = states([[*context.prefix, int(i)] for i in ids], layer).astype(np.float64)
    rows = context.embedding_multiplier * context.input_rows[ids].astype(np.float64)
    spread, base = found.std(axis=0), rows.std(axis=0)
    gain = float(np.linalg.norm(spread) / max(float(np.linalg.norm(base)), 1e-30))
    return gain if np.isfinite(gain) and 0 < gain < 1e20 else 1.0


def residuals(context: InitContext, pieces: Sequence[Sequence[int]], layer: int, what: str) -> Rows:
    """Return h_ℓ(prefix s₁…s_k) − h_ℓ(prefix s_k), s_k at its position in the word.

    Parameters
    ----------
    context : InitContext
    pieces : sequence of sequences of source ids
    layer : int
    what : str
        For the progress display.

    Returns
    -------
    float32 (len(pieces), width)
        Zero for a single piece. The lone pieces repeat from token to token; each (piece,
        position) is computed once.
    """
    states = context.states
    assert states is not None
    prefix = list(context.prefix)
    longest = states.max_positions
    room = None if longest is None else max(1, longest - len(prefix))
    cut = [list(row if room is None else row[-room:]) for row in pieces]
    result = np.zeros((len(cut), context.width), dtype=np.float32)
    several = [i for i, row in enumerate(cut) if len(row) > 1]
    lone = sorted({(len(cut[i]), cut[i][-1]) for i in several})
    total = len(several) + len(lone)
    words = _run(context, states, [prefix + cut[i] for i in several], None, layer, (0, total, what))
    start = list(range(len(prefix)))
    alone = _run(
        context,
        states,
        [[*prefix, piece] for _, piece in lone],
        [[*start, len(prefix) + length - 1] for length, _ in lone],
        layer,
        (len(several), total, what),
    )
    place = {key: i for i, key in enumerate(lone)}
    index = [place[len(cut[i]), cut[i][-1]] for i in several]
    result[several] = words - alone[index]
    return result


def _run(
    context: InitContext,
    states: States,
    sequences: list[list[int]],
    positions: list[list[int]] | None,
    layer: int,
    progress: tuple[int, int, str],
) -> Rows:
    """Run `states` in batches of like length, and return the states in the order given."""
    done, total, what = progress
    result = np.zeros((len(sequences), context.width), dtype=np.float32)
    order = sorted(range(len(sequences)), key=lambda i: len(sequences[i]))
    for start in range(0, len(order), _BATCH):
        batch = order[start : start + _BATCH]
        result[batch] = states(
            [sequences[i] for i in batch],
            layer,
            None if positions is None else [positions[i] for i in batch],
        )
        context.progress(done + start + len(batch), total, what)
    return result


def _norm_bound(context: InitContext) -> float:
    rows = trained_rows(context.input_rows, context.anchors)
    return float(np.quantile(np.linalg.norm(rows, axis=1), 0.99))
