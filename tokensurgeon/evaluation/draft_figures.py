"""The figures of a draft: how many of its tokens a big model accepts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from tokensurgeon.arrays import Float64
from tokensurgeon.checkpoint.draft_engines import EngineRule
from tokensurgeon.evaluation.written_drafts import Drafted

DRAFTED = (2, 3, 4, 5, 6, 7, 8)
"""Tokens drafted at once: what engines are set to."""


@dataclass(frozen=True)
class Accepted:
    """What a big model would accept of a draft's tokens on a text.

    Attributes
    ----------
    acceptance : float
        Mean of Σ min(p, q): the chance that a sampled token is accepted.
    agreement : float
        Share of the places where both find the same token likeliest.
    accepted, accepted_greedy : dict of int to float
        By how many tokens are drafted at once, how many are accepted on average, by sampling and
        greedily. One more token comes from the big model itself; without a draft, that is all.
    n_positions : int
    """

    acceptance: float
    agreement: float
    accepted: dict[int, float]
    accepted_greedy: dict[int, float]
    n_positions: int

    @classmethod
    def along(cls, sampled: Sequence[Float64], greedy: Sequence[Float64]) -> Accepted:
        """Return the figures from the chances of the tokens of texts, one array per text."""
        return cls(
            acceptance=float(np.concatenate(sampled).mean()),
            agreement=float(np.concatenate(greedy).mean()),
            accepted={n: expected_accepted(sampled, n) for n in DRAFTED},
            accepted_greedy={n: expected_accepted(greedy, n) for n in DRAFTED},
            n_positions=sum(map(len, sampled)),
        )

    @classmethod
    def of_drafts(cls, drafts: Sequence[Sequence[Drafted]]) -> Accepted:
        """Return the figures from drafts of one, two, … tokens at some places."""

        def accepted(mode: str, n: int) -> float:
            chances = (getattr(of_place[n - 1], mode) for of_place in drafts if len(of_place) >= n)
            return float(sum(np.cumprod(own).sum() for own in chances) / max(1, len(drafts)))

        def first(mode: str) -> float:
            firsts = (getattr(of_place[-1], mode)[:1] for of_place in drafts if of_place)
            return float(sum(own.sum() for own in firsts) / max(1, len(drafts)))

        return cls(
            acceptance=first("sampled"),
            agreement=first("greedy"),
            accepted={n: accepted("sampled", n) for n in DRAFTED},
            accepted_greedy={n: accepted("greedy", n) for n in DRAFTED},
            n_positions=len(drafts),
        )


@dataclass(frozen=True)
class CutHead:
    """What a draft's cut head costs and saves.

    Attributes
    ----------
    n_kept : int
        Tokens that it can draft.
    accepted : Accepted
        As of the whole draft; it never drafts the other tokens.
    whole_seconds, cut_seconds : float
        Of a drafted token, with all output rows and with those that are kept; medians.
    """

    n_kept: int
    accepted: Accepted
    whole_seconds: float
    cut_seconds: float


@dataclass(frozen=True)
class DraftResult(Accepted):
    """What a big model would accept of a draft, and of what needs no surgery.

    Attributes
    ----------
    n_bytes : int
        Of text.
    n_rows : tuple of int
        Of the draft and of the big model; engines may insist that they are equal.
    written : Accepted or None
        Where an untouched small model is measured beside: the same of tokens that the draft wrote
        itself, one after the other, at the places where the small model wrote for re-encoding.
        These two compare at every length; along a text, accepted lengths are shorter, for what a
        person wrote is harder to foretell than what a model did.
    without_surgery : dict of str to Accepted
        By way, what the big model would accept of an untouched small model: see
        `WithoutSurgery`. Of re-encoding, tokens that are drafted are the small model's.
    cut_head : CutHead or None
        Where the draft's folder has one.
    engines : tuple of EngineRule
        Whether engines take the draft, by their rules.
    """

    n_bytes: int = 0
    n_rows: tuple[int, int] = (0, 0)
    written: Accepted | None = None
    without_surgery: dict[str, Accepted] = field(default_factory=dict)
    cut_head: CutHead | None = None
    engines: tuple[EngineRule, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the result for JSON."""
        return asdict(self)


def expected_accepted(chances: Sequence[Float64], drafted: int) -> float:
    """Return how many of `drafted` tokens are accepted on average, started anywhere.

    A token is accepted only if all before it were: the sum over k of the product of the first k
    chances. Chances are those along the text, so that hard stretches count as they come.

    Parameters
    ----------
    chances : sequence of float64 (n,)
        Of each position of a text, one array per text.
    drafted : int

    Examples
    --------
    >>> expected_accepted([np.array([1.0, 0.5, 0.5])], 2)
    1.125
    """
    accepted = []
    for of_text in chances:
        if len(of_text) >= drafted:
            windows = np.lib.stride_tricks.sliding_window_view(of_text, drafted)
            accepted.append(np.cumprod(windows, axis=1).sum(axis=1))
    return float(np.concatenate(accepted).mean()) if accepted else float("nan")
