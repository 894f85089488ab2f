"""Missing tokens as sums of anchors that lie near them in a space: the general method.

Published methods that are settings of it are in `neighbours`; spaces are in `anchoring`, the
arithmetic is in `combiners`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
import scipy.sparse as sp

from tokensurgeon.errors import InitialiserError, SettingError
from tokensurgeon.initialisers.anchor_spaces import Place, Placed, SpaceName, place
from tokensurgeon.initialisers.contract import InitContext, NewRows, Rows, SideRows
from tokensurgeon.initialisers.numerics.combiners import (
    Combined,
    nearest,
    proportional,
    sparsemax,
)
from tokensurgeon.initialisers.numerics.piece_weights import side_from_pieces
from tokensurgeon.initialisers.numerics.pursuit import pursue
from tokensurgeon.initialisers.numerics.regression import fit_ridge
from tokensurgeon.initialisers.registry import initialiser

CombinerName = Literal["nearest", "sparsemax", "cosine", "omp", "ridge"]
Combine = Callable[[Placed, tuple[Rows, ...]], Combined]
"""From places, and the anchors' rows of one or both sides, to what the tokens are made of."""

_OMP_RIDGE = 0.3
"""λ of matching pursuit here: in spaces other than a donor's its bare coefficients explode."""


@initialiser("anchors")
@dataclass(frozen=True)
class Anchors:
    """Any space with any combiner; a missing token that the space does not know gets its pieces.

    Parameters
    ----------
    space : donor, co-occurrence, encoder, hidden-states, ngrams, or None
        None takes the first of these that can be had: the encoder that is named, the donor's rows,
        co-occurrence in the calibration text, n-grams.
    combiner : nearest, sparsemax, cosine, omp or ridge
        nearest: softmax(cosine / temperature) over the k nearest anchors. sparsemax: the
        projection of cosine / temperature onto the simplex, over all anchors. cosine: weights
        in proportion to the cosine, negative ones left out, over all anchors or the k nearest.
        omp: matching pursuit with k anchors. ridge: a linear map from the space to the rows,
        fitted on the anchors.
    k : int or None
        None: 10 for nearest, all for cosine, 16 for omp. The others have none.
    temperature : float
        Of nearest and sparsemax; above 0.
    encoder : str or None
        Folder of a text encoder.
    layer : int or None
        Of hidden-states; None takes two fifths of the depth.
    dim : int
        Most dimensions of co-occurrence and ngrams.
    window : int
        Of co-occurrence, in tokens.
    centre : bool
        Take the anchors' mean out of the space first: what all tokens have in common does not
        count as likeness.
    shared_only : bool
        Only shared tokens are anchors. Otherwise encoder, hidden-states and ngrams take every
        trained source token; donor and co-occurrence know shared ones only.

    Notes
    -----
    Each side of an untied model is combined in the donor's own side; other spaces give both sides
    the same weights, and a tied matrix takes the output side's. Random: the SVD of a space and
    the anchors that ridge holds out, by `context.seed`.
    """

    name: ClassVar[str]
    space: SpaceName | None = None
    combiner: CombinerName = "nearest"
    k: int | None = None
    temperature: float = 0.1
    encoder: str | None = None
    layer: int | None = None
    dim: int = 128
    window: int = 4
    centre: bool = True
    shared_only: bool = False

    def __post_init__(self) -> None:
        """Check the ranges of the settings."""
        check_neighbours(self.name, self.k, self.temperature)
        self.where.check(self.name)

    @property
    def where(self) -> Place:
        """The space and how it is built."""
        return Place(self.space, self.encoder, self.layer, self.dim, self.window, self.shared_only)

    def __call__(self, context: InitContext) -> NewRows:
        """Return weights over the anchors' source rows, or dense rows where all anchors count."""
        combine = combiner(context, self.combiner, self.k, self.temperature, self.name)
        return answer(context, self.where, combine, self.name, self.centre)

    def resolved(self, context: InitContext) -> Anchors:
        """Return the method with its space and k said, for the report."""
        k = {"nearest": 10, "omp": 16}.get(self.combiner) if self.k is None else self.k
        return replace(self, space=self.where.resolved_space(context), k=k)


def check_neighbours(name: str, k: int | None, temperature: float) -> None:
    """Raise a SettingError if k or the temperature is out of range."""
    if k is not None and k < 1:
        raise SettingError(f"{name}.k must be 1 or more; got {k}")
    if not (np.isfinite(temperature) and temperature > 0):
        raise SettingError(f"{name}.temperature must be above 0; got {temperature}")


def combiner(
    context: InitContext, kind: CombinerName, k: int | None, temperature: float, name: str
) -> Combine:
    """Return the combiner of that name, with the context's device and memory."""

    def progress(done: int, total: int) -> None:
        context.progress(done, total, f"{name}: combining")

    def combine(placed: Placed, tables: tuple[Rows, ...]) -> Combined:
        queries, anchors = placed.missing, placed.anchors
        device, budget = context.device, context.memory_budget
        if kind == "nearest":
            return nearest(
                queries,
                anchors,
                k or 10,
                temperature,
                device=device,
                memory_budget=budget,
                progress=progress,
            )
        if kind == "sparsemax":
            return sparsemax(
                queries,
                anchors,
                temperature,
                tables,
                device=device,
                memory_budget=budget,
                progress=progress,
            )
        if kind == "cosine":
            return proportional(
                queries,
                anchors,
                tables,
                k,
                device=device,
                memory_budget=budget,
                progress=progress,
            )
        if kind == "omp":
            return _pursued(context, placed, k or 16, progress)
        return _mapped(context, placed, tables, progress)

    return combine


