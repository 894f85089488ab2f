"""Whether a stage's candidate is kept: measured on text that the stage was not fitted to."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from tokensurgeon.calibration.contract import Candidate, Stage, StageRecord
from tokensurgeon.calibration.data import CalibrationData
from tokensurgeon.calibration.matrices import Matrices
from tokensurgeon.errors import EvaluationError

LEAST_GAIN = 1e-3
"""Bits per byte that a stage must win on the selection text to be kept: what 40 kB of text tell
from nothing."""
MOST_RISE = 1e-3
"""Bits per byte that a stage which changes shared rows may cost on text of another domain: what a
short text cannot tell from nothing."""

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
    """

    selection: Measured
    other: Measured | None = None
    least_gain: float = LEAST_GAIN
    most_rise: float = MOST_RISE

    @classmethod
    def of(cls, data: CalibrationData) -> Acceptance:
        """Return the acceptance on the texts that were parted for it."""
        texts = data.texts
        return cls(
            lambda matrices: data.score(matrices, texts.selection),
            (lambda matrices: data.score(matrices, texts.other)) if texts.other else None,
        )


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
    rows that both tokenizers have, does not lose on text of another domain; else the next best is
    asked, then parts of what the best would change.
    """
    start, forward = time.perf_counter(), data.forward_tokens
    steps, matrices = data.gradient_steps, standing.matrices
    measure, before = acceptance.selection, standing.bits
    ranked: list[tuple[float, Candidate]] = []
    proposals, best, reason = stage.propose(data, matrices), None, None
    try:
        while True:
            candidate = proposals.send(best)
            objective = stage.own_objective()
            if objective is not None and not ranked:
                measure, before = objective, objective(matrices)
            try:
                figure = measure(candidate.matrices)
            except EvaluationError:  # rows that are not finite, or so large that losses are not
                best = False
                continue
            best = figure < min([before, *(other for other, _ in ranked)])
            ranked.append((figure, candidate))
            ranked.sort(key=lambda pair: pair[0])
            del ranked[stage.kept_candidates :]  # memory holds so many, no more
    except StopIteration as end:
        reason = end.value
    bits = stage.own_objective() is None
    asks_other = stage.changes_shared and bits and acceptance.other is not None
    bound = standing.other_at_start if stage.bounded_by_start else standing.other
    if ranked:
        chosen = acceptance if bits else replace(acceptance, selection=measure)
        verdict = decide(matrices, before, ranked, bound if asks_other else None, stage, chosen)
    else:
        verdict = Verdict(None, reason or "no gain: nothing that can be measured", {})
    after, kept = standing, verdict.kept
    other_after = verdict.other_after
    if kept is not None and verdict.after is not None:
        rows = kept.matrices
        if acceptance.other is not None and other_after is None:
            # A stage that leaves shared rows alone was not asked about other text; the next one is
            # measured against it, and the report says it.
            other_after = acceptance.other(rows)
        figure = verdict.after if bits else acceptance.selection(rows)
        after = replace(standing, matrices=rows, bits=figure, other=other_after)
    record = StageRecord(
        stage=stage.name,
        kept=kept is not None,
        why=verdict.why,
        settings=verdict.settings,
        before=standing.bits,
        after=after.bits if kept is not None else verdict.after if bits else standing.bits,
        other_before=standing.other if kept is not None or asks_other else None,
        other_after=other_after,
        seconds=round(time.perf_counter() - start, 3),
        forward_tokens=data.forward_tokens - forward,
        gradient_steps=data.gradient_steps - steps,
    )
    return after, record


def decide(
    matrices: Matrices,
    before: float,
    ranked: list[tuple[float, Candidate]],
    bound: float | None,
    stage: Stage,
    acceptance: Acceptance,
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
    """
    best, candidate = ranked[0]
    gain = f"{before - best:.4f} gained, {acceptance.least_gain:g} are needed"
    worse = f"{best - before:.3f} bits per byte worse"
    why = f"no gain on the selection text: {worse if best > before else gain}"
    not_kept = Verdict(None, why, candidate.settings, best)
    for figure, candidate in _worth_asking(matrices, before, ranked, stage, acceptance):
        gain, other = stage.describe(before, figure), None
        if bound is not None and acceptance.other is not None:
            other = acceptance.other(candidate.matrices)
            if not other - bound <= acceptance.most_rise:
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
) -> Iterator[tuple[float, Candidate]]:
    """Yield the candidates that win enough, then the best with smaller parts of its change."""
    enough = [pair for pair in ranked if before - pair[0] >= acceptance.least_gain]
    yield from enough
    for share in stage.parts if enough else ():
        best = enough[0][1]
        smaller = matrices.towards(best.matrices, share)
        figure = acceptance.selection(smaller)
        if before - figure >= acceptance.least_gain:
            yield figure, Candidate.of({**best.settings, "of_the_change": share}, smaller)
