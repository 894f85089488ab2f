"""What a budget of minutes is spent on: choice and calibration, and what is done beside them."""

from __future__ import annotations

from tokensurgeon.initialisers.fallback_rows import MOST_PROBES
from tokensurgeon.models.pace import Pace

LATE = 0.07
"""Of the budget and the minutes of healing: by so much the whole surgery is meant to end later. A
tenth is promised, and surgeries that aimed at the whole of it ended up to 2 % behind it."""
MOST_BESIDE = 0.5
"""Of the budget, at most, for what is done beside: what is left is to be worth it. Two minutes
of two cores need so much for SmolLM2-135M onto gpt2's tokens: with a quarter they took 146 s, with
0.4 142 s, with half 117 s."""
START_AND_END = 3.0
"""Times what reading and aligning take is what they, the program's start and writing take together:
2.2 to 3.6 times in seven surgeries of SmolLM2-135M, onto gpt2's, Llama-3's and Gemma's tokens."""
SHARE_OF_PROBES = 0.02
"""Of the budget, for the states that show which output row nothing prefers."""
TOKENS_PER_PROBE = 11
"""Half of the probes are one to three tokens long, half are some seventeen of a text."""
FEWEST_PROBES = 64
"""As many say in which direction states lie."""


def left_for_rows(budget: float, heal: float, beside: float) -> float:
    """Return the minutes of a budget that are left for choice and calibration.

    Parameters
    ----------
    budget, heal : float
        Minutes.
    beside : float
        Seconds that reading, measuring and writing take.

    Examples
    --------
    >>> round(left_for_rows(10.0, heal=0.0, beside=120.0), 3)  # 78 seconds past the end's 42
    8.7
    """
    late = LATE * (budget + heal)
    return budget - min(MOST_BESIDE * budget, max(0.0, beside / 60 - late))


def n_probes(pace: Pace, budget: float) -> int:
    """Return how many sequences to probe a model of some pace with, in a budget in minutes."""
    afforded = SHARE_OF_PROBES * 60 * budget * pace.body / TOKENS_PER_PROBE
    return int(min(MOST_PROBES, max(FEWEST_PROBES, afforded)))
