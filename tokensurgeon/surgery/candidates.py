"""Which methods ``auto`` tries on a pair, and what each would take of the time."""

from __future__ import annotations

from typing import Any

from tokensurgeon.initialisers.contract import (
    Computes,
    InitContext,
    Initialiser,
    RunsSource,
    TakesTime,
)
from tokensurgeon.models.pace import Pace
from tokensurgeon.recipe import InitSpec
from tokensurgeon.surgery.chosen_methods import build_initialiser
from tokensurgeon.surgery.inputs import Inputs

SHORTLIST = 3
"""Candidates of a side that are measured on text, besides the pair's plain default."""

INPUT = ("subword-mean", "subword-last", "hidden-residual", "hidden-state", "ridge-composer")
OUTPUT = ("subword-mean", "subword-first", "subword-shrunk", "hidden-state", "ridge-composer")
TIED = ("subword-mean", "subword-shrunk", "ridge-composer")
DONOR = ("omp", "tokenadapt", "anchors")
"""Tried besides, on every side, where there is a donor."""
NETWORK = "hypernetwork"
"""Tried besides where its settings name a file or minutes. Rebuilt tokens say nothing of it: it is
trained for the text, so it always goes to the text, and both its sides together."""
SETTINGS: dict[str, dict[str, Any]] = {"anchors": {"combiner": "ridge"}}
"""Of candidates whose own default is not the one to try; a recipe's settings win."""


def candidates(inputs: Inputs, spec: InitSpec) -> dict[str, Initialiser]:
    """Return the methods that are tried on a pair, by name, with the settings that a recipe has."""
    sides = names_by_side(inputs, spec)
    names = tuple(dict.fromkeys(name for side in sides.values() for name in side))
    own = {name: {**SETTINGS.get(name, {}), **spec.settings.get(name, {})} for name in names}
    settings = spec.model_copy(update={"settings": {**spec.settings, **own}})
    return {name: build_initialiser(name, settings, names) for name in names}


def most_measured(inputs: Inputs) -> int:
    """Return how many pairs of methods are measured on text at most."""
    # The shortlist, the sum of several, the default and the plain mean; the output side twice.
    return (SHORTLIST + 3) * (1 if inputs.tied else 3)


def names_by_side(inputs: Inputs, spec: InitSpec) -> dict[str, tuple[str, ...]]:
    """Return the names of the candidates of each side; of a tied matrix, the output's."""
    more = DONOR if inputs.donor is not None else ()
    if NETWORK in spec.settings:
        more = (*more, NETWORK)
    if inputs.tied:
        return {"output": (*TIED, *more)}
    return {"input": (*INPUT, *more), "output": (*OUTPUT, *more)}


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
