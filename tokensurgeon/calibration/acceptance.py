"""Try stages one after another, and keep what helps on text that no stage was fitted to."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from tokensurgeon.calibration.contract import Candidate, Matrices, Stage, StageRecord
from tokensurgeon.calibration.data import Workbench
from tokensurgeon.calibration.stages.context_rows import StandIn
from tokensurgeon.calibration.stages.output_rows import Prior, Readout, Shrunk
from tokensurgeon.calibration.stages.refit import Refit
from tokensurgeon.calibration.stages.states import Fold, Match, Unigram
from tokensurgeon.errors import EvaluationError, UnknownNameError, UsageError
from tokensurgeon.progress import Progress, no_progress

STAGES: dict[str, Callable[[], Stage]] = {
    "stand-in": StandIn,
    "match": Match,
    "match-shared": partial(Match, shared=True),
    "shrunk": Shrunk,
    "prior": Prior,
    "readout": Readout,
    "fold": Fold,
    "unigram": Unigram,
    "unigram-shared": partial(Unigram, shared=True),
    "refit": Refit,
}
"""Every stage, in the order in which they are tried."""

LEAST_GAIN = 1e-3
"""Bits per byte that a stage must win on the selection text to be kept."""
MOST_RISE = 1e-3
"""Bits per byte that a stage which changes shared rows may cost on text of another domain: what a
short text cannot tell from nothing."""
PARTS = (0.75, 0.5, 0.25)
"""Of a change that costs there too much, or of a training: asked in turn."""


def check_stages(names: Sequence[str], tied: bool) -> None:
    """Refuse unknown stages, and on a tied checkpoint those that make its sides differ.

    Raises
    ------
    UnknownNameError, UsageError
    """
    for name in names:
        if name not in STAGES:
            raise UnknownNameError(f"no calibration stage '{name}'; known: {', '.join(STAGES)}")
        if tied and STAGES[name]().two_matrices:
            raise UsageError(
                f"the calibration '{name}' makes the input and the output rows differ, and the "
                "source ties them: leave it out, or add --untie"
            )


def default_stages(tied: bool) -> tuple[str, ...]:
    """Return the stages that are tried where nobody names any: all, or all that a tie allows."""
    return tuple(name for name, make in STAGES.items() if not (tied and make().two_matrices))


def calibrate(
    bench: Workbench,
    matrices: Matrices,
    names: Sequence[str],
    *,
    seconds: float = float("inf"),
    progress: Progress = no_progress,
) -> tuple[Matrices, tuple[StageRecord, ...]]:
    """Try the stages in turn, each on what the last left.

    A stage proposes a few candidates. The best on the selection text is kept if it wins at least
    0.001 bits per byte there and, where it changes rows that both tokenizers have, does not lose
    on text of another domain; else the next best is asked, then three quarters, a half and a
    quarter of what the best would change.

    Parameters
    ----------
    bench : Workbench
    matrices : Matrices
        The rows to start from; not changed.
    names : sequence of str
        Of `STAGES`.
    seconds : float
        No stage is begun once this much time is spent.

    Returns
    -------
    Matrices, tuple of StageRecord
        One record for each name, in order.
    """
    check_stages(names, matrices.tied)
    start = time.perf_counter()
    before = bench.score(matrices, bench.texts.selection)
    other = bench.score(matrices, bench.texts.other) if bench.texts.other else None
    records = []
    for done, name in enumerate(names):
        progress(done, len(names), f"calibrating: {name}")
        if time.perf_counter() - start > seconds:
            why = f"not tried: the budget of {seconds / 60:.3g} minutes is spent"
            records.append(StageRecord(name, False, why, before=before))
            continue
        matrices, before, other, record = _try(bench, matrices, STAGES[name](), before, other)
        records.append(record)
    progress(len(names), len(names), "calibrating")
    return matrices, tuple(records)


@dataclass(frozen=True)
class Verdict:
    """What the gate says of candidates.

    Attributes
    ----------
    kept : Candidate or None
        The first that passes.
    why : str
        In words.
    settings : dict
        Of the one that passes, else of the best.
    after, other_after : float or None
        Bits per byte of the same one, on the selection text and on other text where it was asked.
    """

    kept: Candidate | None
    why: str
    settings: dict[str, Any]
    after: float | None
    other_after: float | None


def judge(
    bench: Workbench,
    matrices: Matrices,
    before: float,
    found: list[tuple[float, Candidate]],
    bound: float | None,
    parts: Sequence[float] = PARTS,
) -> Verdict:
    """Return which candidate passes: it wins enough, and on other text does not rise over `bound`.

    Parameters
    ----------
    bench : Workbench
    matrices : Matrices
        The rows as they are.
    before : float
        Their bits per byte on the selection text.
    found : list of (float, Candidate)
        Bits per byte on the selection text; the best first.
    bound : float or None
        Bits per byte on other text; None where it is not asked.
    parts : sequence of float
        Of the best one's change, asked where no candidate passes.
    """
    if not found:
        return Verdict(None, "no gain: nothing that can be measured", {}, None, None)
    best, candidate = found[0]
    why = f"no gain on the selection text ({best - before:+.3f})"
    refused = Verdict(None, why, candidate.settings, best, None)
    for figure, candidate in _worth_asking(bench, matrices, before, found, parts):
        gain, other = f"gains {before - figure:.3f} on the selection text", None
        if bound is not None:
            other = bench.score(candidate.matrices, bench.texts.other)
            if not other - bound <= MOST_RISE:
                if refused.other_after is None:
                    why = f"loses on other text ({other - bound:+.3f}), {gain}"
                    refused = replace(refused, why=why, other_after=other)
                continue
        return Verdict(candidate, gain, candidate.settings, figure, other)
    return refused


def _worth_asking(
    bench: Workbench,
    matrices: Matrices,
    before: float,
    found: list[tuple[float, Candidate]],
    parts: Sequence[float],
) -> Iterator[tuple[float, Candidate]]:
    """Yield the candidates that win enough, then the best with smaller parts of its change.

    What a small step wins falls with its length, and what it costs elsewhere with the square.
    """
    enough = [each for each in found if before - each[0] >= LEAST_GAIN]
    yield from enough
    for share in parts if enough else ():
        best = enough[0][1]
        smaller = matrices.towards(best.matrices, share)
        figure = bench.score(smaller, bench.texts.selection)
        if before - figure >= LEAST_GAIN:
            yield figure, Candidate({**best.settings, "of_the_change": share}, smaller)


def _try(
    bench: Workbench, matrices: Matrices, stage: Stage, before: float, other: float | None
) -> tuple[Matrices, float, float | None, StageRecord]:
    """Measure a stage's candidates; return the state after it and its record."""
    start, forward = time.perf_counter(), bench.forward_tokens
    found: list[tuple[float, Candidate]] = []
    candidates, best = stage(bench, matrices), None
    with suppress(StopIteration):
        while True:
            candidate = candidates.send(best)
            try:
                figure = bench.score(candidate.matrices, bench.texts.selection)
            except EvaluationError:  # rows that are not finite, or so large that losses are not
                best = False
                continue
            best = figure < min([before, *(each for each, _ in found)])
            found.append((figure, candidate))
            found = sorted(found, key=lambda each: each[0])[:2]  # memory holds two, no more
    verdict = judge(bench, matrices, before, found, other if stage.changes_shared else None)
    kept, other_after = verdict.kept is not None, verdict.other_after
    if verdict.kept is not None:
        matrices = verdict.kept.matrices
    if kept and other is not None and other_after is None:
        # A stage that leaves shared rows alone was not asked about other text; the next one is
        # measured against it, and the report says it.
        other_after = bench.score(matrices, bench.texts.other)
    record = StageRecord(
        stage=stage.name,
        kept=kept,
        why=verdict.why,
        settings=verdict.settings,
        before=before,
        after=verdict.after,
        other_before=other if kept or stage.changes_shared else None,
        other_after=other_after,
        seconds=round(time.perf_counter() - start, 3),
        forward_tokens=bench.forward_tokens - forward,
    )
    if kept and verdict.after is not None:
        before, other = verdict.after, other_after
    return matrices, before, other, record
