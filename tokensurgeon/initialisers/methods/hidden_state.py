"""Rows read from the hidden state that the source has after a token's pieces."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np

from tokensurgeon.arrays import Float32, Ids
from tokensurgeon.errors import InitialiserError
from tokensurgeon.initialisers.anchor_spaces import resolved_layer
from tokensurgeon.initialisers.contract import InitContext, NewRows, SideRows, States, require
from tokensurgeon.initialisers.registry import initialiser
from tokensurgeon.spaces import state_space
from tokensurgeon.spaces.states import last_states, state_tokens

_SAMPLE = 16_384
"""Trained tokens that the maps are fitted on, at most: several for each dimension of a state."""


@dataclass(frozen=True)
class ReadsStates:
    """The layer of a method that reads the source's states, and how far its rows go."""

    name: ClassVar[str]
    layer: int | None = None
    alpha: float = 1.0
    _alphas: ClassVar[tuple[int, int]] = (0, 1)
    """The least and the largest alpha."""

    def __post_init__(self) -> None:
        """Check the ranges of the settings."""
        least, most = self._alphas
        require(self, "layer", "1 or more", self.layer is None or self.layer >= 1)
        require(self, "alpha", f"{least} to {most}", least <= self.alpha <= most)

    def resolved(self, context: InitContext) -> Self:
        """Return the method with its layer said, for the report."""
        if context.states is None:
            return self
        return replace(self, layer=resolved_layer(self.layer, context.states.n_layers, self.name))

    def _states_and_layer(self, context: InitContext) -> tuple[States, int]:
        """Return the source's states and the layer to read; InitialiserError without states."""
        states = context.states
        if states is None:
            raise InitialiserError(
                f"'{self.name}' runs the source model, which is not at hand here. "
                "Use 'subword-mean'."
            )
        return states, resolved_layer(self.layer, states.n_layers, self.name)


@initialiser("hidden-state")
@dataclass(frozen=True)
class HiddenState(ReadsStates):
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
    positions, and which are held out, by `context.seed`.
    """

    def __call__(self, context: InitContext) -> NewRows:
        """Return dense rows of both sides."""
        from tokensurgeon.initialisers.numerics.regression import fit_ridge

        states, layer = self._states_and_layer(context)
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
            work=context.work("hidden-state: fitting"),
        )
        words = state_space(
            context.pieces,
            states,
            layer,
            states.width,
            prefix=context.prefix,
            max_positions=states.max_positions,
            progress=context.steps("hidden-state: words"),
        ).vectors
        answers = []
        for rows, linear in zip(sides, maps, strict=True):
            mean = rows[ids].mean(axis=0, dtype=np.float64)
            values = mean + self.alpha * (linear(words) - mean)
            answers.append(SideRows(dense=values.astype(np.float32)))
        return NewRows(input=answers[0], output=answers[-1])

    def forward_tokens(self, context: InitContext) -> int:
        """Return how many tokens it runs through the source: words, and tokens to fit on."""
        states = context.states
        if states is None:
            return 0
        n_sampled = min(_SAMPLE, int(context.anchors.sum()))
        words = state_tokens(context.pieces, context.prefix, states.max_positions)
        return words + n_sampled * (len(context.prefix) + 1)

    def _lone(self, context: InitContext, states: States, ids: Ids, layer: int) -> Float32:
        """Return the state of each single token, at a position that words end at."""
        prefix = list(context.prefix)
        lengths = [len(row) for row in context.pieces] or [1]
        ends = len(prefix) - 1 + context.generator().choice(lengths, len(ids))
        if states.max_positions is not None:
            ends = np.minimum(ends, max(len(prefix), states.max_positions - 1))
        return last_states(
            [[*prefix, token] for token in ids.tolist()],
            states,
            layer,
            states.width,
            positions=[[*range(len(prefix)), end] for end in ends.tolist()],
            progress=context.steps("hidden-state: tokens"),
        )
