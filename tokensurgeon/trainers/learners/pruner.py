"""The pruner: of many candidate tokens keep those without which text would take the most tokens.

Text is spelled with the fewest tokens there are; a token is worth how often it is used times the
tokens that would be needed more without it. The worst are dropped in rounds, and text is spelled
again after each, since what a token is worth depends on the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from tokensurgeon.progress import Progress
from tokensurgeon.trainers.counting.weighted import Weighted
from tokensurgeon.trainers.encoders import bytes_first, min_tokens, spell

ROUNDS = (6.0, 3.0, 1.7, 1.25, 1.1, 1.0)
"""How many times the tokens wanted are left after each round."""
SAMPLE_BYTES = 32_000_000
"""Of segments that are spelled in each round."""


def prune(
    candidates: Iterable[bytes],
    text: Weighted,
    n_tokens: int,
    progress: Progress,
    rounds: Sequence[float] = ROUNDS,
) -> list[bytes]:
    """Return the 256 bytes and the best of the candidates, best first, `n_tokens` in all."""
    tokens = bytes_first(dict.fromkeys(candidates))
    text = text.sample(SAMPLE_BYTES)
    for number, factor in enumerate(rounds):
        progress(number, len(rounds), "pruning")
        left = round(factor * n_tokens)
        # The last round always runs: it puts the best first.
        if len(tokens) > left or factor == 1.0:
            worth = token_worth(tokens, text)
            best = sorted(range(256, len(tokens)), key=lambda i: (-worth[i], tokens[i]))
            tokens = tokens[:256] + [tokens[i] for i in best[: left - 256]]
    return tokens


def token_worth(tokens: Sequence[bytes], text: Weighted) -> list[int]:
    """Return, for each token, how many tokens more the text would take without it.

    An estimate: the token is replaced by the fewest others that spell it, wherever it is used.
    """
    spelled = spell(min_tokens(tokens, (), None), text)
    real = spelled.ids >= 0
    weights = spelled.weights[spelled.segment[real]].astype(float)
    uses = np.bincount(spelled.ids[real], weights, len(tokens))
    known = set(tokens)
    return [
        round(count) * (pieces_without(token, known) - 1) if count else 0
        for token, count in zip(tokens, uses.tolist(), strict=True)
    ]


def pieces_without(token: bytes, known: set[bytes]) -> int:
    """Return how few known tokens spell this one, itself left out; 1 for a byte."""
    if len(token) == 1:
        return 1
    fewest = [0]
    for end in range(1, len(token) + 1):
        starts = range(0 if end < len(token) else 1, end)
        fewest.append(min(fewest[start] + 1 for start in starts if token[start:end] in known))
    return fewest[-1]
