"""The conformance kit accepts every built-in, and names the law that a broken one breaks."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import scipy.sparse as sp

from tokensurgeon.errors import InitialiserError
from tokensurgeon.initialisers import (
    InitContext,
    NewRows,
    SideRows,
    build,
    check_initialiser,
    get,
    names,
)
from tokensurgeon.initialisers.check import example_context, example_contexts

NEEDY = ("external", "hypernetwork")
"""Checked as instances: they have no row to give before they are told something."""


@pytest.mark.parametrize("name", [name for name in names() if name not in NEEDY])
def test_every_builtin_keeps_the_contract(name: str):
    check_initialiser(get(name))


def test_a_builtin_with_a_required_setting_is_checked_as_an_instance(tmp_path: Path):
    context = example_context()
    path = tmp_path / "weights.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["target_id", "source_id", "weight"])
        writer.writerows([[int(i), 7, 0.25] for i in context.missing[::2]])
    check_initialiser(build("external", {"file": str(path)}))
    with pytest.raises(InitialiserError, match="check an instance"):
        check_initialiser(get("external"))


def test_the_example_surgeries_cover_what_they_say():
    contexts = dict(example_contexts())
    assert len(contexts) == 24
    assert {c.n_missing for c in contexts.values()} > {0, 1}
    assert {c.donor is None for c in contexts.values()} == {True, False}
    assert {c.states is None for c in contexts.values()} == {True, False}
    for context in contexts.values():
        assert context.tied == (context.input_rows is context.output_rows)
        for i, pieces in zip(context.missing, context.pieces, strict=True):
            spelled = b"".join(context.source.token_bytes[p] for p in pieces)
            assert spelled == context.target.token_bytes[i]


Make = Callable[[InitContext], NewRows]
_CALLS: list[int] = []


def _dense(context: InitContext, change=lambda rows: rows) -> NewRows:
    rows = np.ones((context.n_missing, context.width), dtype=np.float32)
    return NewRows(input=SideRows(dense=change(rows)))


def _counting(context: InitContext) -> NewRows:
    _CALLS.append(1)
    return _dense(context, lambda rows: rows * np.float32(len(_CALLS)))


def _meddling(context: InitContext) -> NewRows:
    context.input_rows[0] += 1
    return _dense(context)


def _poisoned(context: InitContext) -> NewRows:
    return _dense(context, lambda rows: rows * np.float32(np.nan))


def _misshapen(context: InitContext) -> NewRows:
    weights = sp.csr_array((context.n_missing, context.n_source + 1))
    return NewRows(output=SideRows(weights=weights))


def _coordinates(context: InitContext) -> NewRows:
    weights = sp.coo_array((context.n_missing, context.n_source))
    return NewRows(output=SideRows(weights=weights))  # type: ignore[arg-type]


def _refusing(context: InitContext) -> NewRows:
    raise InitialiserError("it never works here: use 'mean' instead")


def _curt(context: InitContext) -> NewRows:
    raise InitialiserError("no")


def _crashing(context: InitContext) -> NewRows:
    raise KeyError("donor")


@pytest.mark.parametrize(
    ("make", "law"),
    [
        (_counting, "other rows at a second call"),
        (_meddling, "changes the context"),
        (_poisoned, "not finite"),
        (lambda context: _dense(context, lambda rows: rows.astype(np.float64)), "float64"),
        (lambda context: _dense(context, lambda rows: rows[:, 1:]), "dense rows of"),
        (_misshapen, "weights of"),
        (_coordinates, "not csr_array"),
        (lambda context: NewRows(), "neither side"),
        (lambda context: {"input": None}, "not NewRows"),
        (_refusing, "none of the example surgeries: it never works here"),
        (_curt, "say a fact and the next step"),
        (_crashing, "KeyError"),
    ],
)
def test_a_broken_initialiser_is_told_its_law(make: Make, law: str):
    @dataclass(frozen=True)
    class Broken:
        name: ClassVar[str] = "broken"

        def __call__(self, context: InitContext) -> NewRows:
            return make(context)

    with pytest.raises(InitialiserError, match=law):
        check_initialiser(Broken)


def test_values_that_differ_from_the_weights_are_found():
    class Lying(SideRows):
        def values(self, source_rows):
            return super().values(source_rows) + np.float32(1)

    @dataclass(frozen=True)
    class Liar:
        name = "liar"

        def __call__(self, context: InitContext) -> NewRows:
            return NewRows(input=Lying(weights=sp.csr_array((context.n_missing, context.n_source))))

    with pytest.raises(InitialiserError, match="its weights do not give"):
        check_initialiser(Liar)


def test_a_class_that_is_no_frozen_dataclass_with_a_name_is_refused():
    class Plain:
        name = "plain"

    @dataclass(frozen=True)
    class Nameless:
        def __call__(self, context: InitContext) -> NewRows:
            return NewRows()

    with pytest.raises(InitialiserError, match="not a frozen dataclass"):
        check_initialiser(Plain)
    with pytest.raises(InitialiserError, match="has no name"):
        check_initialiser(Nameless)
