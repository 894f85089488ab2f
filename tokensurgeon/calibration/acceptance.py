"""Whether a stage's candidate is kept: measured on text that the stage was not fitted to."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from tokensurgeon.calibration.contract import Candidate, Stage, StageRecord
from tokensurgeon.calibration.data import CalibrationData
from tokensurgeon.calibration.matrices import Matrices
from tokensurgeon.calibration.paired_figures import standard_error
from tokensurgeon.errors import CalibrationError, EvaluationError
from tokensurgeon.progress import Clock

LEAST_GAIN = 1e-3
"""Bits per byte that a stage must win on the selection text to be kept: what 40 kB of text tell
from nothing."""
MOST_RISE = 1e-3
"""Bits per byte that a stage which changes shared rows may cost on text of another domain: what a
short text cannot tell from nothing."""
UNSURE = 1.0
"""Standard errors, over chunks of a text that was cut to the time: a rise on other text below that
is not told from nothing. A gain need not be beyond chance: at two standard errors, and at a half, a
stage was refused that wins 0.015 bits per byte on held-out articles, for 16 kB did not show it that
well; and what is more likely a gain than a loss is worth keeping."""

Measured = Callable[[Matrices], float]


@dataclass(frozen=True)
class Acceptance:
    """What decides over candidates.

    Attributes
    ----------
    selection : callable(Matrices) -> float
        Bits per byte on the selection text.
    other : callable(Matrices) -> float, or None
        Bits per byte on text of another domain, where there is some.
    least_gain, most_rise : float
        Bits per byte.
    cut : bool
        Whether time left little text. Then any gain counts, and a rise on other text counts only
        beyond a standard error of the differences between chunks.
    """

    selection: Measured
    other: Measured | None = None
    least_gain: float = LEAST_GAIN
    most_rise: float = MOST_RISE
    cut: bool = False

    @classmethod
    def of(cls, data: CalibrationData) -> Acceptance:
        """Return the acceptance on the texts that were parted for it."""
        texts = data.texts
        return cls(
            lambda matrices: data.score(matrices, texts.selection),
            (lambda matrices: data.score(matrices, texts.other)) if texts.other else None,
            cut=texts.cut,
        )

    @property
    def needed(self) -> float:
        """The gain that two figures on the selection text must show."""
        return 0.0 if self.cut else self.least_gain

    def allowed(self, bound: float, other: float) -> float:
        """Return the rise that two figures on other text may show."""
        error = standard_error(bound, other) if self.cut else 0.0
        return max(self.most_rise, UNSURE * error)

    def wins(self, before: float, after: float) -> bool:
        """Whether a candidate wins enough on the selection text."""
        gain = before - after
        return gain >= self.needed and (gain > 0 or not self.cut)


@dataclass(frozen=True)
class Standing:
    """Rows, and what they cost.

    Attributes
    ----------
    matrices : Matrices
    bits : float
        Bits per byte on the selection text.
    other : float or None
        On text of another domain.
    other_at_start : float or None
        The same before the first stage.
    """

    matrices: Matrices
    bits: float
    other: float | None = None
    other_at_start: float | None = None

    @classmethod
    def of(cls, acceptance: Acceptance, matrices: Matrices) -> Standing:
        """Measure rows."""
        other = None if acceptance.other is None else acceptance.other(matrices)
        return cls(matrices, acceptance.selection(matrices), other, other)


@dataclass(frozen=True)
class Verdict:
    """What acceptance says of candidates.

    Attributes
    ----------
    kept : Candidate or None
        The first that passes.
    why : str
        In words.
    settings : dict
        Of the one that passes, else of the best.
    after, other_after : float or None
        The objective of the same one, and bits per byte on other text where that was asked.
    """

    kept: Candidate | None
    why: str
    settings: dict[str, Any]
    after: float | None = None
    other_after: float | None = None


def run_stage(
    data: CalibrationData, standing: Standing, stage: Stage, acceptance: Acceptance
) -> tuple[Standing, StageRecord]:
    """Let a stage propose, measure its candidates, and keep the best that is accepted.

    A candidate is accepted if it wins enough on the selection text and, where the stage changes
    rows that both tokenizers have, or the body, does not lose on text of another domain; else the
    next best is asked, then parts of what the best would change. Once `data.end` leaves less than
    another candidate would take, no further one is asked for.

    Raises
    ------
    CalibrationError
        If a candidate changes weights of the body that it may not.
    """
    start, forward = time.perf_counter(), data.forward_tokens
    steps, matrices = data.gradient_steps, standing.matrices
    measure, before = acceptance.selection, standing.bits
    ranked: list[tuple[float, Candidate]] = []
    proposals, best, reason = stage.propose(data, matrices), None, None
    trains, changes_body = stage.cost(data.sizes).seconds > 0, False
    try:
        while True:
            asked = data.end.left()
            candidate = proposals.send(best)
            if trains:  # the next one is there already, and need only be looked at
                asked = data.end.left()
            objective = stage.own_objective()
            if objective is not None and not ranked:
                measure, before = objective, objective(matrices)
            proposed = candidate.matrices
            changes_body |= _changes_body(data, stage, matrices, proposed)
            try:
                figure = measure(proposed)
            except EvaluationError:  # rows that are not finite, or so large that losses are not
                best = False
                continue
            best = figure < min([before, *(other for other, _ in ranked)])
            ranked.append((figure, candidate))
            ranked.sort(key=lambda pair: pair[0])
            del ranked[stage.kept_candidates :]  # memory holds so many, no more
            left = data.end.left()
            if left < asked - left:  # the next takes as long as this one
                proposals.close()
                break
    except StopIteration as end:
        reason = end.value
    bits = stage.own_objective() is None
    asks_other = (stage.changes_shared or changes_body) and bits and acceptance.other is not None
    bound = standing.other_at_start if stage.bounded_by_start else standing.other
    if ranked:
        chosen = acceptance if bits else replace(acceptance, selection=measure, cut=False)
        verdict = decide(
            matrices, before, ranked, bound if asks_other else None, stage, chosen, data.end
        )
    else:
        verdict = Verdict(None, reason or "no gain: nothing that can be measured", {})
    if bits and verdict.kept is not None:
        verdict = _weighed(verdict, standing, acceptance)
    after, kept = standing, verdict.kept
    other_after = verdict.other_after
    if kept is not None and verdict.after is not None:
        rows = kept.matrices
        if acceptance.other is not None and other_after is None:
            # A stage with an objective of its own was not asked; the report says it all the same.
            other_after = acceptance.other(rows)
        figure = verdict.after if bits else acceptance.selection(rows)
        after = replace(standing, matrices=rows, bits=figure, other=other_after)
    record = StageRecord(
        stage=stage.name,
        kept=kept is not None,
        why=verdict.why,
        settings=verdict.settings,
        before=float(standing.bits),
        after=_plain(after.bits if kept is not None else verdict.after if bits else standing.bits),
        other_before=_plain(standing.other if kept is not None or asks_other else None),
        other_after=_plain(other_after),
        seconds=round(time.perf_counter() - start, 3),
        forward_tokens=data.forward_tokens - forward,
        gradient_steps=data.gradient_steps - steps,
    )
    return after, record


def _weighed(verdict: Verdict, standing: Standing, acceptance: Acceptance) -> Verdict:
    """Return a verdict with its figure on other text; refuse what loses more there than it wins.

    A stage that leaves shared rows alone was not asked about other text. One number for all new
    rows, say, can win a thousandth on one kind of text and cost a hundredth on others.
    """
    before, other = standing.other, verdict.other_after
    if acceptance.other is None or before is None or verdict.after is None or not verdict.kept:
        return verdict
    if other is None:
        other = acceptance.other(verdict.kept.matrices)
    won, lost = standing.bits - verdict.after, other - before
    if lost <= won:
        return replace(verdict, other_after=other)
    why = f"loses more on other text ({lost:+.3f}) than it wins, {verdict.why}"
    return replace(verdict, kept=None, why=why, other_after=other)


def _changes_body(data: CalibrationData, stage: Stage, before: Matrices, after: Matrices) -> bool:
    """Whether a candidate changes the body; refused where it may not."""
    if after.body is before.body:
        return False
    for name in after.body.names if after.body is not None else ():
        if name not in data.body_weights:
            raise CalibrationError(
                f"the stage '{stage.name}' changes {name}, which it may not: add --heal-body, or "
                "leave the stage out"
            )
    return True


def _plain(figure: float | None) -> float | None:
    """Return a figure without its chunks."""
    return None if figure is None else float(figure)


def decide(
    matrices: Matrices,
    before: float,
    ranked: list[tuple[float, Candidate]],
    bound: float | None,
    stage: Stage,
    acceptance: Acceptance,
    clock: Clock | None = None,
) -> Verdict:
    """Return which candidate passes: it wins enough, and on other text does not rise over `bound`.

    Parameters
    ----------
    matrices : Matrices
        The rows as they are.
    before : float
        Their objective.
    ranked : list of (float, Candidate)
        The objective of each; the best first, at least one.
    bound : float or None
        Bits per byte on other text; None where it is not asked.
    stage : Stage
    acceptance : Acceptance
        Its `selection` is the objective.
    clock : Clock, optional
        Once it is over, parts of the change are not tried.
    """
    best, candidate = ranked[0]
    gain = f"{before - best:.4f} gained, {acceptance.needed:.3g} are needed"
    worse = f"{best - before:.3f} bits per byte worse"
    why = f"no gain on the selection text: {worse if best > before else gain}"
    not_kept = Verdict(None, why, candidate.settings, best)
    for figure, candidate in _worth_asking(matrices, before, ranked, stage, acceptance, clock):
        gain, other = stage.describe(before, figure), None
        if bound is not None and acceptance.other is not None:
            other = acceptance.other(candidate.matrices)
            if not other - bound <= acceptance.allowed(bound, other):
                if not_kept.other_after is None:
                    why = f"loses on other text ({other - bound:+.3f}), {gain}"
                    not_kept = replace(not_kept, why=why, other_after=other)
                continue
        return Verdict(candidate, gain, candidate.settings, figure, other)
    return not_kept


def _worth_asking(
    matrices: Matrices,
    before: float,
    ranked: list[tuple[float, Candidate]],
    stage: Stage,
    acceptance: Acceptance,
    clock: Clock | None,
) -> Iterator[tuple[float, Candidate]]:
    """Yield the candidates that win enough, then the best with smaller parts of its change."""
    enough = [pair for pair in ranked if acceptance.wins(before, pair[0])]
    yield from enough
    for share in stage.parts if enough else ():
        if clock is not None and clock.over:
            return
        best = enough[0][1]
        smaller = matrices.towards(best.matrices, share)
        figure = acceptance.selection(smaller)
        if acceptance.wins(before, figure):
            of_all = share * best.settings.get("of_the_change", 1.0)
            yield figure, Candidate.of({**best.settings, "of_the_change": of_all}, smaller)
