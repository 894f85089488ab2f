"""What a big model accepts of tokens that a small one has written after a text.

Along a text the second drafted token follows the text's own first one; in use it follows the
draft's. What a model writes is easier to foretell than what a person did, so that accepted lengths
of two ways compare only where both write at the same places.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tokensurgeon.arrays import Float32, Float64
from tokensurgeon.models.along_text import AlongText


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


def write(
    draft: AlongText, big: AlongText, ids: Sequence[int], most: int, seed: int
) -> list[Drafted]:
    """Let a draft of the same vocabulary write after a text; return what is accepted of it.

    Parameters
    ----------
    draft, big : AlongText
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
        written = draft.write(ids, most if room is None else min(most, room), seed, temperature)
        path = list(itertools.takewhile(lambda token: token < big.model.n_rows, written))
        p, at = softmax(big.logits(ids, path)), (np.arange(len(path)), path)
        if temperature:
            q = softmax(draft.logits(ids, path))
            chances = np.minimum(1.0, p[at].astype(np.float64) / q[at])
        else:
            chances = (p[:-1].argmax(axis=1) == path).astype(np.float64)
        refused = np.zeros(min(1, len(written) - len(path)))  # a row that only the draft has
        by_mode.append(np.concatenate([chances, refused]))
    sampled, greedy = by_mode
    return [Drafted(sampled[: n + 1], greedy[: n + 1]) for n in range(most)]
