"""Learn from the source's own vocabulary how rows follow from the rows of pieces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from tokensurgeon.errors import InitialiserError, SettingError
from tokensurgeon.initialisers.contract import Ids, InitContext, NewRows, Rows, SideRows
from tokensurgeon.initialisers.fallback_rows import trained_rows
from tokensurgeon.initialisers.numerics.piece_weights import (
    first_weights,
    last_weights,
    mean_weights,
    piece_weights,
)
from tokensurgeon.initialisers.numerics.regression import Ridge, fit_ridge
from tokensurgeon.initialisers.numerics.respelling import forbidden_self
from tokensurgeon.initialisers.registry import initialiser

_MOST_TOKENS = 32768
"""Trained tokens that are learned from, at most."""

_MOST_DIRECTIONS = 1024
"""Directions of the rows' space that the regression sees, at most."""

_BLOCK = 8192

LONGEST_COUNT = 6
"""Spellings of this many pieces and more share one indicator."""

Floats = npt.NDArray[np.float32]


@initialiser("ridge-composer")
@dataclass(frozen=True)
class RidgeComposer:
    """The mean of the pieces, corrected by a ridge regression that the source's own tokens teach.

    Every trained token is spelled with other tokens, itself forbidden: once as the tokenizer
    would, and a few times cut at random. From each spelling come the whitened rows of its first
    and last piece, their mean over all pieces, and the number of pieces. A linear map from these
    to what the token's own row has beyond the mean of its pieces is fitted, one for each side,
    with λ chosen on held-out tokens, and applied to the missing tokens:
    row = mean of pieces + alpha·map. No text, no donor, no forward pass. This project's own.

    Parameters
    ----------
    cuts : int
        Random spellings per token beside the tokenizer's own, 0 to 100.
    alpha : float
        Share of the correction that is made, 0 (the mean of the pieces) to 1.

    Notes
    -----
    Random: the sample of at most 32,768 tokens, the cuts and which tokens are held out, by
    `context.seed`. Rows are clipped to the 99th percentile of the trained rows' norms.
    """

    name: ClassVar[str]
    cuts: int = 3
    alpha: float = 0.7

    def __post_init__(self) -> None:
        """Check the ranges of the settings."""
        if not 0 <= self.cuts <= 100:
            raise SettingError(f"ridge-composer.cuts must be 0 to 100; got {self.cuts}")
        if not 0 <= self.alpha <= 1:
            raise SettingError(f"ridge-composer.alpha must be 0 to 1; got {self.alpha}")

    def __call__(self, context: InitContext) -> NewRows:
        """Return dense rows of both sides."""
        parts = [len(row) for row in context.pieces]
        owners, spellings = spell_trained(context, self.cuts, parts, self.name)
        made = []
        for rows in matrices(context):
            composer = fit_side(context, rows, owners, spellings, self.alpha, self.name)
            values = composer.values(finite(rows), context.pieces)
            bound = longest_norm(rows, context.anchors)
            made.append(SideRows(dense=shortened(values, bound)))
        return NewRows(input=made[0], output=made[-1])


def matrices(context: InitContext) -> list[Rows]:
    """Return the matrices to make rows for: one where both sides are one."""
    one = context.tied or context.input_rows is context.output_rows
    return [context.output_rows] if one else [context.input_rows, context.output_rows]


def spell_trained(
    context: InitContext, cuts: int, parts: Sequence[int], name: str
) -> tuple[Ids, list[tuple[int, ...]]]:
    """Spell a sample of the trained tokens with other tokens, as `forbidden_self`.

    Raises
    ------
    InitialiserError
        If fewer than two spellings are found.
    """
    generator = context.generator()
    ids = np.flatnonzero(context.anchors).astype(np.int64)
    if len(ids) > _MOST_TOKENS:
        ids = np.sort(generator.choice(ids, _MOST_TOKENS, replace=False))
    context.progress(0, 1, f"{name}: spelling")
    owners, spellings = forbidden_self(
        context.source, ids, context.n_source, cuts=cuts, parts=parts, generator=generator
    )
    context.progress(1, 1, f"{name}: spelling")
    if len(owners) < 2:
        raise InitialiserError(
            f"'{name}' can spell {len(owners)} of {len(ids)} trained tokens with other "
            "tokens, and learns from them. Use 'subword-mean'."
        )
    return owners, spellings


@dataclass(frozen=True)
class Whitening:
    """Turns rows into directions in which trained rows vary by one.

    Attributes
    ----------
    mean : float32 (width,)
    turn : float32 (width, d)
    """

    mean: Floats
    turn: Floats

    def __call__(self, rows: Rows, device: str = "cpu") -> Floats:
        """Return the rows whitened, (n, d); a large matrix takes as long as the rest of a fit."""
        import torch

        turn = torch.from_numpy(self.turn).to(device)
        shift = torch.from_numpy(self.mean).to(device) @ turn
        found = np.empty((len(rows), self.turn.shape[1]), dtype=np.float32)
        for start in range(0, len(rows), _BLOCK):
            part = torch.from_numpy(np.ascontiguousarray(rows[start : start + _BLOCK])).to(device)
            found[start : start + _BLOCK] = (part @ turn - shift).cpu().numpy()
        return found


