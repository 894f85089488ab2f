"""Try stages one after another, and keep what helps on text that no stage was fitted to."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from tokensurgeon.calibration.contract import Candidate, Matrices, Stage, StageRecord
from tokensurgeon.calibration.output_rows import Prior, Readout, Shrunk
from tokensurgeon.calibration.refit import Refit
from tokensurgeon.calibration.stand_in import StandIn
from tokensurgeon.calibration.states import Fold, Match, Unigram
from tokensurgeon.calibration.workbench import Workbench
from tokensurgeon.errors import EvaluationError, UnknownNameError, UsageError
from tokensurgeon.training.train import Progress, no_progress

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
    on text of another domain; else the next best is asked, then a half and a quarter of what the
    best would change.

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


def worth_asking(
    bench: Workbench, matrices: Matrices, before: float, found: list[tuple[float, Candidate]]
) -> Iterator[tuple[float, Candidate]]:
    """Yield the candidates that win enough, then the best with half and a quarter of its change.

    What a small step wins falls with its length, and what it costs elsewhere with the square.
    """
    enough = [each for each in found if before - each[0] >= LEAST_GAIN]
    yield from enough
    for share in (0.5, 0.25) if enough else ():
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
    kept, why = False, "no gain: nothing that can be measured"
    after = other_after = None
    settings: dict[str, Any] = {}
    if found:
        after, settings = found[0][0], found[0][1].settings
        why = f"no gain on the selection text ({after - before:+.3f})"
    for figure, candidate in worth_asking(bench, matrices, before, found):
        gain = f"gains {before - figure:.3f} on the selection text"
        rise = None
        if stage.changes_shared and other is not None:
            rise = bench.score(candidate.matrices, bench.texts.other) - other
            if not rise <= MOST_RISE:
                if other_after is None:
                    why, other_after = f"loses on other text ({rise:+.3f}), {gain}", other + rise
                continue
        after, settings = figure, candidate.settings
        other_after = None if rise is None or other is None else other + rise
        kept, why, matrices = True, gain, candidate.matrices
        break
    if kept and other is not None and other_after is None:
        # A stage that leaves shared rows alone was not asked about other text; the next one is
        # measured against it, and the report says it.
        other_after = bench.score(matrices, bench.texts.other)
    record = StageRecord(
        stage=stage.name,
        kept=kept,
        why=why,
        settings=settings,
        before=before,
        after=after,
        other_before=other if kept or stage.changes_shared else None,
        other_after=other_after,
        seconds=round(time.perf_counter() - start, 3),
        forward_tokens=bench.forward_tokens - forward,
    )
    if kept and after is not None:
        before, other = after, other_after
    return matrices, before, other, record
