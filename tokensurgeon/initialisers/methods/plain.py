"""Rows that know nothing of a token's text: zero, mean, random, multivariate. The floors.

Every better method must beat these; `multivariate` is what transformers does when it resizes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import scipy.sparse as sp

from tokensurgeon.errors import SettingError
from tokensurgeon.initialisers.contract import InitContext, NewRows, Rows, SideRows
from tokensurgeon.initialisers.fallback_rows import mean_row, trained_rows
from tokensurgeon.initialisers.numerics.piece_weights import both_sides, with_mean
from tokensurgeon.initialisers.registry import initialiser


@initialiser("zero")
@dataclass(frozen=True)
class Zero:
    """Rows of zeros on both sides. Nothing is random; there are no settings.

    An output row of zeros has logit 0 for every state and so draws mass: a floor, not advice.
    """

    name: ClassVar[str]

    def __call__(self, context: InitContext) -> NewRows:
        """Return empty weights for both sides."""
        empty = sp.csr_array((context.n_missing, context.n_source), dtype=np.float64)
        return NewRows(input=SideRows(weights=empty), output=SideRows(weights=empty))


@initialiser("mean")
@dataclass(frozen=True)
class Mean:
    """The mean of the trained rows, on both sides. Nothing is random; there are no settings."""

    name: ClassVar[str]

    def __call__(self, context: InitContext) -> NewRows:
        """Return weight one on a virtual mean row."""

        def make(rows: Rows) -> SideRows:
            nothing = sp.csr_array((context.n_missing, context.n_source), dtype=np.float64)
            return with_mean(nothing, np.ones(context.n_missing), mean_row(rows, context.anchors))

        return both_sides(context, make)


@initialiser("random")
@dataclass(frozen=True)
class Random:
    """Draw each dimension on its own from N(μ, scale·σ) of the trained rows.

    Parameters
    ----------
    scale : float
        Multiplies the standard deviations; at least 0.

    Notes
    -----
    Random: all rows, from `context.seed`; the two sides draw from two streams.
    """

    name: ClassVar[str]
    scale: float = 1.0

    def __post_init__(self) -> None:
        """Check the range of `scale`."""
        _check_scale("random", self.scale)

    def __call__(self, context: InitContext) -> NewRows:
        """Return dense rows."""

        def draw(rows: Rows, generator: np.random.Generator) -> Rows:
            sample = trained_rows(rows, context.anchors).astype(np.float64)
            mean, deviation = sample.mean(axis=0), sample.std(axis=0)
            noise = generator.standard_normal((context.n_missing, context.width))
            return np.asarray(mean + self.scale * deviation * noise, dtype=np.float32)

        return _drawn(context, draw)


@initialiser("multivariate")
@dataclass(frozen=True)
class Multivariate:
    """Draw rows from N(μ, scale·Σ) of the trained rows (Hewitt, 2021).

    "Initializing new word embeddings for pretrained language models", 2021: the new logits stay
    near the mean logit, which bounds how far the model's distribution moves.

    Parameters
    ----------
    scale : float
        Multiplies the covariance; at least 0. The default, 1e-9, is that of transformers'
        `resize_token_embeddings`, and gives rows that hardly differ from the mean and from each
        other; Hewitt's own code has 1e-5; 1 draws rows as spread as trained ones.

    Notes
    -----
    Random: all rows, from `context.seed`; the two sides draw from two streams.
    """

    name: ClassVar[str]
    scale: float = 1e-9

    def __post_init__(self) -> None:
        """Check the range of `scale`."""
        _check_scale("multivariate", self.scale)

    def __call__(self, context: InitContext) -> NewRows:
        """Return dense rows."""

        def draw(rows: Rows, generator: np.random.Generator) -> Rows:
            sample = trained_rows(rows, context.anchors).astype(np.float64)
            mean = sample.mean(axis=0)
            centred = sample - mean
            covariance = centred.T @ centred / max(1, len(sample) - 1)
            # Not Cholesky: with fewer rows than dimensions the covariance is singular.
            values, vectors = np.linalg.eigh(covariance)
            root = vectors * np.sqrt(np.maximum(values, 0.0) * self.scale)
            noise = generator.standard_normal((context.n_missing, context.width))
            return np.asarray(mean + noise @ root.T, dtype=np.float32)

        return _drawn(context, draw)


def _drawn(context: InitContext, draw: Callable[[Rows, np.random.Generator], Rows]) -> NewRows:
    """Draw either side from its own stream, or one side where one matrix serves both."""
    first, second = context.generator().spawn(2)
    output = SideRows(dense=draw(context.output_rows, second))
    if context.tied:
        return NewRows(input=output, output=output)
    return NewRows(input=SideRows(dense=draw(context.input_rows, first)), output=output)


def _check_scale(name: str, scale: float) -> None:
    if not (np.isfinite(scale) and scale >= 0):
        raise SettingError(f"{name}.scale must be at least 0; got {scale}")
