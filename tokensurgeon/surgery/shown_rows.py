"""What a report shows of single rows and texts: bounded samples of what a surgery knows."""

from __future__ import annotations

import numpy as np

from tokensurgeon.alignment import Alignment, Match
from tokensurgeon.arrays import Float32, Ids
from tokensurgeon.evaluation import Evaluation
from tokensurgeon.inspection.row_map import FITTED, Plane, drawn
from tokensurgeon.inspection.samples import sample_cuts
from tokensurgeon.report.records import largest_weights
from tokensurgeon.report.shown_facts import CutFact, NewTokenFact, RowMap, RowOrigin, RowWeight
from tokensurgeon.surgery.row_origins import COPIED, INITIALISED, ORIGINS, RECALIBRATED
from tokensurgeon.surgery.rows import PatchedRows, Side
from tokensurgeon.surgery.session import Session

POINTS = 250
"""Of a kind on a map: more lie over each other, and fewer hide the shape."""
WEIGHTS = 3
"""Weights that are named of a row."""


def row_maps(session: Session, rows: PatchedRows) -> tuple[RowMap, ...]:
    """Return a map of each matrix, the input's first; one where they are tied."""
    context = session.context
    if rows.tied:
        return (_row_map(session, rows.output, context.output_rows, "both"),)
    return (
        _row_map(session, rows.input, context.input_rows, "input"),
        _row_map(session, rows.output, context.output_rows, "output"),
    )


def _row_map(session: Session, side: Side, trained: Float32, name: str) -> RowMap:
    """Draw rows of each kind, and lay the plane through trained rows of the source."""
    # A generator of its own: what is drawn for a picture changes no random number of a surgery.
    generator = np.random.default_rng(session.recipe.seed)
    anchors = np.flatnonzero(session.context.anchors)
    plane = Plane.through(trained[drawn(anchors, FITTED, generator)])
    # A row that was changed is still taken over: its source is in the alignment, no longer a copy.
    alignment = session.alignment
    taken_ids = alignment.output_source_ids if name == "output" else alignment.source_ids
    taken = np.append(side.copied[side.copied >= 0], taken_ids[taken_ids >= 0])
    of_source = np.setdiff1d(anchors, taken)
    copied = np.flatnonzero(np.isin(side.origin, (COPIED, RECALIBRATED)))
    new = np.flatnonzero(side.origin == INITIALISED)
    kinds = {"left_out": (trained, of_source), "copied": (side.rows, copied)}
    kinds["new"] = (side.rows, new)
    points = {
        kind: _rounded(plane, matrix[drawn(ids, POINTS, generator)])
        for kind, (matrix, ids) in kinds.items()
    }
    totals = {kind: len(ids) for kind, (_, ids) in kinds.items()}
    return RowMap(side=name, explained=plane.explained, totals=totals, **points)


def _rounded(plane: Plane, rows: Float32) -> tuple[tuple[float, float], ...]:
    """Return points with four digits, more than a picture shows; none that is not finite."""
    points = plane.points(rows[np.isfinite(rows).all(axis=1)])
    return tuple((float(f"{x:.4g}"), float(f"{y:.4g}")) for x, y in points.tolist())


def new_token_facts(
    session: Session, rows: PatchedRows, evaluation: Evaluation
) -> tuple[NewTokenFact, ...]:
    """Return where the rows of the new tokens came from that the patched model's entry names."""
    named = evaluation["patched"].new_tokens
    if named is None:
        return ()
    target, source = session.alignment.target, session.alignment.source
    pieces = session.inputs.pieces
    return tuple(
        NewTokenFact(
            id=cost.id,
            spelling=target.spellings[cost.id] or "",
            pieces=tuple(source.spellings[i] or "" for i in pieces.get(cost.id, ())),
            sides=_origins(session, rows, cost.id),
        )
        for cost in (*named.worst, *named.best)
    )


def _origins(session: Session, rows: PatchedRows, token: int) -> tuple[RowOrigin, ...]:
    context = session.context
    if rows.tied:
        return (_origin(session, rows.output, context.output_rows, "both", token),)
    return (
        _origin(session, rows.input, context.input_rows, "input", token),
        _origin(session, rows.output, context.output_rows, "output", token),
    )


def _origin(session: Session, side: Side, trained: Float32, name: str, token: int) -> RowOrigin:
    spellings = session.alignment.source.spellings
    largest, n_weights = largest_weights(side.weights, token, WEIGHTS)
    origin = ORIGINS[side.origin[token]]
    return RowOrigin(
        side=name,
        origin=origin,
        method=side.method if origin == ORIGINS[INITIALISED] else None,
        weights=tuple(
            RowWeight(spelling=spellings[i] or "", weight=weight) for i, weight in largest
        ),
        n_weights=n_weights,
        rest=round(float(rest_of_rows(side, trained, np.array([token]))[0]), 3),
    )


def rest_of_rows(side: Side, trained: Float32, ids: Ids) -> Float32:
    """Return which share of the norm of some rows their weights do not say, float32 (n_ids,)."""
    rows = side.rows[ids]
    missed = np.linalg.norm(rows - side.weights[ids] @ trained, axis=1)
    return np.asarray(missed / np.maximum(np.linalg.norm(rows, axis=1), 1e-12))


def cuts(alignment: Alignment) -> tuple[CutFact, ...]:
    """Return how both tokenizers cut a few short texts of ours."""
    missing = alignment.match == Match.NONE
    return tuple(
        CutFact(
            name=sample.name,
            text=sample.text,
            source=tuple(len(span.data) for span in sample.cuts[0]),
            target=tuple(len(span.data) for span in sample.cuts[1]),
            new=tuple(i for i, span in enumerate(sample.cuts[1]) if missing[span.id]),
        )
        for sample in sample_cuts(alignment.source, alignment.target)
    )
