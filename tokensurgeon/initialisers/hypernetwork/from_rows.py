"""Train the network on the source's own tokens, each spelled with others. Needs torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch

from tokensurgeon.initialisers.hypernetwork.row_network import Composer, pack
from tokensurgeon.initialisers.hypernetwork.training_loop import Course

BATCH = 512
RATE = 1e-3
HELD_OUT = 0.1
MOST_HELD_OUT = 2048
"""Spellings that are looked at."""


class RowExamples:
    """Spellings of trained tokens beside the tokens' own rows; a tenth of the tokens held out.

    Parameters
    ----------
    owners : int64 (n,)
        The token that each spelling is of.
    spellings : sequence of sequences of int
    seed : int
    """

    def __init__(
        self, owners: npt.NDArray[np.int64], spellings: Sequence[Sequence[int]], seed: int
    ) -> None:
        self._owners, self._spellings, self._seed = owners, spellings, seed
        generator = np.random.default_rng((seed, 1))
        tokens = generator.permutation(np.unique(owners))
        out = np.isin(owners, tokens[: max(1, int(HELD_OUT * len(tokens)))])
        self._trained = np.flatnonzero(~out)
        held = np.flatnonzero(out)
        self._held = held[generator.permutation(len(held))[:MOST_HELD_OUT]]

    @property
    def enough(self) -> bool:
        """Whether there is anything to train on."""
        return len(self._trained) >= 2

    def loss(self, composer: Composer, index: npt.NDArray[np.int64]) -> torch.Tensor:
        """Return the mean squared error of the rows in units of their variance, over all sides."""
        packed = pack([self._spellings[i] for i in index.tolist()], composer.device)
        owners = torch.from_numpy(self._owners[index]).to(composer.device)
        losses = []
        for made, rows in zip(composer(packed), composer.rows, strict=True):
            losses.append(((made - rows[owners]) ** 2).mean() / rows.var().clamp_min(1e-30))
        return torch.stack(losses).mean()

    def held_out(self, composer: Composer) -> float:
        """Return the error on tokens held out."""
        if not len(self._held):
            return float("nan")
        with torch.no_grad():
            sizes = [len(p) for p in np.array_split(self._held, -(-len(self._held) // BATCH))]
            parts = np.array_split(self._held, len(sizes))
            losses = [float(self.loss(composer, part)) for part in parts]
        return float(np.average(losses, weights=sizes))

    def train(
        self, composer: Composer, course: Course, progress: Callable[[int, int], None]
    ) -> None:
        """Run a course."""

        def step(number: int) -> torch.Tensor:
            generator = np.random.default_rng((self._seed, 2, number))
            chosen = generator.integers(len(self._trained), size=min(BATCH, len(self._trained)))
            return self.loss(composer, self._trained[chosen])

        course.run(step, lambda: self.held_out(composer), progress)
