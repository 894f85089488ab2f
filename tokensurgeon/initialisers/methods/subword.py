"""The subword family: a missing token is written with the rows of its own pieces.

All six are one CSR matrix (see `compose`); none needs text, a donor or a forward pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tokensurgeon.errors import InitialiserError, SettingError
from tokensurgeon.initialisers.contract import InitContext, NewRows
from tokensurgeon.initialisers.numerics.piece_weights import (
    both_sides,
    exponential_weights,
    first_weights,
    last_weights,
    side_from_pieces,
)
from tokensurgeon.initialisers.registry import initialiser


@initialiser("subword-mean")
@dataclass(frozen=True)
class SubwordMean:
    """The mean of the pieces' rows, on both sides: the strong plain floor.

    Fast Vocabulary Transfer (Gee et al., 2022), ReTok (Gu et al., 2024). Nothing is random;
    there are no settings.
    """

    name: ClassVar[str]

    def __call__(self, context: InitContext) -> NewRows:
        """Return equal weights over the pieces."""
        return both_sides(context, lambda rows: side_from_pieces(context, rows))


@initialiser("subword-first")
@dataclass(frozen=True)
class SubwordFirst:
    """The first piece's row, on both sides. Nothing is random; there are no settings."""

    name: ClassVar[str]

    def __call__(self, context: InitContext) -> NewRows:
        """Return weight one on the first piece."""
        return both_sides(context, lambda rows: side_from_pieces(context, rows, first_weights))


@initialiser("subword-last")
@dataclass(frozen=True)
class SubwordLast:
    """The last piece's row, on both sides. Nothing is random; there are no settings."""

    name: ClassVar[str]

    def __call__(self, context: InitContext) -> NewRows:
        """Return weight one on the last piece."""
        return both_sides(context, lambda rows: side_from_pieces(context, rows, last_weights))


@initialiser("subword-ends")
@dataclass(frozen=True)
class SubwordEnds:
    """Input: the last piece's row, what the model has just read. Output: the first piece's.

    To predict a token is, for the model, to predict its first piece. The two sides want opposite
    ends, so one tied matrix cannot have both. Nothing is random; there are no settings.
    """

    name: ClassVar[str]

    def __call__(self, context: InitContext) -> NewRows:
        """Return weight one on the last (input) and first (output) piece."""
        _refuse_tied(context, self.name)
        return NewRows(
            input=side_from_pieces(context, context.input_rows, last_weights),
            output=side_from_pieces(context, context.output_rows, first_weights),
        )


@initialiser("subword-exp")
@dataclass(frozen=True)
class SubwordExp:
    """Weights ∝ e^(rate·j) over pieces j on the input side, e^(−rate·j) on the output side.

    AdaptiVocab (Nakash et al., 2025). As with `subword-ends`, the sides differ, so one tied matrix
    is refused. Nothing is random.

    Parameters
    ----------
    rate : float
        0 is the plain mean, large values are `subword-ends`; 0 to 50.
    """

    name: ClassVar[str]
    rate: float = 2.0

    def __post_init__(self) -> None:
        """Check the range of `rate`."""
        if not (np.isfinite(self.rate) and 0 <= self.rate <= 50):
            raise SettingError(f"subword-exp.rate must be 0 to 50; got {self.rate}")

    def __call__(self, context: InitContext) -> NewRows:
        """Return exponential weights over the pieces."""
        _refuse_tied(context, self.name)
        rising, falling = exponential_weights(self.rate), exponential_weights(-self.rate)
        return NewRows(
            input=side_from_pieces(context, context.input_rows, rising),
            output=side_from_pieces(context, context.output_rows, falling),
        )


@initialiser("subword-shrunk")
@dataclass(frozen=True)
class SubwordShrunk:
    """Input: the mean of the pieces. Output: that mean, pulled towards the mean output row.

    u = ū + (1 − c)(u_sub − ū). A new output row competes with rows that were trained not to fire;
    shrinking it costs its logit some spread and the others less. Where one tied matrix serves
    both sides, the shrunk row is used for both. Nothing is random.

    Parameters
    ----------
    shrink : float
        c, 0 (the plain mean of the pieces) to 1 (the mean row).
    """

    name: ClassVar[str]
    shrink: float = 0.5

    def __post_init__(self) -> None:
        """Check the range of `shrink`."""
        if not 0 <= self.shrink <= 1:
            raise SettingError(f"subword-shrunk.shrink must be 0 to 1; got {self.shrink}")

    def __call__(self, context: InitContext) -> NewRows:
        """Return equal weights, and on the output side a share of the virtual mean row."""
        output = side_from_pieces(context, context.output_rows, shrink=self.shrink)
        if context.tied:
            return NewRows(input=output, output=output)
        return NewRows(input=side_from_pieces(context, context.input_rows), output=output)


def _refuse_tied(context: InitContext, name: str) -> None:
    if context.tied:
        raise InitialiserError(
            f"'{name}' gives the two sides different rows; this checkpoint ties them. "
            "Untie it with --untie, or use 'subword-mean'."
        )
