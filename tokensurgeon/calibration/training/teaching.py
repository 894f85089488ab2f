"""The course of a training that the source teaches: until when, and at which share of its rates."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from tokensurgeon.calibration.matrices import Matrices
from tokensurgeon.progress import Clock, Progress, track

CHUNKS_PER_STEP = 2
"""Of up to 1,024 bytes. Steps of one chunk end worse, at any rate that was tried."""
HIGHEST_RATE = 0.1
"""In units of the rows' root mean square; it binds below a width of 25 to 120, by the
training."""
WARM_UP_STEPS = 10
"""In which the rates rise: Adam's moments are then known."""

Batch = TypeVar("Batch")


@dataclass(frozen=True)
class Taught:
    """What a training gave.

    Attributes
    ----------
    matrices : Matrices
    n_steps, n_tokens : int
        Of the patched model; the source ran as many again.
    losses : tuple of float
        Of each step.
    """

    matrices: Matrices
    n_steps: int
    n_tokens: int
    losses: tuple[float, ...]


def teach(
    batches: Iterable[Batch],
    step: Callable[[Batch, float], tuple[float, int]],
    *,
    clock: Clock,
    max_tokens: int | None,
    progress: Progress,
    what: str,
) -> tuple[tuple[float, ...], int]:
    """Take a step on each batch until the clock or the tokens end it.

    Parameters
    ----------
    batches : iterable
    step : callable(batch, share) -> (loss, number of tokens)
        Steps at a share of the rates: it rises over the first steps, then falls to zero.
    clock : Clock
    max_tokens : int or None
        Where this binds, and not the clock, the shares depend on no time.
    progress : callable(done, total, what)
    what : str

    Returns
    -------
    the losses, and the number of tokens
    """
    losses: list[float] = []
    n_tokens, seconds = 0, max(clock.left(), 1e-9)
    for batch in batches:
        done = 1 - clock.left() / seconds if np.isfinite(seconds) else 0.0
        if max_tokens is not None:
            done = max(done, n_tokens / max_tokens if max_tokens else 1.0)
        if done >= 1:
            break
        share = min(1.0, (len(losses) + 1) / WARM_UP_STEPS) * (1 - done)
        loss, n = step(batch, share)
        losses.append(loss)
        n_tokens += n
        track(progress, what, len(losses), loss=loss, share_of_rate=share, tokens=n_tokens)
        progress(int(1000 * done), 1000, what)
    progress(1000, 1000, what)
    return tuple(losses), n_tokens
