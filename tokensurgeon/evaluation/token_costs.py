"""Which new tokens cost most above the source, and which least, on the same bytes of a text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tokensurgeon.alignment import Alignment
from tokensurgeon.evaluation.breakdown import bytes_of, match_label
from tokensurgeon.evaluation.excess import costs_of_tokens, shown
from tokensurgeon.evaluation.metrics import LN2
from tokensurgeon.evaluation.scoring import Scores
from tokensurgeon.vocabulary import Vocabulary

N_TOKENS = 10
"""Tokens that are named at either end: as many as one reads."""


@dataclass(frozen=True)
class TokenCost:
    """What one token costs on a text, beside what the source pays for the same bytes.

    Attributes
    ----------
    id : int
    text : str
        Its bytes as text, or as hexadecimal where they are not whole UTF-8.
    tokens : int
        How often it was scored.
    bits, source_bits : float
        What one of them costs on average, and what the source pays for the same bytes.
    excess : float
        Bits per byte of the *whole* text that all of them cost above the source.
    """

    id: int
    text: str
    tokens: int
    bits: float
    source_bits: float
    excess: float


@dataclass(frozen=True)
class NewTokens:
    """The new tokens at either end: the most costly and the cheapest first; none is in both.

    `scored` counts the new tokens that the text has, `lost` those of them that cost more than the
    source pays for the same bytes.
    """

    scored: int
    lost: int
    worst: tuple[TokenCost, ...]
    best: tuple[TokenCost, ...]

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> NewTokens:
        """Read what `asdict` gives, and JSON makes of it."""
        worst, best = (tuple(TokenCost(**one) for one in data[end]) for end in ("worst", "best"))
        return cls(data["scored"], data["lost"], worst, best)


def new_tokens_of(
    own: Scores, first: Scores, vocabulary: Vocabulary, alignment: Alignment
) -> NewTokens:
    """Return the new tokens that lose most against the first model, and those that gain most.

    Parameters
    ----------
    own, first : Scores
        Of the same chunks; only those that both could score count.
    vocabulary : Vocabulary
        Of `own`.
    alignment : Alignment
        From the first's vocabulary; tokens that it has no match for are new.
    """
    n_bytes, members = costs_of_tokens(own, first)
    match_of = match_label(alignment)
    costs = [
        TokenCost(
            token,
            shown(bytes_of(vocabulary, token)),
            count,
            mine / (LN2 * count),
            theirs / (LN2 * count),
            (mine - theirs) / (LN2 * n_bytes),
        )
        for token, count, mine, theirs, _ in members
        if match_of(token) == "missing"
    ]
    costs.sort(key=lambda cost: (-cost.excess, cost.id))
    n_worst = min(N_TOKENS, (len(costs) + 1) // 2)
    rest = costs[n_worst:]
    lost = sum(cost.excess > 0 for cost in costs)
    return NewTokens(len(costs), lost, tuple(costs[:n_worst]), tuple(rest[::-1][:N_TOKENS]))
