"""Rows read from the hidden state that the source has after a token's pieces."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from tokensurgeon.errors import InitialiserError, SettingError
from tokensurgeon.initialisers.anchor_spaces import resolved_layer
from tokensurgeon.initialisers.contract import Ids, InitContext, NewRows, Rows, SideRows, States
from tokensurgeon.initialisers.numerics.regression import fit_ridge
from tokensurgeon.initialisers.registry import initialiser
from tokensurgeon.spaces import state_space

_SAMPLE = 16384
"""Most trained tokens that the maps are fitted on."""

_BATCH = 256


@initialiser("hidden-state")
@dataclass(frozen=True)
class HiddenState:
    """A linear map from an early state after the last piece to rows (Kaplan et al., 2025).

    "From Tokens to Words: On the Inner Lexicon of LLMs", arXiv 2410.05864: a model fuses the pieces
    of a word in its early layers. Two linear maps, one to input and one to output rows, are fitted
    from the states of single trained tokens to their own rows, and applied to the states after
    the pieces of missing tokens. No text, no donor, no gradient: a short forward pass for each
    missing token and for each of at most 16,384 trained tokens.

    A variant. The paper looks for each word's layer by patching its states into a prompt, and
    leaves out words for which no layer works; here one layer serves all. The maps are ridge
    regressions, with the penalty chosen on held-out tokens, not plain least squares. A trained
    token stands at a distance from the start that missing tokens have, drawn at random, so that
    positions do not tell the two apart.

    Parameters
    ----------
    layer : int or None
        1 to the number of blocks. None takes two fifths of the depth, at least 1.
    alpha : float
        0 to 1: how far the row goes from the mean trained row to what the map says. Maps of few
        tokens say too much.

    Notes
    -----
    A tied matrix takes the map to output rows for both sides. Random: the sample of tokens, their
    places, and which are held out, by `context.seed`.
    """

    name: ClassVar[str]
    layer: int | None = None
    alpha: float = 1.0

    def __post_init__(self) -> None:
        """Check the ranges of the settings."""
        if self.layer is not None and self.layer < 1:
            raise SettingError(f"hidden-state.layer must be 1 or more; got {self.layer}")
        if not 0 <= self.alpha <= 1:
            raise SettingError(f"hidden-state.alpha must be 0 to 1; got {self.alpha}")

    def __call__(self, context: InitContext) -> NewRows:
        """Return dense rows of both sides."""
        states = context.states
        if states is None:
            raise InitialiserError(
                "'hidden-state' runs the source model, which is not at hand here. "
                "Use 'subword-mean'."
            )
        layer = resolved_layer(self.layer, states.n_layers, self.name)
        ids = np.flatnonzero(context.anchors).astype(np.int64)
        if len(ids) < 2:
            raise InitialiserError(
                f"'hidden-state' fits a map on trained tokens; the source has {len(ids)}. "
                "Use 'subword-mean'."
            )
        if len(ids) > _SAMPLE:
            ids = np.sort(context.generator().choice(ids, _SAMPLE, replace=False))
        sides = [context.output_rows] if context.tied else [context.input_rows, context.output_rows]
        lone = self._lone(context, states, ids, layer)
        maps = fit_ridge(
            lambda index: lone[index],
            [rows[ids] for rows in sides],
            len(ids),
            generator=context.generator(),
            device=context.device,
        )
        words = state_space(
            context.pieces,
            states,
            layer,
            states.width,
            prefix=context.prefix,
            max_positions=states.max_positions,
            progress=lambda done, total: context.progress(done, total, "hidden-state: words"),
        ).vectors
        made = []
        for rows, linear in zip(sides, maps, strict=True):
            mean = rows[ids].mean(axis=0, dtype=np.float64)
            values = mean + self.alpha * (linear(words) - mean)
            made.append(SideRows(dense=values.astype(np.float32)))
        return NewRows(input=made[0], output=made[-1])

    def resolved(self, context: InitContext) -> HiddenState:
        """Return the method with its layer said, for the report."""
        if context.states is None:
            return self
        return replace(self, layer=resolved_layer(self.layer, context.states.n_layers, self.name))

    def _lone(self, context: InitContext, states: States, ids: Ids, layer: int) -> Rows:
        """Return the state of each single token, at a place that words end at."""
        prefix = list(context.prefix)
        lengths = [len(row) for row in context.pieces] or [1]
        places = len(prefix) - 1 + context.generator().choice(lengths, len(ids))
        if states.max_positions is not None:
            places = np.minimum(places, max(len(prefix), states.max_positions - 1))
        start = list(range(len(prefix)))
        result = np.zeros((len(ids), states.width), dtype=np.float32)
        for begin in range(0, len(ids), _BATCH):
            part = slice(begin, begin + _BATCH)
            result[part] = states(
                [[*prefix, token] for token in ids[part].tolist()],
                layer,
                [[*start, at] for at in places[part].tolist()],
            )
            context.progress(min(begin + _BATCH, len(ids)), len(ids), "hidden-state: tokens")
        return result
