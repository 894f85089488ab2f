"""Of many candidate tokens, keep those without which text would take the most tokens.

Text is spelled with the fewest tokens. The worth of a token is the number of its uses times the
number of tokens that would replace it, less one. The least worthy tokens are dropped in rounds, and
the text is spelled again after each round, since the worth of a token depends on the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from tokensurgeon.progress import Progress
from tokensurgeon.trainers.counting.weighted import WeightedSegments
from tokensurgeon.trainers.encoders import bytes_first, min_tokens, spell

ROUNDS = (6.0, 3.0, 1.7, 1.25, 1.1, 1.0)
"""Tokens left after each round, as a multiple of those wanted: ever smaller steps, since worths
change most while many tokens are dropped."""
SAMPLE_BYTES = 32_000_000
"""Bytes of segments that are spelled in each round; bounds the time, which is six such passes."""


def prune(
    candidates: Iterable[bytes],
    text: WeightedSegments,
    n_tokens: int,
    progress: Progress,
    rounds: Sequence[float] = ROUNDS,
) -> list[bytes]:
    """Return the 256 bytes and the best of the candidates, best first, `n_tokens` in all."""
    tokens = bytes_first(dict.fromkeys(candidates))
    text = text.sample(SAMPLE_BYTES)
    for number, factor in enumerate(rounds):
        progress(number, len(rounds), "pruning")
        n_left = round(factor * n_tokens)
        # The last round always runs: it puts the best first.
        if len(tokens) > n_left or factor == 1.0:
            worth = token_worth(tokens, text)
            best = sorted(range(256, len(tokens)), key=lambda i: (-worth[i], tokens[i]))
            tokens = tokens[:256] + [tokens[i] for i in best[: n_left - 256]]
    return tokens


def token_worth(tokens: Sequence[bytes], text: WeightedSegments) -> list[int]:
    """Return, for each token, how many more tokens the text would take without it.

    An estimate: wherever the token is used, the fewest others that spell it replace it.
    """
    spelled = spell(min_tokens(tokens, (), None), text)
    is_id = spelled.ids >= 0
    weights = spelled.weights[spelled.segment[is_id]].astype(float)
    uses = np.bincount(spelled.ids[is_id], weights, len(tokens))
    known = set(tokens)
    return [
        round(count) * (pieces_without(token, known) - 1) if count else 0
        for token, count in zip(tokens, uses.tolist(), strict=True)
    ]


def pieces_without(token: bytes, known: set[bytes]) -> int:
    """Return the fewest other known tokens that spell this one; 1 for a byte."""
    if len(token) == 1:
        return 1
    fewest = [0]
    for end in range(1, len(token) + 1):
        starts = range(0 if end < len(token) else 1, end)
        fewest.append(min(fewest[start] + 1 for start in starts if token[start:end] in known))
    return fewest[-1]
