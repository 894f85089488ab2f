"""Learn from the source's own vocabulary how rows follow from the rows of pieces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tokensurgeon.arrays import Float32
from tokensurgeon.initialisers.contract import InitContext, NewRows, SideRows, require
from tokensurgeon.initialisers.fallback_rows import trained_rows
from tokensurgeon.initialisers.numerics.clip import longest_norm, shortened
from tokensurgeon.initialisers.registry import initialiser
from tokensurgeon.initialisers.sides import both_sides

_BESIDES = 4.5
"""Times as long as its products alone would take in float32, with the spelling, the features, the
solves and float64: 30 s against 6.4 s from Gemma's 262,144 tokens to SmolLM2's."""


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
        require(self, "cuts", "0 to 100", 0 <= self.cuts <= 100)
        require(self, "alpha", "0 to 1", 0 <= self.alpha <= 1)

    def __call__(self, context: InitContext) -> NewRows:
        """Return dense rows of both sides."""
        from tokensurgeon.initialisers.numerics.composer import finite, fit_composer
        from tokensurgeon.initialisers.respelling import spell_trained

        parts = [len(row) for row in context.pieces]
        owners, spellings = spell_trained(context, self.cuts, parts, self.name)

        def make(rows: Float32) -> SideRows:
            composer = fit_composer(
                rows,
                context.anchors,
                owners,
                spellings,
                self.alpha,
                generator=context.generator(),
                work=context.work(f"{self.name}: fitting"),
            )
            values = composer.values(finite(rows), context.pieces)
            limit = longest_norm(trained_rows(rows, context.anchors))
            return SideRows(dense=shortened(values, limit))

        return both_sides(context, make)

    def operations(self, context: InitContext) -> float:
        """Return the products of the features with themselves and the rows, on each side."""
        from tokensurgeon.initialisers.numerics.composer import MOST_ROWS

        n = min(int(context.anchors.sum()), MOST_ROWS) * (1 + self.cuts)
        sides = 1 if context.tied or context.input_rows is context.output_rows else 2
        n_features = 3 * context.width
        return _BESIDES * 2.0 * n * n_features * (n_features + context.width) * sides
