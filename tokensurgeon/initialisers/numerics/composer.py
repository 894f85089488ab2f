"""Learn how rows follow from the rows of pieces: whitening, features, and a ridge regression.

Spellings are sequences of row numbers. A composer is fitted to spellings of rows that are known,
and makes a row for any spelling: the mean of its rows, corrected by a linear map from the
whitened first, mean and last of them and from their number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch

from tokensurgeon.arrays import Float32, Ids, Mask, blocks
from tokensurgeon.initialisers.numerics.piece_weights import (
    first_weights,
    last_weights,
    mean_weights,
    piece_weights,
)
from tokensurgeon.initialisers.numerics.regression import Ridge, fit_ridge
from tokensurgeon.spaces.work import ON_CPU, Work

MOST_ROWS = 32_768
"""Rows that are learned from, at most: as many say all that there is to know of a thousand
directions."""

_MOST_DIRECTIONS = 1024
"""Directions of the rows' space that the regression sees, at most: it takes their number squared
in memory, cubed in time."""

_BLOCK = 8192
"""Rows that are whitened at once; it bounds memory."""

_VARIES = 1e-8
"""Share of the largest variance below which a direction is rounding error, not a direction."""

LONGEST_COUNT = 6
"""Spellings of this many pieces and more share one indicator: longer ones are rare."""


@dataclass(frozen=True)
class Whitening:
    """Turns rows into directions in which trained rows vary by one.

    Attributes
    ----------
    mean : float32 (width,)
    turn : float32 (width, d)
    """

    mean: Float32
    turn: Float32

    def __call__(self, rows: Float32, device: str = "cpu") -> Float32:
        """Return the rows whitened, (n, d); a large matrix takes as long as the rest of a fit."""
        turn = torch.from_numpy(self.turn).to(device)
        shift = torch.from_numpy(self.mean).to(device) @ turn
        white = np.empty((len(rows), self.turn.shape[1]), dtype=np.float32)
        for part in blocks(len(rows), _BLOCK):
            block = torch.from_numpy(np.ascontiguousarray(rows[part])).to(device)
            white[part] = (block @ turn - shift).cpu().numpy()
        return white


@dataclass(frozen=True)
class FittedComposer:
    """A composer of the rows of one matrix.

    Attributes
    ----------
    whitening : Whitening
    linear : Ridge
        From first, mean and last whitened piece, and the count, to what the row has beyond the
        mean of its pieces.
    alpha : float
        Share of it that is added.
    """

    whitening: Whitening
    linear: Ridge
    alpha: float

    def values(self, rows: Float32, spellings: Sequence[Sequence[int]]) -> Float32:
        """Return composed rows, (len(spellings), width), not clipped; `rows` must be finite."""
        features = Features(self.whitening(rows), spellings)
        correction = self.linear(features(np.arange(len(spellings))))
        return np.asarray(piece_weights(spellings, len(rows)) @ rows + self.alpha * correction)


def fit_composer(
    rows: Float32,
    trained: Mask,
    owners: Ids,
    spellings: Sequence[Sequence[int]],
    alpha: float,
    *,
    generator: np.random.Generator,
    work: Work = ON_CPU,
) -> FittedComposer:
    """Fit a composer to spellings of known rows.

    Parameters
    ----------
    rows : float32 (n_source, width)
        Rows that are not finite count as 0.
    trained : bool (n_source,)
        Rows that the whitening goes by.
    owners : int64 (n,)
        The row that each spelling is of.
    spellings : sequence of sequences of int, len n
    alpha : float
        See `FittedComposer`.
    generator : numpy.random.Generator
        Chooses the owners that the penalty is chosen on.
    work : Work
    """
    clean = finite(rows)
    whitening = whiten(clean, trained, work)
    (linear,) = fit_ridge(
        Features(whitening(clean, work.device), spellings),
        [_BeyondTheMean(clean, owners, spellings)],
        len(owners),
        groups=owners,
        generator=generator,
        work=work,
    )
    return FittedComposer(whitening, linear, alpha)


class Features:
    """From numbers of spellings to (count, d): first, mean and last piece, and the count."""

    def __init__(self, whitened: Float32, spellings: Sequence[Sequence[int]]) -> None:
        self._whitened, self._spellings = whitened, spellings

    def __call__(self, index: Ids) -> Float32:
        """Return the features of the spellings of these numbers, float32 (count, d)."""
        chosen = [self._spellings[i] for i in index.tolist()]
        n_source = len(self._whitened)
        parts = [
            _weighed(piece_weights(chosen, n_source, weigh), self._whitened)
            for weigh in (first_weights, mean_weights, last_weights)
        ]
        counts = np.array([min(len(row), LONGEST_COUNT) for row in chosen], dtype=np.int64)
        indicators = (counts[:, None] == np.arange(2, LONGEST_COUNT + 1)).astype(np.float32)
        return np.concatenate([*parts, indicators], axis=1)


class _BeyondTheMean:
    """By numbers of spellings: what the owner's row has beyond the mean of its pieces."""

    def __init__(self, rows: Float32, owners: Ids, spellings: Sequence[Sequence[int]]) -> None:
        self._rows, self._owners, self._spellings = rows, owners, spellings

    def __getitem__(self, index: Ids) -> Float32:
        chosen = [self._spellings[i] for i in index.tolist()]
        pieces = _weighed(piece_weights(chosen, len(self._rows)), self._rows)
        return np.asarray(self._rows[self._owners[index]] - pieces)


def _weighed(weights: sp.csr_array, rows: Float32) -> Float32:
    """Return weighted sums of rows, which are not copied: in float32, as they are."""
    return np.asarray(weights.astype(np.float32) @ rows)


def finite(rows: Float32) -> Float32:
    """Return the rows, those that are not finite as 0."""
    good = np.isfinite(rows).all(axis=1, keepdims=True)
    return rows if good.all() else np.where(good, rows, np.float32(0))


def whiten(rows: Float32, trained: Mask, work: Work) -> Whitening:
    """Return what gives rows unit variance in every direction, about the trained rows' mean.

    Of the directions the strongest are kept, at most 1,024 and as many as leave room for the
    regression; those in which trained rows do not vary go.
    """
    ids = np.flatnonzero(trained)
    if len(ids) > MOST_ROWS:
        ids = ids[np.linspace(0, len(ids) - 1, MOST_ROWS).astype(np.int64)]
    mean = rows[ids].mean(axis=0, dtype=np.float64)
    where = "cpu" if work.device.startswith("mps") else work.device  # mps has no float64
    total = torch.zeros(2 * rows.shape[1:], dtype=torch.float64, device=where)
    for part in blocks(len(ids), _BLOCK):
        centred = torch.from_numpy(rows[ids[part]] - mean).to(where)
        total.addmm_(centred.T, centred)
    variance, directions = (each.cpu().numpy() for each in torch.linalg.eigh(total / len(ids)))
    # The regression holds about four square matrices over three features per direction.
    room = int(np.sqrt(work.memory_budget / 32)) // 3
    most = max(1, min(_MOST_DIRECTIONS, room))
    variance, directions = variance[-most:], directions[:, -most:]
    varies = variance > _VARIES * max(float(variance[-1]), 1e-30)
    turn = directions[:, varies] / np.sqrt(variance[varies])
    return Whitening(mean.astype(np.float32), turn.astype(np.float32))