@dataclass(frozen=True)
class SideComposer:
    """A fitted ridge composer of one matrix.

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

    def values(self, rows: Rows, pieces: Sequence[Sequence[int]]) -> Floats:
        """Return composed rows, (len(pieces), width), not clipped; `rows` must be finite."""
        features = _Features(self.whitening(rows), pieces, len(rows))
        correction = self.linear(features(np.arange(len(pieces))))
        return np.asarray(piece_weights(pieces, len(rows)) @ rows + self.alpha * correction)


def fit_side(
    context: InitContext,
    rows: Rows,
    owners: Ids,
    spellings: Sequence[Sequence[int]],
    alpha: float,
    name: str,
) -> SideComposer:
    """Fit the ridge composer of one matrix to spellings of trained tokens."""
    clean = finite(rows)
    whitening = whiten(clean, context.anchors, context.memory_budget, context.device)
    (linear,) = fit_ridge(
        _Features(whitening(clean, context.device), spellings, context.n_source),
        [_Beyond(clean, owners, spellings)],
        len(owners),
        groups=owners,
        generator=context.generator(),
        device=context.device,
        progress=lambda done, total: context.progress(done, total, f"{name}: fitting"),
    )
    return SideComposer(whitening, linear, alpha)


class _Features:
    """From numbers of spellings to (count, d): first, mean and last piece, and the count."""

    def __init__(self, whitened: Floats, spellings: Sequence[Sequence[int]], n_source: int) -> None:
        self._whitened = whitened
        self._spellings = spellings
        self._n_source = n_source

    def __call__(self, index: npt.NDArray[np.int64]) -> Floats:
        chosen = [self._spellings[i] for i in index.tolist()]
        parts = [
            np.asarray(piece_weights(chosen, self._n_source, weigh) @ self._whitened, np.float32)
            for weigh in (first_weights, mean_weights, last_weights)
        ]
        counts = np.array([min(len(row), LONGEST_COUNT) for row in chosen], dtype=np.int64)
        indicators = (counts[:, None] == np.arange(2, LONGEST_COUNT + 1)).astype(np.float32)
        return np.concatenate([*parts, indicators], axis=1)


def longest_norm(rows: Rows, anchors: npt.NDArray[np.bool_]) -> float:
    """Return the 99th percentile of the trained rows' norms."""
    return float(np.quantile(np.linalg.norm(trained_rows(rows, anchors), axis=1), 0.99))


def shortened(values: npt.NDArray[np.floating], bound: float) -> Floats:
    """Return the values, none longer than `bound`."""
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    return np.asarray(values * np.minimum(1.0, bound / np.maximum(norms, 1e-30)), np.float32)


class _Beyond:
    """By numbers of spellings: what the token's row has beyond the mean of its pieces."""

    def __init__(self, rows: Rows, owners: Ids, spellings: Sequence[Sequence[int]]) -> None:
        self._rows = rows
        self._owners = owners
        self._spellings = spellings

    def __getitem__(self, index: npt.NDArray[np.int64]) -> Floats:
        chosen = [self._spellings[i] for i in index.tolist()]
        pieces = piece_weights(chosen, len(self._rows)) @ self._rows
        return np.asarray(self._rows[self._owners[index]] - pieces, dtype=np.float32)


def finite(rows: Rows) -> Rows:
    """Return the rows, those that are not finite as 0."""
    finite = np.isfinite(rows).all(axis=1, keepdims=True)
    return rows if finite.all() else np.where(finite, rows, np.float32(0))


def whiten(
    rows: Rows, anchors: npt.NDArray[np.bool_], memory_budget: int, device: str = "cpu"
) -> Whitening:
    """Return what gives rows unit variance in every direction, about the trained rows' mean.

    Of the directions the strongest are kept, at most 1,024 and as many as leave room for the
    regression; those in which trained rows do not vary go.
    """
    import torch

    ids = np.flatnonzero(anchors)
    if (
        len(ids) > _MOST_TOKENS
    ):  # as many say all that there is to know of a few thousand directions
        ids = ids[np.linspace(0, len(ids) - 1, _MOST_TOKENS).astype(np.int64)]
    mean = rows[ids].mean(axis=0, dtype=np.float64)
    place = "cpu" if device.startswith("mps") else device
    total = torch.zeros(2 * rows.shape[1:], dtype=torch.float64, device=place)
    for start in range(0, len(ids), _BLOCK):
        centred = torch.from_numpy(rows[ids[start : start + _BLOCK]] - mean).to(place)
        total.addmm_(centred.T, centred)
    spread, axes = torch.linalg.eigh(total / len(ids))
    variance, directions = spread.cpu().numpy(), axes.cpu().numpy()
    # The regression holds about four square matrices over three features per direction.
    room = int(np.sqrt(memory_budget / 32)) // 3
    most = max(1, min(_MOST_DIRECTIONS, room))
    variance, directions = variance[-most:], directions[:, -most:]
    kept = variance > 1e-8 * max(float(variance[-1]), 1e-30)
    turn = directions[:, kept] / np.sqrt(variance[kept])
    return Whitening(mean.astype(np.float32), turn.astype(np.float32))
