"""Train the network on the source's own tokens, each spelled with others. Needs torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from tokensurgeon.arrays import Ids
from tokensurgeon.initialisers.hypernetwork.row_network import NetworkComposer, pack

BATCH = 512
"""Spellings of a step: large enough for a fast product, a small share of a vocabulary."""
RATE = 1e-3
"""Adam's usual rate."""
HELD_OUT = 0.1
"""Share of the tokens that validate the training."""
MOST_HELD_OUT = 2048
"""Spellings of these that are used, at most: a validation then costs four steps."""


class RowExamples:
    """Spellings of trained tokens beside the tokens' own rows; a tenth of the tokens held out.

    Parameters
    ----------
    owners : int64 (n,)
        The token that each spelling is of.
    spellings : sequence of sequences of int
    seed : int
    """

    def __init__(self, owners: Ids, spellings: Sequence[Sequence[int]], seed: int) -> None:
        self._owners, self._spellings, self._seed = owners, spellings, seed
        generator = np.random.default_rng((seed, 1))
        tokens = generator.permutation(np.unique(owners))
        is_held = np.isin(owners, tokens[: max(1, int(HELD_OUT * len(tokens)))])
        self._trained = np.flatnonzero(~is_held)
        held = np.flatnonzero(is_held)
        self._held = held[generator.permutation(len(held))[:MOST_HELD_OUT]]

    @property
    def enough(self) -> bool:
        """Whether there is anything to train on."""
        return len(self._trained) >= 2

    def loss(self, composer: NetworkComposer, number: int) -> torch.Tensor:
        """Return the error on batch `number`."""
        generator = np.random.default_rng((self._seed, 2, number))
        chosen = generator.integers(len(self._trained), size=min(BATCH, len(self._trained)))
        return self._error(composer, self._trained[chosen])

    def _error(self, composer: NetworkComposer, index: Ids) -> torch.Tensor:
        """Return the mean squared error of the rows in units of their variance, over all sides."""
        packed = pack([self._spellings[i] for i in index.tolist()], composer.device)
        owners = torch.from_numpy(self._owners[index]).to(composer.device)
        losses = []
        for composed, rows in zip(composer(packed), composer.rows, strict=True):
            losses.append(((composed - rows[owners]) ** 2).mean() / rows.var().clamp_min(1e-30))
        return torch.stack(losses).mean()

    def validate(self, composer: NetworkComposer) -> float:
        """Return the error on tokens held out."""
        if not len(self._held):
            return float("nan")
        with torch.no_grad():
            parts = np.array_split(self._held, -(-len(self._held) // BATCH))
            losses = [float(self._error(composer, part)) for part in parts]
        return float(np.average(losses, weights=[len(part) for part in parts]))
