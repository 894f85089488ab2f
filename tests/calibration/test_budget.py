"""A calibration keeps to its time: clocks of the tests, no sleeping."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tokensurgeon.calibration import CalibrationData, Candidate, Matrices, Stage, calibrate
from tokensurgeon.calibration.acceptance import Acceptance
from tokensurgeon.calibration.contract import Candidates, Cost
from tokensurgeon.calibration.data import TextSizes
from tokensurgeon.calibration.paired_figures import BitsPerByte
from tokensurgeon.calibration.stage_plans import LATE, Plan
from tokensurgeon.calibration.stages.distil import Distil
from tokensurgeon.calibration.stages.quiet import Quiet
from tokensurgeon.calibration.stages.refit import Refit
from tokensurgeon.calibration.stages.shares import Shares
from tokensurgeon.calibration.text_sizes import FEWEST_BYTES, AffordedText, text_bounds
from tokensurgeon.calibration.written_texts import WritingTime
from tokensurgeon.models.pace import NO_TIME, Pace, measure_pace
from tokensurgeon.progress import Clock

SLOW = Pace(body=1000.0, head=1e6, arithmetic=1e9)


class Time:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Takes(Stage):
    """Says that it takes some seconds, and takes others; each candidate is a little better."""

    def __init__(self, time: Time, says: float, takes: float, n: int = 1, own: float = 0.0) -> None:
        self.name, self.time, self.says, self.takes = "takes", time, says, takes
        self.n, self.own, self.given = n, own, 0.0

    def propose(self, data: CalibrationData, matrices: Matrices) -> Candidates:
        self.given = data.clock.left()
        for i in range(self.n):
            self.time.now += self.takes
            yield Candidate.of({"n": i + 1}, matrices.with_output(matrices.output * (1 + i)))
        return None

    def cost(self, sizes: TextSizes) -> Cost:
        return Cost(forward_tokens=round(1000 * self.says), passes=0, seconds=self.own)

    def least(self, sizes: TextSizes) -> Cost:
        return Cost(forward_tokens=round(1000 * self.says / self.n), passes=0)


@pytest.fixture
def slow(same: CalibrationData) -> CalibrationData:
    return dataclasses.replace(same, pace=SLOW)


def run(data: CalibrationData, own: Matrices, time: Time, seconds: float, *stages: Stage):
    figures = iter(np.linspace(9, 1, 100))
    acceptance = Acceptance(lambda _: float(next(figures)))
    return calibrate(data, own, stages, clock=Clock(seconds, time), acceptance=acceptance)


def test_a_clock_counts_down_and_is_shared() -> None:
    time = Time()
    clock = Clock(100, time)
    time.now = 30
    assert clock.left() == 70
    early, short = clock.keeping(20), clock.within(10)
    time.now = 75
    assert (clock.left(), early.left(), short.left()) == (25, 5, -35)
    assert clock.within(50).left() == 25
    assert short.over
    assert not early.over
    assert Clock().left() == float("inf")


def test_a_stage_that_does_not_fit_is_not_begun_and_the_next_is(slow, own) -> None:
    time = Time()
    done = run(slow, own, time, 60, Takes(time, 100, 100), Takes(time, 50, 50))
    assert [record.kept for record in done.records] == [False, True]
    assert done.records[0].why == "not tried: it needs about 100 s, 60 s are left"
    assert time.now == 50


def test_a_stage_under_way_asks_for_no_candidate_that_would_be_late(slow, own) -> None:
    time = Time()
    done = run(slow, own, time, 100, Takes(time, 300, 30, n=10))
    assert time.now == 90
    assert done.records[0].settings == {"n": 3}


def test_a_training_gets_its_time_and_what_comes_before_leaves_it(slow, own) -> None:
    time = Time()
    first, training = Takes(time, 50, 50), Takes(time, 0, 60, own=60)
    done = run(slow, own, time, 100, first, training)
    assert "needs about 50 s, 40 s are left" in done.records[0].why
    assert training.given == 100
    time = Time()
    first, training = Takes(time, 30, 30), Takes(time, 0, 60, own=60)
    run(slow, own, time, 100, first, training, Takes(time, 8, 8))
    assert first.given == 32
    assert training.given == pytest.approx(70 - LATE * 8)


def test_without_a_clock_or_a_pace_nothing_is_left_out(same, own) -> None:
    time = Time()
    done = run(same, own, time, float("inf"), Takes(time, 1e9, 1e9, n=3))
    assert done.records[0].settings == {"n": 3}


def test_where_not_even_the_start_can_be_measured_nothing_is_run(slow, own) -> None:
    time = Time()
    done = run(slow, own, time, 1e-3, Takes(time, 1, 1))
    assert done.records[0].before is None
    assert done.matrices is own
    assert time.now == 0


def test_texts_to_judge_by_follow_the_pace(same: CalibrationData) -> None:
    context = same.context
    n_rows = len(context.target.token_bytes)
    for body, head in ((10.0, 1e4), (100.0, 1e5)):
        pace = Pace(body, head)
        bounds = text_bounds(context, pace, 600, other=True)
        look = pace.seconds(bounds.selection / 3, bounds.selection / 3, n_rows)
        assert bounds.cut
        assert look < 0.031 * 600 or bounds.selection == FEWEST_BYTES
        assert bounds.other < bounds.selection or bounds.selection == FEWEST_BYTES
    fast = text_bounds(context, Pace(1e6, 1e9), 600, other=True)
    assert not fast.cut
    assert fast.selection == text_bounds(context, NO_TIME, 600, other=True).selection


def test_what_is_fitted_to_grows_with_time() -> None:
    short, long = (AffordedText.of(SLOW, s, 0.25, 64, 1e9) for s in (60.0, 600.0))
    assert long.fit == pytest.approx(10 * short.fit)
    assert long.contexts == pytest.approx(10 * short.contexts, rel=1e-2)
    assert long.more(long.fit) > long.fit


def test_on_little_text_any_gain_counts_and_a_rise_elsewhere_only_beyond_chance() -> None:
    n_bytes, rng = np.full(40, 100), np.random.default_rng(0)
    hard = rng.normal(100, 20, size=40)
    start = BitsPerByte.of(hard, n_bytes)
    noise = rng.normal(0, 5, size=40)
    whole, cut = Acceptance(lambda _: 0.0), Acceptance(lambda _: 0.0, cut=True)
    little = BitsPerByte.of(hard - 0.02 + noise - noise.mean(), n_bytes)
    assert 0 < start - little < whole.least_gain
    assert [whole.wins(start, little), cut.wins(start, little)] == [False, True]
    for acceptance in (whole, cut):
        assert not acceptance.wins(start, start)
        assert not acceptance.wins(little, start)
    chance = BitsPerByte.of(hard + 0.2 + noise - noise.mean(), n_bytes)
    sure = BitsPerByte.of(hard + 0.2 + rng.normal(0, 0.1, size=40), n_bytes)
    assert min(chance - start, sure - start) > whole.most_rise
    for after, allowed in ((chance, True), (sure, False)):
        assert (after - start <= cut.allowed(start, after)) == allowed
        assert not after - start <= whole.allowed(start, after)


@pytest.mark.parametrize(("rise", "kept"), [(0.05, True), (0.2, False)])
def test_what_loses_more_on_other_text_than_it_wins_is_refused(
    same: CalibrationData, own: Matrices, rise: float, kept: bool
) -> None:
    selection, other = iter([9.0, 8.9]), iter([5.0, 5.0 + rise])
    acceptance = Acceptance(lambda _: next(selection), lambda _: next(other))
    stage = Takes(Time(), 0, 0)
    assert not stage.changes_shared
    done = calibrate(same, own, (stage,), clock=Clock(), acceptance=acceptance)
    (record,) = done.records
    assert record.kept is kept
    assert (done.matrices is own) is not kept
    assert record.other_after == 5.0 + rise
    assert record.why.startswith("gains 0.100" if kept else "loses more on other text (+0.200)")


def test_a_plan_keeps_half_of_what_is_left_for_a_training() -> None:
    plan, later = Plan("heal", 0, 0, own=60), [Plan("refit", 200, 80)]
    assert plan.room(100, later) == 50
    assert plan.room(300, later) == pytest.approx(300 - LATE * 80)
    assert later[0].room(100, [plan]) == 40  # of which it needs 80: it is not begun
    yielding = Plan("distil", 0, 0, own=60, yields=30)
    assert later[0].room(100, [yielding]) == 70  # still less than the 80
    assert later[0].room(120, [yielding]) == 80
    cheap, dear = Plan("shrunk", 10, 5), Plan("match", 300, 30)
    assert dear.room(100, [cheap, cheap]) == 90
    assert dear.room(32, [cheap, cheap]) == 30
    assert dear.room(20, [cheap, cheap]) == 20


def test_a_stage_that_is_not_reserved_takes_what_others_leave() -> None:
    distil, share = Plan("distil", 0, 0, own=60, yields=30), Plan("shares", 50, 40)
    waits = Plan("refit", 200, 80, reserved=False)
    assert distil.room(200, [share, waits]) == pytest.approx(200 - LATE * 40)
    assert share.room(100, [waits]) == 100
    assert waits.room(100, []) == 100
    assert not Plan.at(Refit(), TextSizes(fit=100), NO_TIME).reserved
    assert Plan.at(Quiet(), TextSizes(fit=100), NO_TIME).reserved


def test_a_training_without_time_for_its_first_steps_is_left_nothing() -> None:
    distil, quiet = Plan("distil", 0, 5, own=60, yields=30, first=40), Plan("quiet", 30, 18)
    assert distil.needed == 45
    assert quiet.room(28, [distil]) == 28
    assert quiet.room(100, [distil]) == 35


def test_stages_before_a_training_leave_it_and_later_ones_what_they_need_to_begin() -> None:
    distil, shares = Plan("distil", 0, 10, own=60, yields=30, first=15), Plan("shares", 50, 20)
    blend = Plan("blend", 40, 30)
    assert blend.room(100, [distil, shares]) == 30  # 70 are left: 30 that are firm, and 10, and 20
    assert blend.room(89, [distil, shares]) == 29  # it is not begun
    slow = Plan("distil", 0, 10, own=60, yields=30, first=25)  # what is firm would not do for it
    assert blend.room(89, [slow, shares]) == 30


def test_lessons_are_written_once_and_counted_once() -> None:
    distil = Plan("distil", 0, 5, own=60, yields=30, first=40, writing=20)
    shares, refit = Plan("shares", 50, 40, writing=20), Plan("refit", 200, 80, reserved=False)
    assert (distil.needed, shares.needed) == (65, 60)
    assert distil.room(200, [shares, refit]) == pytest.approx(200 - LATE * 40)  # it writes itself
    quiet = Plan("quiet", 30, 18)
    assert quiet.room(200, [distil, shares]) == 200 - (5 + 40) - 60  # in the time of `distil`
    assert quiet.room(64, [distil, shares]) == 18  # `shares` alone, which writes them
    assert quiet.room(100, [shares]) == 100 - 40 - 20


def test_lessons_that_are_there_take_no_time(same: CalibrationData) -> None:
    time = WritingTime.within(3.0, 100.0)
    data = dataclasses.replace(same, lesson_time=dataclasses.replace(time, seconds=0.01))
    assert (time.slow, Plan.of(Distil(seconds=60), data).writing) == (True, 3.0)
    assert Plan.of(Shares(), data).writing == 3.0
    assert Plan.of(Quiet(), data).writing == 0
    assert isinstance(data.lessons, tuple)
    assert Plan.of(Shares(), data).writing == 0
    assert WritingTime.within(3.0, 1.0) == WritingTime(3.0, slow=False, expected=1.0)


def test_a_training_without_time_for_its_first_steps_is_not_begun(
    same: CalibrationData, own: Matrices
) -> None:
    pace = dataclasses.replace(measure_pace(same.model), body=100.0)
    slow = dataclasses.replace(same, pace=pace)
    done = calibrate(slow, own, (Distil(seconds=60),), clock=Clock(60))
    (record,) = done.records
    assert record.why.startswith("not tried: it needs about ")
    assert (record.gradient_steps, done.matrices is own) == (0, True)


def test_a_pace_is_finite(same: CalibrationData) -> None:
    pace = measure_pace(same.model)
    assert 0 < pace.body < float("inf")
    assert pace.seconds(pace.body) == pytest.approx(1)
    assert pace.seconds(0, pace.head / 100, 100) == pytest.approx(1)
    assert NO_TIME.seconds(1e12, 1e12, 1000) == 0
