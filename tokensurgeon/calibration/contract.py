"""What a calibration stage is, and what is recorded of one.

A stage proposes rows; `tokensurgeon.calibration.acceptance` measures them on text that the stage
was not fitted to, and keeps the best or none. Closed-form stages, training by gradients and the
fit of a draft are stages alike.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tokensurgeon.calibration.data import CalibrationData, TextSizes
from tokensurgeon.calibration.matrices import Matrices
from tokensurgeon.models.pace import Pace

PARTS = (0.75, 0.5, 0.25)
"""Shares of a change that are tried where the whole of it costs too much on other text. What a
small step wins falls with its length, and what it costs elsewhere with the square of it."""


@dataclass(frozen=True)
class Candidate:
    """One way to do a stage, to be measured before it is believed.

    Attributes
    ----------
    settings : dict
        For the record.
    make : callable() -> Matrices
        The rows; called again whenever they are wanted, so that several candidates that are parts
        of one change need not be in memory together.
    """

    settings: dict[str, Any]
    make: Callable[[], Matrices]

    @classmethod
    def of(cls, settings: dict[str, Any], matrices: Matrices) -> Candidate:
        """Return a candidate whose rows are there."""
        return cls(settings, lambda: matrices)

    @property
    def matrices(self) -> Matrices:
        """The rows."""
        return self.make()


Candidates = Generator[Candidate, bool | None, str | None]
"""Candidates, computed one at a time. Each is answered with whether it is the best so far (the rows
as they were count too), so that a series which goes on from it may end. What is returned at the
end, if anything, says why there was nothing to propose."""


def on_the_way(
    start: Matrices, end: Matrices, settings: dict[str, Any], shares: Sequence[float] = PARTS
) -> Candidates:
    """Yield where a training led, and rows on the way there, one in memory at a time.

    They are often better, on the text and elsewhere (weight-space ensembles; Wortsman et al., 2022,
    arXiv 2109.01903).
    """
    yield Candidate.of(settings, end)
    for share in shares:
        yield Candidate({**settings, "of_the_change": share}, partial(start.towards, end, share))
    return None


@dataclass(frozen=True)
class Cost:
    """What a stage takes at most, known before it runs.

    Attributes
    ----------
    forward_tokens : int
        Run through the body to make the candidates.
    passes : int
        Runs over the selection text and other text to measure candidates.
    seconds : float
        The time of its own that it was given, as a training is; 0 for the others.
    scored : int
        States at which the whole target vocabulary is scored to make the candidates.
    first_tokens : int
        Of a training: what its first steps cost, in tokens of a forward pass. With time for less it
        has nothing to show.
    writing : float
        Seconds in which the source writes lessons first, unless an earlier stage has read them.
    """

    forward_tokens: int = 0
    passes: int = 1
    seconds: float = 0.0
    scored: int = 0
    first_tokens: int = 0
    writing: float = 0.0

    def total_tokens(self, sizes: TextSizes) -> int:
        """Return all tokens that are run through the body, measuring included."""
        return self.forward_tokens + self.passes * (sizes.selection + sizes.other)

    def work_seconds(self, pace: Pace, sizes: TextSizes) -> float:
        """Return what all this takes at the pace of a model, its own time left out."""
        scored = self.scored + self.passes * (sizes.selection + sizes.other)
        return pace.seconds(self.total_tokens(sizes), scored, sizes.n_rows)


class Stage(ABC):
    """Proposes ways to change the rows.

    Attributes
    ----------
    name : str
        As in recipes and reports.
    changes_shared : bool
        Whether rows that both tokenizers have, or the body, may change: then other text is asked
        too.
    one_side : bool
        Whether it moves the rows of one side with no heed to the other. On a tied checkpoint it
        moves both, and is tried only where it is named.
    shared_alone : bool
        Whether it cannot leave rows of shared tokens as they are and do something all the same:
        where they are to stay, it is not tried.
    after_training : bool
        Whether it comes after a training of the rows, where there is one.
    adapts_to_text : bool
        Whether it would help the source on its own text too. The gap to the source is then said
        beside the gap to a source that was calibrated alike.
    parts : tuple of float
        Shares of the best candidate's change that are tried where no candidate is accepted.
    kept_candidates : int
        How many of the best candidates are tried on other text.
    bounded_by_start : bool
        Whether other text may cost what it cost before all stages, and not only before this one.
    yields : float
        Share of the time that it is given, as a training is, which stages before it may take to
        begin; 0 where a user asked for so many minutes.
    reserved : bool
        Whether stages before it leave it the time that it needs to begin; else it takes what they
        leave.
    fit_passes, validation_passes : int
        For `cost`: runs over the text that is fitted to, and to measure candidates; one where only
        output rows change, for final states are kept.
    """

    name: str
    changes_shared: bool = False
    one_side: bool = False
    shared_alone: bool = False
    after_training: bool = False
    adapts_to_text: bool = False
    parts: tuple[float, ...] = PARTS
    kept_candidates: int = 2
    bounded_by_start: bool = False
    yields: float = 0.0
    reserved: bool = True
    fit_passes: int = 0
    validation_passes: int = 1

    @abstractmethod
    def propose(self, data: CalibrationData, matrices: Matrices) -> Candidates:
        """Yield candidates.

        Parameters
        ----------
        data : CalibrationData
        matrices : Matrices
            The rows as they are; not changed.
        """

    def cost(self, sizes: TextSizes) -> Cost:
        """Return what the stage takes at most on texts of these sizes."""
        return Cost(self.fit_passes * sizes.fit, self.validation_passes)

    def least(self, sizes: TextSizes) -> Cost:
        """Return what the stage takes until its first candidate is measured.

        It is begun where this fits into what is left of the time.
        """
        return self.cost(sizes)

    def own_objective(self) -> Callable[[Matrices], float] | None:
        """Return what must fall for a candidate to be accepted; None for bits per byte.

        It is asked for after the first candidate. Other text is not asked where there is one.
        """
        return None

    def describe(self, before: float, after: float) -> str:
        """Say what an accepted candidate brought, in the unit of the objective."""
        return f"gains {before - after:.3f} on the selection text"


@dataclass(frozen=True)
class StageRecord:
    """What a stage did.

    Attributes
    ----------
    stage : str
    kept : bool
    why : str
        In words, why it was kept or not.
    settings : dict
        Of the best candidate.
    before, after : float or None
        Bits per byte on the selection text, with the best candidate.
    other_before, other_after : float or None
        On text of another domain, where the stage changes shared rows.
    seconds : float
    forward_tokens : int
        Run through the source's body.
    gradient_steps : int
    """

    stage: str
    kept: bool
    why: str
    settings: dict[str, Any] = field(default_factory=dict)
    before: float | None = None
    after: float | None = None
    other_before: float | None = None
    other_after: float | None = None
    seconds: float = 0.0
    forward_tokens: int = 0
    gradient_steps: int = 0
