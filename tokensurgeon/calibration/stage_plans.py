"""What a stage of a calibration is expected to take, known before it runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tokensurgeon.calibration.contract import Cost, Stage
from tokensurgeon.calibration.data import CalibrationData, TextSizes
from tokensurgeon.models.pace import Pace

LEAST_TRAINING = 0.5
"""Share of the time left that a training keeps, whatever is to come after it, and of its room that
it trains, however many candidates there are to look at: it was asked for by name."""

LATE = 1.15
"""Times what later stages need to begin that a training leaves them: it ends a step or a look late,
and after one `shares` was not begun for want of four seconds of 51."""


@dataclass(frozen=True)
class Plan:
    """What a stage is expected to take.

    Attributes
    ----------
    stage : str
    work : float
        Seconds of computing, at most.
    least : float
        Of these, before the stage has anything to show.
    own : float
        Seconds that it was given, as a training is.
    yields : float
        Of these, what stages before it may take to begin.
    first : float
        Of these, what its first steps take.
    writing : float
        Seconds in which it lets the source write lessons first, those of a training in its own.
    reserved : bool
        Whether stages before it leave it what it needs to begin.
    """

    stage: str
    work: float
    least: float
    own: float = 0.0
    yields: float = 0.0
    first: float = 0.0
    writing: float = 0.0
    reserved: bool = True

    @classmethod
    def of(cls, stage: Stage, data: CalibrationData) -> Plan:
        """Return what a stage is expected to take on some data."""
        return cls.at(stage, data.sizes, data.pace)

    @classmethod
    def at(cls, stage: Stage, sizes: TextSizes, pace: Pace) -> Plan:
        """Return the same on texts that need not be there yet."""
        cost = stage.cost(sizes)
        if cost.seconds:
            # Its looks at the text on the way are in its own time.
            one, all_of_it = (
                Cost(passes=min(cost.passes, n)).work_seconds(pace, sizes)
                for n in (1, stage.kept_candidates)
            )
            yields, first = stage.yields * cost.seconds, pace.seconds(cost.first_tokens)
            return cls(stage.name, all_of_it, one, cost.seconds, yields, first, cost.writing)
        least = stage.least(sizes).work_seconds(pace, sizes)
        work = cost.work_seconds(pace, sizes)
        return cls(stage.name, work, least, writing=cost.writing, reserved=stage.reserved)

    @property
    def needed(self) -> float:
        """With less it is not begun."""
        return self.least + self.first + self.writing

    def room(self, left: float, later: Sequence[Plan]) -> float:
        """Return the seconds of those left that the stage may take.

        Later ones are left what they need to begin, and the time that they were given. Those are
        left nothing that take what others leave, or for which even all that is left would not do.
        One that only computes takes what it needs to begin itself in any case, but of given time
        only what is yielded; and where the rest is enough for a training to begin, nothing of what
        others need to begin either. A training keeps half of what is left.
        """
        later = [plan for plan in later if plan.reserved and plan.needed < left]
        begin, given = sum(plan.least for plan in later), sum(plan.own for plan in later)
        if not self.writing and not any(plan.own and plan.writing for plan in later):
            begin += max((plan.writing for plan in later), default=0.0)  # of which one will write
        if self.own:
            return max(left - LATE * begin - given, LEAST_TRAINING * left)
        firm = given - sum(plan.yields for plan in later)
        if any(plan.own and plan.needed <= plan.own - plan.yields for plan in later):
            firm += begin
        return max(left - begin - given, min(self.needed, left - firm))

    def training(self, room: float) -> float:
        """Return the seconds of its room that a training may train; the rest is for looking."""
        return room - max(self.least, min(self.work, LEAST_TRAINING * room))
