"""The budget covers choice and calibration, and a part of it what is done beside."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokensurgeon import Recipe, transplant
from tokensurgeon.progress import Clock
from tokensurgeon.surgery import Session, prepare
from tokensurgeon.surgery.budget import LATE, MOST_BESIDE, left_for_rows
from tokensurgeon.surgery.measure import seconds_to_measure

MINUTES = st.floats(0.01, 1e4)
SECONDS = st.floats(0, 1e6)


@given(MINUTES, st.floats(0, 1e3), SECONDS)
def test_the_whole_is_in_time_or_as_much_as_may_be_is_gone(
    budget: float, heal: float, beside: float
) -> None:
    left = left_for_rows(budget, heal, beside)
    assert (1 - MOST_BESIDE) * budget * (1 - 1e-12) <= left <= budget
    whole = left + heal + beside / 60
    in_time = whole <= (1 + LATE) * (budget + heal) * (1 + 1e-9)
    assert in_time or left == pytest.approx((1 - MOST_BESIDE) * budget)


@given(MINUTES, SECONDS, SECONDS)
def test_more_beside_leaves_no_more(budget: float, one: float, other: float) -> None:
    less, more = sorted((one, other))
    assert left_for_rows(budget, 0, more) <= left_for_rows(budget, 0, less)


def test_no_budget_stays_none() -> None:
    assert left_for_rows(0.0, heal=5.0, beside=100.0) == 0.0


def test_a_surgery_keeps_time_for_what_it_measures(
    tiny_source: Path, tiny_donor: Path, tiny_text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clocks: list[Clock] = []
    clock = Session.clock

    def watched(self: Session, heal: float = 0.0) -> Clock:
        clocks.append(clock(self, heal))
        return clocks[-1]

    monkeypatch.setattr(Session, "clock", watched)
    # The module's name is the function's in the package.
    module = sys.modules["tokensurgeon.surgery.transplant"]
    monkeypatch.setattr(module, "seconds_to_measure", lambda *_: 1e6)
    fields = {"source": str(tiny_source), "tokenizer": str(tiny_donor)}
    transplant(Recipe.parse(fields))
    transplant(Recipe.parse({**fields, "text": {"evaluation": [str(tiny_text)]}}))
    unmeasured, measured = (clock.seconds for clock in clocks)
    assert measured == pytest.approx((1 - MOST_BESIDE) * unmeasured) == 300.0


def test_to_measure_takes_longer_with_more_text_and_more_models(
    tiny_source: Path, tiny_donor: Path
) -> None:
    fields = {"source": str(tiny_source), "tokenizer": str(tiny_donor)}
    session = prepare(Recipe.parse(fields))
    more = Recipe.parse({**fields, "baselines": ["subword-mean", "omp"]})
    other = session.variant(inputs=replace(session.inputs, recipe=more))
    takes = seconds_to_measure(session, ["A text."])
    assert 0 < takes < seconds_to_measure(session, ["A text."] * 2)
    assert takes < seconds_to_measure(other, ["A text."])
