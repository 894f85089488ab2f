"""The subword family: a missing token is written with the rows of its own pieces.

All are one CSR matrix over the pieces; none needs text, a donor or a forward pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import scipy.sparse as sp

from tokensurgeon.arrays import Float32, Float64, Ids
from tokensurgeon.errors import InitialiserError
from tokensurgeon.initialisers.contract import InitContext, NewRows, SideRows, require
from tokensurgeon.initialisers.fallback_rows import trained_rows
from tokensurgeon.initialisers.numerics.piece_weights import (
    Weigh,
    exponential_weights,
    first_weights,
    last_weights,
    mean_weights,
)
from tokensurgeon.initialisers.registry import initialiser, preset
from tokensurgeon.initialisers.sides import side_from_pieces
from tokensurgeon.vocabulary.scripts import script_of


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
        if first is not second:
            _refuse_tied(self.name, context)
        output = side_from_pieces(context, context.output_rows, second, self.shrink)
        if context.tied:
            return NewRows(input=output, output=output)
        return NewRows(input=side_from_pieces(context, context.input_rows, first), output=output)


def _refuse_tied(name: str, context: InitContext) -> None:
    if context.tied:
        raise InitialiserError(
            f"'{name}' gives the two sides different rows; this checkpoint ties them. "
            "Untie it with --untie, or use 'subword-mean'."
        )


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

preset(
    "eeve",
    Subword,
    """Input: the mean of the pieces' rows. Output: the first piece's row (Kim et al., 2024).

    "Efficient and Effective Vocabulary Expansion Towards Multilingual Large Language Models", arXiv
    2402.14714. The sides differ, so one tied matrix is refused. Nothing is random; there are no
    settings.
    """,
    fixed={"weigh": (mean_weights, first_weights)},
)


@initialiser("bil")
@dataclass(frozen=True)
class Bil:
    """Input: the mean of the pieces, as long as its script's rows are. Output: by piece length.

    arXiv 2608.03494. The input row gets the median norm of the trained rows of shared tokens of
    its script (the script of most of its letters; tokens without a letter count as one script).
    Where no shared token has that script, the median is over all of them. On the output side each
    piece counts in proportion to its bytes. The sides differ, so one tied matrix is refused.
    Nothing is random; there are no settings.
    """

    name: ClassVar[str]

    def __call__(self, context: InitContext) -> NewRows:
        """Return weights over the pieces."""
        _refuse_tied(self.name, context)
        mean = side_from_pieces(context, context.input_rows)
        assert mean.weights is not None  # a mean is always weights
        norms = _norms(mean.values(context.input_rows))
        scale = _median_norms(context) / np.where(norms, norms, 1.0)
        longer = SideRows(sp.csr_array(sp.diags_array(scale) @ mean.weights), mean.virtual)
        output = side_from_pieces(context, context.output_rows, sizes=_byte_lengths(context))
        return NewRows(input=longer, output=output)


def _median_norms(context: InitContext) -> Float64:
    """Return the median norm that rows of each missing token's script have, (n_missing,)."""
    matched = np.unique(context.alignment.source_ids[context.alignment.shared])
    shared = matched[context.anchors[matched]]
    if not shared.size:
        everywhere = _norms(trained_rows(context.input_rows, context.anchors))
        return np.full(context.n_missing, np.median(everywhere))
    norms = _norms(context.input_rows[shared])
    scripts = np.array([_script(context.source.token_bytes[i]) for i in shared])
    medians = {name: np.median(norms[scripts == name]) for name in np.unique(scripts).tolist()}
    wanted = [_script(context.target.token_bytes[i]) for i in context.missing]
    return np.array([medians.get(name, np.median(norms)) for name in wanted], dtype=np.float64)


def _norms(rows: Float32) -> Float64:
    return np.asarray(np.linalg.norm(rows.astype(np.float64), axis=1))


def _script(data: bytes | None) -> str:
    return script_of((data or b"").decode("utf-8", "ignore")) or ""


def _byte_lengths(context: InitContext) -> Ids:
    """Return the bytes of each source token, (n_source,); at least one."""
    lengths = np.ones(context.n_source, dtype=np.int64)
    for i, data in enumerate(context.source.token_bytes[: context.n_source]):
        lengths[i] = max(1, len(data or b""))
    return lengths
