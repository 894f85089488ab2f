"""What a method says that it will cost is what it costs, and saying it costs nothing."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from tokensurgeon.initialisers import (
    Computes,
    Resolvable,
    RunsSource,
    TakesTime,
    TrainableStates,
    build,
    names,
)
from tokensurgeon.initialisers.check import ExampleStates, example_context


class Counting(ExampleStates):
    """Counts the tokens that are run through it."""

    n_tokens = 0

    def __call__(self, ids, layer, position_ids=None):
        self.n_tokens += sum(map(len, ids))
        return super().__call__(ids, layer, position_ids)


class Trainable(Counting):
    """Can be trained through, or so it says."""

    def language_model(self) -> Any:
        raise AssertionError("nobody may load the model to say what it costs")

    def count_training(self, n_tokens: int, gradient_steps: int) -> None:
        self.trained = n_tokens, gradient_steps


def surgery(tied: bool = False, max_positions: int = 64):
    context = example_context(tied=tied)
    states = Counting(context.input_rows, max_positions=max_positions)
    return dataclasses.replace(context, states=states)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("max_positions", [64, 3])
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("hidden-residual", {}),
        ("hidden-state", {}),
        ("anchors", {"space": "hidden-states"}),
        ("anchors", {"space": "hidden-states", "shared_only": True, "combiner": "ridge"}),
        ("wechsel", {"space": "hidden-states"}),
        ("focus", {"space": "hidden-states"}),
        ("tokenadapt", {"space": "hidden-states"}),
    ],
)
def test_tokens_are_counted_before_as_they_run(name, settings, tied, max_positions):
    context = surgery(tied, max_positions)
    method: Any = build(name, settings)
    said = method.forward_tokens(context)
    assert context.states.n_tokens == 0
    method(context)
    assert said == context.states.n_tokens > 0


def test_what_runs_nothing_says_so():
    context = surgery()
    anchors: Any = build("anchors", {})
    assert anchors.forward_tokens(context) == 0
    bare = example_context(extras="bare")
    for name in ("hidden-residual", "hidden-state", "wechsel"):
        method: Any = build(name, {})
        assert method.forward_tokens(bare) == 0


def test_a_method_that_runs_the_source_without_saying_it_is_found():
    """Every built-in, as it comes: either it runs nothing, or it counts what it runs."""
    for name in set(names()) - {"external", "hypernetwork"}:
        context = surgery()
        method = build(name, {})
        said = method.forward_tokens(context) if isinstance(method, RunsSource) else 0
        method(context)
        assert said == context.states.n_tokens, name


def test_a_hypernetwork_takes_the_minutes_it_is_given(tmp_path):
    base = example_context()
    states = Trainable(base.input_rows)
    context = dataclasses.replace(base, states=states)
    method: Any = build("hypernetwork", {"minutes": 2})
    assert isinstance(build("hypernetwork", {"minutes": 2}), TakesTime)
    assert method.seconds(context) == 120
    assert method.forward_tokens(context) > 0
    assert method.forward_tokens(dataclasses.replace(context, texts=())) == 0
    plain: Any = build("hypernetwork", {"minutes": 0})
    assert plain.seconds(context) == plain.forward_tokens(context) == 0
    plain(context)
    assert states.trained == (0, 0)
    assert states.n_tokens == 0
    file = tmp_path / "net"
    file.touch()
    loaded: Any = build("hypernetwork", {"network": str(file), "minutes": 5})
    assert loaded.seconds(context) == 0


def test_protocols_tell_apart_what_can_do_more():
    base = example_context()
    assert isinstance(Trainable(base.input_rows), TrainableStates)
    assert not isinstance(base.states, TrainableStates)
    assert isinstance(build("omp", {}), Resolvable)
    assert not isinstance(build("mean", {}), Resolvable | RunsSource | TakesTime)


def test_arithmetic_that_takes_long_is_counted() -> None:
    context = example_context(tied=False)
    donor = context.donor
    assert donor is not None
    for name in ("omp", "omp-published", "ridge-composer"):
        method = build(name, {})
        assert isinstance(method, Computes)
        two = method.operations(context)
        assert two > 0
        tied = dataclasses.replace(context, tied=True, input_rows=context.output_rows)
        assert method.operations(tied) == two / 2
    shared = dataclasses.replace(context, donor=dataclasses.replace(donor, input=donor.output))
    omp = build("omp", {})
    assert isinstance(omp, Computes)
    assert omp.operations(shared) == omp.operations(context) / 2