def _pursued(
    context: InitContext, placed: Placed, k: int, progress: Callable[[int, int], None]
) -> Combined:
    """Return matching pursuit's weights."""
    k = min(k, len(placed.anchors))
    here = np.flatnonzero((placed.missing != 0).any(axis=1))
    found = pursue(
        placed.anchors,
        placed.missing[here],
        k,
        ridge=_OMP_RIDGE,
        device=context.device,
        memory_budget=context.memory_budget,
        progress=progress,
    )
    used = found.support >= 0
    rows = np.broadcast_to(here[:, None], used.shape)[used]
    weights = sp.csr_array(
        (found.coefficients[used], (rows, found.support[used])),
        shape=(len(placed.missing), len(placed.anchors)),
    )
    answered = np.zeros(len(placed.missing), dtype=bool)
    answered[here] = used.any(axis=1)
    return Combined(answered, weights)


def _mapped(
    context: InitContext,
    placed: Placed,
    tables: tuple[Rows, ...],
    progress: Callable[[int, int], None],
) -> Combined:
    """Return the rows that a linear map, fitted on the anchors, gives the missing tokens."""
    maps = fit_ridge(
        lambda index: placed.anchors[index],
        tables,
        len(placed.anchors),
        generator=context.generator(),
        device=context.device,
        progress=progress,
    )
    answered = placed.known & (placed.missing != 0).any(axis=1)
    dense = tuple(each(placed.missing) * answered[:, None] for each in maps)
    return Combined(answered, None, tuple(each.astype(np.float32) for each in dense))


def answer(
    context: InitContext, where: Place, combine: Combine, name: str, centre: bool = False
) -> NewRows:
    """Place the tokens, combine the anchors' rows, and fall back to the pieces.

    Raises
    ------
    InitialiserError
        If the space has no anchor.
    """

    def made(side: str, *matrices: Rows) -> list[SideRows]:
        placed = place(context, where, side, name)
        if not len(placed.source_ids) and context.n_missing:
            raise InitialiserError(
                f"'{name}' finds 0 anchors in the space '{where.resolved_space(context)}'. "
                "Choose another space, or use 'subword-mean'."
            )
        if centre and len(placed.anchors):
            placed = _centred(placed)
        combined = combine(placed, tuple(rows[placed.source_ids] for rows in matrices))
        return [_side(context, rows, placed, combined, i) for i, rows in enumerate(matrices)]

    if context.tied:
        (side,) = made("output", context.output_rows)
        return NewRows(input=side, output=side)
    if where.resolved_space(context) == "donor":
        return NewRows(
            input=made("input", context.input_rows)[0],
            output=made("output", context.output_rows)[0],
        )
    first, second = made("output", context.input_rows, context.output_rows)
    return NewRows(input=first, output=second)


def _centred(placed: Placed) -> Placed:
    mean = placed.anchors.mean(axis=0, dtype=np.float64).astype(np.float32)
    missing = placed.missing - mean
    missing[~placed.known] = 0.0
    return replace(placed, missing=missing, anchors=placed.anchors - mean)


def _side(
    context: InitContext, rows: Rows, placed: Placed, combined: Combined, number: int
) -> SideRows:
    """Return one side: what was combined, and the pieces' mean where nothing was."""
    dense = combined.dense[number] if combined.dense else None
    weights = None
    if combined.weights is not None:
        weights = over_source(combined.weights, placed, context.n_source)
    if combined.answered.all():
        return SideRows(weights=weights, dense=dense)
    fallback = side_from_pieces(context, rows)
    assert fallback.weights is not None
    unanswered = sp.diags_array((~combined.answered).astype(np.float64))
    pieces = sp.csr_array(unanswered @ fallback.weights)
    if weights is not None:
        pieces = sp.csr_array(pieces + widened(weights, fallback.weights))
    pieces.eliminate_zeros()
    return SideRows(weights=pieces, virtual=fallback.virtual, dense=dense)


def over_source(weights: sp.csr_array, placed: Placed, n_source: int) -> sp.csr_array:
    """Return weights over anchors as weights over source ids."""
    columns = placed.source_ids[weights.indices]
    shape = (weights.shape[0], n_source)
    result = sp.csr_array((weights.data, columns, weights.indptr), shape=shape, copy=True)
    result.sort_indices()
    return result


def widened(weights: sp.csr_array, other: sp.csr_array) -> sp.csr_array:
    """Return the weights with as many columns as `other` has: it may have a virtual mean row."""
    parts = (weights.data, weights.indices, weights.indptr)
    return sp.csr_array(parts, shape=(weights.shape[0], other.shape[1]))
