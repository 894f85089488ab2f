"""Which methods ``auto`` tries on a pair, and what each would take of the time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tokensurgeon.initialisers.contract import (
    Computes,
    InitContext,
    Initialiser,
    RunsSource,
    TakesTime,
)
from tokensurgeon.models.pace import Pace
from tokensurgeon.recipe import InitSpec
from tokensurgeon.surgery.chosen_methods import PLAIN, PURE, build_initialiser, default_methods
from tokensurgeon.surgery.inputs import Inputs

SHORTLIST = 3
"""Candidates of a side that are measured on text, besides the pair's default."""

CHOICE_SHARE = 0.15
"""Of the budget, that the choice may take once the texts are there: the rest buys more."""
SHARE_OF_ONE, SHARE_OF_REBUILT = 0.5, 0.25
"""Of the choice's time, that the rows of one candidate may take, and for it to rebuild hidden
tokens besides, which can take as long again; else it goes to the text unranked."""
SHARE_OF_PURE = 0.7
"""Of the whole budget, that the rows of `PURE` may take where no method that reads a donor has the
time: on real models they are worth more than what calibration makes of others in that time.
SmolLM2-135M onto gpt2's tokens, tied, in two minutes of one core: +0.248 for them alone, +0.277 for
others that are calibrated."""

INPUT = ("subword-mean", "subword-last", "hidden-residual", "hidden-state", "ridge-composer")
OUTPUT = ("subword-mean", "subword-first", "subword-shrunk", "hidden-state", "ridge-composer")
TIED = ("subword-mean", "subword-shrunk", "ridge-composer")
DONOR = ("omp", "tokenadapt", "anchors")
"""Tried besides, on every side, where there is a donor."""
FAST = "anchors"
"""Of these, what takes seconds and is best on real models: it won the races of both such pairs.
Gemma-3-270M onto SmolLM2's tokens, untied and unmeasured, ended at +0.171 from `omp`."""
NETWORK = "hypernetwork"
"""Tried besides where its settings name a file or minutes. Rebuilt tokens say nothing of it: it is
trained for the text, so it always goes to the text, and both its sides together."""


def candidates(inputs: Inputs, spec: InitSpec) -> dict[str, Initialiser]:
    """Return the methods that are tried on a pair, by name, with the settings that a recipe has."""
    sides = names_by_side(inputs, spec)
    names = tuple(dict.fromkeys(name for side in sides.values() for name in side))
    return {name: build_initialiser(name, spec, names) for name in names}


def most_measured(sides: Mapping[str, Sequence[str]]) -> int:
    """Return how many pairs of methods are measured on text at most, given each side's names."""
    # The shortlist, the sum of several, the default and the plain mean; the output side twice.
    tried = {side: min(SHORTLIST + 3, len(names) + 1) for side, names in sides.items()}
    return sum(tried.values()) + (tried["output"] if "input" in tried else 0)


def names_by_side(inputs: Inputs, spec: InitSpec) -> dict[str, tuple[str, ...]]:
    """Return the names of the candidates of each side; of a tied matrix, the output's."""
    more = DONOR if inputs.donor is not None else ()
    if NETWORK in spec.settings:
        more = (*more, NETWORK)
    if inputs.tied:
        return {"output": (*TIED, *more)}
    return {"input": (*INPUT, *more), "output": (*OUTPUT, *more)}


@dataclass(frozen=True)
class Afforded:
    """The candidates whose rows there is time for.

    Attributes
    ----------
    methods : dict
        Name to initialiser.
    seconds : dict
        Name to what its rows take, of all candidates.
    default : tuple of str
        What is taken where nothing can be measured: with a donor `FAST`, or `omp` where that takes
        too long; else `PURE`, or `PLAIN` where that does.
    """

    methods: dict[str, Initialiser]
    seconds: dict[str, float]
    default: tuple[str, str]

    @classmethod
    def of(
        cls, inputs: Inputs, spec: InitSpec, context: InitContext, pace: Pace, budget: float
    ) -> Afforded:
        """Return what a choice affords within a budget in minutes."""
        methods = candidates(inputs, spec)
        seconds = {name: seconds_of(method, context, pace) for name, method in methods.items()}
        most = dict.fromkeys(methods, SHARE_OF_ONE * seconds_to_choose(budget))
        most |= {PLAIN: math.inf, NETWORK: math.inf}
        good = [FAST, *default_methods(inputs)] if inputs.donor is not None else []
        if not any(seconds[name] <= most[name] for name in good):
            most[PURE] = SHARE_OF_PURE * 60 * budget
        able = {name: method for name, method in methods.items() if seconds[name] <= most[name]}
        default = next(name for name in (*good, PURE, PLAIN) if name in able)
        return cls(able, seconds, (default, default))

    def sides(self, inputs: Inputs, spec: InitSpec) -> dict[str, tuple[str, ...]]:
        """Return their names by side."""
        return {
            side: tuple(name for name in names if name in self.methods)
            for side, names in names_by_side(inputs, spec).items()
        }

    @property
    def left_out(self) -> list[str]:
        """In words, which candidates take too long."""
        return [
            f"{name}, about {takes:.0f} s"
            for name, takes in self.seconds.items()
            if name not in self.methods
        ]


def seconds_to_choose(budget: float) -> float:
    """Return what the choice may take of a budget in minutes, once the texts are there."""
    return CHOICE_SHARE * 60 * budget


def seconds_of(method: Initialiser, context: InitContext, pace: Pace) -> float:
    """Return what a method's rows take, as far as it says so before."""
    seconds = 0.0
    if isinstance(method, RunsSource):
        seconds += pace.seconds(method.forward_tokens(context))
    if isinstance(method, TakesTime):
        seconds += method.seconds(context)
    if isinstance(method, Computes):
        seconds += method.operations(context) / pace.arithmetic
    return seconds
