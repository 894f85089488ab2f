"""Sides of an answer, put together from weights: means of pieces, and fallbacks to them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.sparse as sp

from tokensurgeon.arrays import Float32, Float64, Ids, Mask
from tokensurgeon.initialisers.contract import InitContext, NewRows, SideRows
from tokensurgeon.initialisers.fallback_rows import mean_row
from tokensurgeon.initialisers.numerics.piece_weights import Weigh, mean_weights, piece_weights


def both_sides(context: InitContext, make: Callable[[Float32], SideRows]) -> NewRows:
    """Return `make` of either side's rows; once where one matrix serves both."""
    if context.tied or context.input_rows is context.output_rows:
        side = make(context.output_rows)
        return NewRows(input=side, output=side)
    return NewRows(input=make(context.input_rows), output=make(context.output_rows))


def with_mean(weights: sp.csr_array, mean_weight: Float64, mean: Float32 | Float64) -> SideRows:
    """Return `weights` over source rows plus `mean_weight` (one per row) of one virtual row."""
    column = sp.csr_array(np.asarray(mean_weight, dtype=np.float64).reshape(-1, 1))
    stacked = sp.csr_array(sp.hstack([weights, column], format="csr"))
    stacked.eliminate_zeros()
    return SideRows(weights=stacked, virtual=np.asarray(mean, dtype=np.float32)[None, :])


def side_from_pieces(
    context: InitContext,
    rows: Float32,
    weigh: Weigh = mean_weights,
    shrink: float = 0.0,
    sizes: Ids | None = None,
) -> SideRows:
    """Return (1 − shrink)·Σ weight·piece row + shrink·mean row, for every missing token.

    A piece whose row is not finite is left out; a token left without pieces gets the mean row.
    `sizes`: see `piece_weights`.
    """
    finite = np.asarray(np.isfinite(rows).all(axis=1))
    usable = None if bool(finite.all()) else finite
    weights = piece_weights(context.pieces, context.n_source, weigh, usable, sizes)
    lost = np.diff(weights.indptr) == 0
    if not shrink and not lost.any():
        return SideRows(weights=weights)
    mean_weight = np.where(lost, 1.0, shrink)
    return with_mean(
        sp.csr_array(weights * (1.0 - shrink)), mean_weight, mean_row(rows, context.anchors)
    )


def or_pieces(
    context: InitContext,
    rows: Float32,
    weights: sp.csr_array | None,
    dense: Float32 | None,
    answered: Mask,
) -> SideRows:
    """Return a method's side, with the mean of the pieces where it has no answer.

    Parameters
    ----------
    context : InitContext
    rows : float32 (n_source, width)
        The side's source rows. A token with a weight on one that is not finite has no answer.
    weights : CSR (n_missing, n_source) or None
    dense : float32 (n_missing, width) or None
        0 where there is no answer.
    answered : bool (n_missing,)
    """
    finite = np.asarray(np.isfinite(rows).all(axis=1))
    if weights is not None and not finite.all():
        answered = answered & (weights @ (~finite).astype(np.float64) == 0)
    if answered.all():
        return SideRows(weights=weights, dense=dense)
    pieces = side_from_pieces(context, rows)
    assert pieces.weights is not None
    result = sp.csr_array(sp.diags_array((~answered).astype(np.float64)) @ pieces.weights)
    if weights is not None:
        own = sp.csr_array(sp.diags_array(answered.astype(np.float64)) @ weights)
        own.resize(result.shape)  # the pieces may have a column for the mean row
        result = sp.csr_array(result + own)
    result.eliminate_zeros()
    return SideRows(weights=result, virtual=pieces.virtual, dense=dense)
