"""Rows that know nothing of a token's text: zero, mean, random, multivariate. The baselines.

Every better method must beat these; `multivariate` is what transformers does when it resizes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import scipy.sparse as sp

from tokensurgeon.arrays import Float32, Float64
from tokensurgeon.initialisers.contract import InitContext, NewRows, SideRows, require
from tokensurgeon.initialisers.fallback_rows import mean_row, trained_rows
from tokensurgeon.initialisers.registry import initialiser
from tokensurgeon.initialisers.sides import both_sides, with_mean


@initialiser("zero")
@dataclass(frozen=True)
class Zero:
    """Rows of zeros on both sides. Nothing is random; there are no settings.

    An output row of zeros has logit 0 for every state and so draws mass: a baseline, not advice.
    """

    name: ClassVar[str]

    def __call__(self, context: InitContext) -> NewRows:
        """Return empty weights for both sides."""
        side = SideRows(weights=_no_weights(context))
        return NewRows(input=side, output=side)


@initialiser("mean")
@dataclass(frozen=True)
class Mean:
    """The mean of the trained rows, on both sides. Nothing is random; there are no settings."""

    name: ClassVar[str]

    def __call__(self, context: InitContext) -> NewRows:
        """Return weight one on a virtual mean row."""
        weights, ones = _no_weights(context), np.ones(context.n_missing)
        anchors = context.anchors
        return both_sides(context, lambda rows: with_mean(weights, ones, mean_row(rows, anchors)))


def _no_weights(context: InitContext) -> sp.csr_array:
    return sp.csr_array((context.n_missing, context.n_source), dtype=np.float64)


@dataclass(frozen=True)
class _Drawn:
    """Rows drawn from a distribution of the trained rows, either side from its own stream."""

    name: ClassVar[str]
    scale: float

    def __post_init__(self) -> None:
        """Check the range of `scale`."""
        require(self, "scale", "at least 0", 0 <= self.scale < np.inf)

    def __call__(self, context: InitContext) -> NewRows:
        """Return dense rows; one side where one matrix serves both."""

        def draw(rows: Float32, generator: np.random.Generator) -> SideRows:
            sample = trained_rows(rows, context.anchors).astype(np.float64)
            noise = generator.standard_normal((context.n_missing, context.width))
            values = sample.mean(axis=0) + self._shaped(noise, sample)
            return SideRows(dense=np.asarray(values, dtype=np.float32))

        first, second = context.generator().spawn(2)
        output = draw(context.output_rows, second)
        if context.tied:
            return NewRows(input=output, output=output)
        return NewRows(input=draw(context.input_rows, first), output=output)

    def _shaped(self, noise: Float64, sample: Float64) -> Float64:
        """Return standard normal noise with the variance of the sample."""
        raise NotImplementedError


@initialiser("random")
@dataclass(frozen=True)
class Random(_Drawn):
    """Draw each dimension on its own from N(μ, scale·σ) of the trained rows.

    Parameters
    ----------
    scale : float
        Multiplies the standard deviations; at least 0.

    Notes
    -----
    Random: all rows, from `context.seed`; the two sides draw from two streams.
    """

    scale: float = 1.0

    def _shaped(self, noise: Float64, sample: Float64) -> Float64:
        return np.asarray(self.scale * sample.std(axis=0) * noise)


@initialiser("multivariate")
@dataclass(frozen=True)
class Multivariate(_Drawn):
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

    scale: float = 1e-9

    def _shaped(self, noise: Float64, sample: Float64) -> Float64:
        centred = sample - sample.mean(axis=0)
        covariance = centred.T @ centred / max(1, len(sample) - 1)
        # Not Cholesky: with fewer rows than dimensions the covariance is singular.
        values, vectors = np.linalg.eigh(covariance)
        root = vectors * np.sqrt(np.maximum(values, 0.0) * self.scale)
        return np.asarray(noise @ root.T)
