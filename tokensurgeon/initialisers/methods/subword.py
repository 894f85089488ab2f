"""The subword family: a missing token is written with the rows of its own pieces.

All six are one CSR matrix over the pieces; none needs text, a donor or a forward pass.
"""

from __future__ import annotations

from typing import ClassVar

from tokensurgeon.errors import InitialiserError
from tokensurgeon.initialisers.contract import InitContext, NewRows, require
from tokensurgeon.initialisers.numerics.piece_weights import (
    Weigh,
    exponential_weights,
    first_weights,
    last_weights,
    mean_weights,
)
from tokensurgeon.initialisers.registry import preset
from tokensurgeon.initialisers.sides import side_from_pieces


class Subword:
    """The pieces' rows, weighed by where a piece stands. What a preset leaves open are fields."""

    name: ClassVar[str]
    weigh: tuple[Weigh, Weigh] = (mean_weights, mean_weights)
    """Of the input and of the output side."""
    rate: float | None = None
    """In the place of `weigh`: exponential weights, rising on the input side, falling on the
    other."""
    shrink: float = 0.0
    """Share of the mean row on the output side."""

    def __post_init__(self) -> None:
        """Check the ranges of the settings."""
        require(self, "rate", "0 to 50", self.rate is None or 0 <= self.rate <= 50)
        require(self, "shrink", "0 to 1", 0 <= self.shrink <= 1)

    def __call__(self, context: InitContext) -> NewRows:
        """Return weights over the pieces, and on the output side a share of a virtual mean row."""
        first, second = self.weigh
        if self.rate is not None:
            first, second = exponential_weights(self.rate), exponential_weights(-self.rate)
        if context.tied and first is not second:
            raise InitialiserError(
                f"'{self.name}' gives the two sides different rows; this checkpoint ties them. "
                "Untie it with --untie, or use 'subword-mean'."
            )
        output = side_from_pieces(context, context.output_rows, second, self.shrink)
        if context.tied:
            return NewRows(input=output, output=output)
        return NewRows(input=side_from_pieces(context, context.input_rows, first), output=output)


preset(
    "subword-mean",
    Subword,
    """The mean of the pieces' rows, on both sides: the strong plain baseline.

    Fast Vocabulary Transfer (Gee et al., 2022), ReTok (Gu et al., 2024). Nothing is random;
    there are no settings.
    """,
)

preset(
    "subword-first",
    Subword,
    "The first piece's row, on both sides. Nothing is random; there are no settings.",
    fixed={"weigh": (first_weights, first_weights)},
)

preset(
    "subword-last",
    Subword,
    "The last piece's row, on both sides. Nothing is random; there are no settings.",
    fixed={"weigh": (last_weights, last_weights)},
)

preset(
    "subword-ends",
    Subword,
    """Input: the last piece's row, what the model has just read. Output: the first piece's.

    To predict a token is, for the model, to predict its first piece. The two sides want opposite
    ends, so one tied matrix cannot have both. Nothing is random; there are no settings.
    """,
    fixed={"weigh": (last_weights, first_weights)},
)

preset(
    "subword-exp",
    Subword,
    """Weights ∝ e^(rate·j) over pieces j on the input side, e^(−rate·j) on the output side.

    AdaptiVocab (Nakash et al., 2025). As with `subword-ends`, the sides differ, so one tied matrix
    is refused. Nothing is random.

    Parameters
    ----------
    rate : float
        0 is the plain mean, large values are `subword-ends`; 0 to 50.
    """,
    settings={"rate": 2.0},
)

preset(
    "subword-shrunk",
    Subword,
    """Input: the mean of the pieces. Output: that mean, pulled towards the mean output row.

    u = ū + (1 − c)(u_sub − ū). A new output row competes with rows that were trained not to fire;
    shrinking it costs its logit some variance and the others less. Where one tied matrix serves
    both sides, the shrunk row is used for both. Nothing is random.

    Parameters
    ----------
    shrink : float
        c, 0 (the plain mean of the pieces) to 1 (the mean row).
    """,
    settings={"shrink": 0.5},
)
