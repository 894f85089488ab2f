"""What a big model accepts of tokens that a small one has written after a text.

Along a text the second drafted token follows the text's own first one; in use it follows the
draft's. What a model writes is easier to foretell than what a person did, so that accepted lengths
of two ways compare only where both write at the same places.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tokensurgeon.arrays import Float32, Float64
from tokensurgeon.models import LanguageModel, OutputHead


@dataclass(frozen=True)
class Drafted:
    """What the big model accepts of one draft, token by token.

    Attributes
    ----------
    sampled, greedy : float64 (n,)
        Of each token in turn, the probability that it is accepted if those before it are; greedily
        it is 0 or 1.
    """

    sampled: Float64
    greedy: Float64


def softmax(logits: Float32) -> Float32:
    """Return the probabilities that logits stand for, float32 (n, n_rows)."""
    import torch

    return torch.from_numpy(logits).softmax(1).numpy()


class Reader:
    """A model that is asked what it says along a path after a text."""

    def __init__(self, model: LanguageModel) -> None:
        self.model = model

    @cached_property
    def _head(self) -> OutputHead:
        return self.model.head

    def room(self, ids: Sequence[int]) -> int | None:
        """Return how many tokens the model takes after a text; None if any number."""
        longest = self.model.max_positions
        return None if longest is None else max(0, longest - len(ids))

    def says(self, ids: Sequence[int], path: Sequence[int]) -> Float32:
        """Return the distributions after a text, and after each token of a path behind it.

        Returns
        -------
        float32 (len(path) + 1, n_rows)
        """
        sequence, model = [*ids, *path], self.model
        if model.plain_head:
            # Of a large vocabulary, the logits of the text so far are the dear part.
            states = model.every_state([sequence], model.n_layers)[0][len(ids) - 1 :]
            return softmax(self._head.logits(states).cpu().numpy())
        return softmax(model.logits(sequence)[len(ids) - 1 :])


def write(draft: Reader, big: Reader, ids: Sequence[int], most: int, seed: int) -> list[Drafted]:
    """Let a draft of the same vocabulary write after a text; return what is accepted of it.

    Parameters
    ----------
    draft, big : Reader
    ids : sequence of int
        The text so far, a prefix first.
    most : int
        Tokens that the draft writes.
    seed : int
        Of the sample: a token t of it is accepted with probability min(1, p(t) / q(t)).

    Returns
    -------
    list of Drafted
        Where one, two, … of these tokens are drafted.
    """
    room = big.room(ids)
    by_mode: list[Float64] = []
    for temperature in (1.0, 0.0):
        written = draft.model.generate(
            ids, most if room is None else min(most, room), seed, temperature=temperature
        )[0]
        path = list(itertools.takewhile(lambda token: token < big.model.n_rows, written))
        p, at = big.says(ids, path), (np.arange(len(path)), path)
        if temperature:
            chances = np.minimum(1.0, p[at].astype(np.float64) / draft.says(ids, path)[at])
        else:
            chances = (p[:-1].argmax(axis=1) == path).astype(np.float64)
        refused = np.zeros(min(1, len(written) - len(path)))  # a row that only the draft has
        by_mode.append(np.concatenate([chances, refused]))
    sampled, greedy = by_mode
    return [Drafted(sampled[: n + 1], greedy[: n + 1]) for n in range(most)]
