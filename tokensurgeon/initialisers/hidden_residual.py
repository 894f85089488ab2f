"""Input rows from what the model's own first blocks make of a token's pieces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tokensurgeon.errors import InitialiserError, SettingError
from tokensurgeon.initialisers.compose import last_weights, piece_weights
from tokensurgeon.initialisers.contract import InitContext, NewRows, Rows, SideRows, States
from tokensurgeon.initialisers.floors import trained_rows
from tokensurgeon.initialisers.registry import initialiser

_BATCH = 256
_SAMPLE = 1000
"""Most shared tokens that are rebuilt to fit α."""


@initialiser("hidden-residual")
@dataclass(frozen=True)
class HiddenResidual:
    """The last piece's row plus what the first blocks add to it behind the other pieces.

    e_t = E[s_k] + (α/m)·(h_ℓ(BOS s₁…s_k) − h_ℓ(BOS s_k)), h_ℓ the state after block ℓ at the last
    position, m the model's embedding multiplier. The lone piece gets the position that it has in
    the word, so that positions cancel; BOS (or EOS) stays in front as attention's sink. No text,
    no donor, no gradient: two short forward passes per missing token.

    Input side only. A tied matrix takes the row for both sides, though it behaves like an output
    matrix, for which the method says nothing: prefer --untie.

    Parameters
    ----------
    layer : int or None
        ℓ, 1 to the number of blocks. None takes two fifths of the depth, at least 1.
    alpha : float or None
        α, -10 to 10. None fits it by least squares on up to 1,000 shared tokens, each rebuilt
        from pieces with itself forbidden.

    Notes
    -----
    The method is this project's own; nothing is random but the sample of rebuilt tokens, drawn
    from `context.seed`. Rows are clipped to the 99th percentile of the trained rows' norms. Words
    longer than the model's positions keep their last pieces.
    """

    name: ClassVar[str]
    layer: int | None = None
    alpha: float | None = None

    def __post_init__(self) -> None:
        """Check the ranges of the settings."""
        if self.layer is not None and self.layer < 1:
            raise SettingError(f"hidden-residual.layer must be 1 or more; got {self.layer}")
        if self.alpha is not None and not -10 <= self.alpha <= 10:
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
        alpha = self.alpha
        if alpha is None:
            alpha = fit_alpha(context, layer)
        weights = piece_weights(context.pieces, context.n_source, last_weights)
        scale = alpha / context.embedding_multiplier
        dense = np.float32(scale) * residuals(context, context.pieces, layer, "hidden-residual")
        norms = np.linalg.norm(weights @ context.input_rows + dense, axis=1)
        bound = _norm_bound(context)
        clip = np.minimum(1.0, bound / np.maximum(norms, 1e-30))
        weights.data *= np.repeat(clip, np.diff(weights.indptr))
        dense *= clip[:, None].astype(np.float32)
        return NewRows(input=SideRows(weights=weights, dense=dense))

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


def fit_alpha(context: InitContext, layer: int) -> float:
    """Return α by least squares over rebuilt shared tokens; 1 where there are under ten.

    Each sampled source token is spelled with itself forbidden, and its row less its last piece's
    row is regressed on the residual.
    """
    source = context.source
    rebuilt: list[int] = []
    pieces: list[tuple[int, ...]] = []
    candidates = np.flatnonzero(context.anchors)
    shared = np.unique(context.alignment.source_ids[context.alignment.shared])
    candidates = np.intersect1d(candidates, shared)
    for i in context.generator().permutation(candidates).tolist():
        data = source.token_bytes[i]
        found = source.pieces_of(data, forbid={i}) if data else None
        if found and len(found) > 1 and all(p < context.n_source for p in found):
            rebuilt.append(i)
            pieces.append(tuple(found))
        if len(rebuilt) == _SAMPLE:
            break
    if len(rebuilt) < 10:
        return 1.0
    added = residuals(context, pieces, layer, "hidden-residual: fitting alpha").astype(np.float64)
    added /= context.embedding_multiplier
    last = context.input_rows[[row[-1] for row in pieces]]
    wanted = context.input_rows[rebuilt].astype(np.float64) - last
    finite = np.isfinite(wanted).all(axis=1)
    energy = float((added[finite] ** 2).sum())
    return float((added[finite] * wanted[finite]).sum() / energy) if energy else 0.0


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
    longest = getattr(states, "max_positions", None)
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
