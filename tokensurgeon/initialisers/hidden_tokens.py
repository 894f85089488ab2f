"""Which method for which side: candidates rebuild tokens whose rows are known.

Some shared tokens are hidden, from pieces and from atoms, and every candidate makes their rows
anew. How far these are from the true ones shortlists the candidates, and tells with which weights
several of them are best added up. It only shortlists: hidden shared tokens are frequent and their
pieces unnatural, so the choice itself is made on text, elsewhere.
"""

from __future__ import annotations

import dataclasses
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import scipy.sparse as sp

from tokensurgeon.alignment import Match
from tokensurgeon.arrays import Float32, Float64, Ids, Mask
from tokensurgeon.errors import InitialiserError
from tokensurgeon.initialisers.contract import InitContext, Initialiser, NewRows, SideRows
from tokensurgeon.vocabulary import Vocabulary

MOST_HIDDEN = 1000
"""It bounds the time of rebuilding, by every candidate."""
HIDDEN_SHARE = 0.2
"""Of the shared tokens, at most: the others are the anchors of the rebuilding."""
FEWEST_HIDDEN = 20
"""Below this nothing is learned from hiding: every candidate goes to the text."""
SMALLEST_STRATUM = 100
"""Hidden tokens that a stratum needs for weights of its own."""
LEAST_WEIGHT = 1e-3
"""A method of less weight in every stratum is left out: it would cost its time and give nothing."""
STRATA = ("word", "part", "digits", "other script")


@dataclass(frozen=True)
class Rebuilt:
    """How well a candidate rebuilt one side of the hidden tokens.

    Attributes
    ----------
    method : str
    error : float
        Mean of (û − u)ᵀG(û − u), relative to that of the mean row: 0 is perfect, 1 no better than
        the mean row.
    rows : float32 (n_hidden, width)
    """

    method: str
    error: float
    rows: Float32


@dataclass(frozen=True)
class Hidden:
    """Shared tokens that are missing for the sake of a trial.

    Attributes
    ----------
    context : InitContext
        Its `missing` are the hidden tokens.
    source_ids : int64 (n_hidden,)
        Whose rows are the truth.
    """

    context: InitContext
    source_ids: Ids


def hide(context: InitContext) -> Hidden | None:
    """Return the context with some shared tokens missing instead, or None where too few can be.

    At most 1,000 and a fifth of those that have pieces without each other, drawn from
    `context.seed` so that their numbers of pieces are like those of the tokens that really miss.
    """
    alignment, source, target = context.alignment, context.source, context.target
    source_ids = alignment.source_ids
    able = [
        int(i)
        for i in alignment.shared
        if source_ids[i] < context.n_source
        and context.anchors[source_ids[i]]
        and len(target.token_bytes[i] or b"") > 1
    ]
    generator = context.generator()
    n_wanted = min(MOST_HIDDEN, int(len(able) * HIDDEN_SHARE))
    if n_wanted < FEWEST_HIDDEN:
        return None
    drawn = sorted(generator.permutation(able)[: 3 * n_wanted].tolist())
    own = {i: int(source_ids[i]) for i in drawn}

    def spelled(token: int, forbid: Collection[int]) -> tuple[int, ...]:
        return source.pieces_of(target.token_bytes[token] or b"", forbid=forbid) or ()

    lengths = {i: n for i in drawn if (n := len(spelled(i, (own[i],))))}
    chosen = _alike(lengths, [len(p) for p in context.pieces], n_wanted, generator)
    hidden_ids = {own[i] for i in chosen}
    pieces = {i: found for i in sorted(chosen) if (found := spelled(i, hidden_ids))}
    if len(pieces) < FEWEST_HIDDEN:
        return None
    hidden = list(pieces)
    ids = source_ids.copy()
    match = alignment.match.copy()
    ids[hidden], match[hidden] = -1, Match.NONE
    anchors = context.anchors.copy()
    anchors[[own[i] for i in hidden]] = False
    trial = dataclasses.replace(
        context,
        alignment=alignment.with_matches(ids, match, f"{len(hidden)} tokens are hidden"),
        missing=np.array(hidden, dtype=np.int64),
        pieces=tuple(pieces.values()),
        anchors=anchors,
    )
    return Hidden(trial, source_ids[hidden])


def _alike(
    lengths: Mapping[int, int],
    wanted: Sequence[int],
    n: int,
    generator: np.random.Generator,
) -> list[int]:
    """Draw `n` keys of `lengths` without repetition, their values distributed like `wanted`."""
    keys = np.array(sorted(lengths), dtype=np.int64)
    have = np.minimum(np.array([lengths[int(k)] for k in keys], dtype=np.int64), 4)
    goal = np.bincount(np.minimum(np.array(wanted, dtype=np.int64), 4), minlength=5) + 1.0
    weight = (goal / (np.bincount(have, minlength=5) + 1.0))[have]
    n = min(n, len(keys))
    chosen = generator.choice(keys, size=n, replace=False, p=weight / weight.sum())
    return [int(key) for key in chosen]


def rebuild(
    hidden: Hidden,
    candidates: Mapping[str, Initialiser],
    side: str,
    metric: Float64 | None = None,
) -> list[Rebuilt]:
    """Let every candidate make the hidden rows of one side; the best first.

    Parameters
    ----------
    hidden : Hidden
    candidates : mapping of name to Initialiser
        One that cannot work, or has no rows for the side, is left out.
    side : str
        ``input`` or ``output``.
    metric : float64 (width, width) or None
        G, for the output side the mean of hhᵀ over a text; None is the identity.
    """
    context = hidden.context
    rows: Float32 = getattr(context, f"{side}_rows")
    truth = rows[hidden.source_ids]
    mean = rows[context.anchors].mean(axis=0, dtype=np.float64)
    base = _distance(np.broadcast_to(mean, truth.shape) - truth, metric)
    rebuilt = []
    for name, candidate in candidates.items():
        try:
            answer: SideRows | None = getattr(candidate(context), side)
        except InitialiserError:
            continue
        if answer is None:
            continue
        values = answer.values(rows)
        if np.isfinite(values).all():
            rebuilt.append(Rebuilt(name, _distance(values - truth, metric) / base, values))
    return sorted(rebuilt, key=lambda one: one.error)


def _distance(difference: Float32 | Float64, metric: Float64 | None) -> float:
    difference = difference.astype(np.float64)
    moved = difference if metric is None else difference @ metric
    return float(np.einsum("ij,ij->i", difference, moved).mean())


def strata(vocabulary: Vocabulary, ids: Sequence[int] | Ids) -> Ids:
    """Return an index into `STRATA` for each token, int64 (len(ids),)."""
    stratum = np.empty(len(ids), dtype=np.int64)
    for k, i in enumerate(ids):
        data = vocabulary.token_bytes[int(i)] or b""
        text = data.decode("utf-8", errors="replace")
        if any(c.isdigit() for c in text):
            stratum[k] = 2
        elif any(
            c.isalpha() and not unicodedata.name(c, "LATIN").startswith("LATIN") for c in text
        ):
            stratum[k] = 3
        else:
            stratum[k] = 0 if data[:1].isspace() else 1
    return stratum


def stack(
    hidden: Hidden,
    rebuilt: Sequence[Rebuilt],
    side: str,
    metric: Float64 | None = None,
) -> dict[str, tuple[float, ...]]:
    """Return how much of each candidate to add up, by stratum: non-negative least squares.

    Σ_m w_m û_m is fitted to the true rows in the coordinates of G^½, for each stratum with 100
    hidden tokens or more; the others share one fit over all.

    Returns
    -------
    dict
        Method → one weight per stratum of `STRATA`; methods without any weight are left out.
    """
    from scipy.optimize import nnls

    context = hidden.context
    root = None
    if metric is not None:
        values, vectors = np.linalg.eigh(metric)
        root = vectors * np.sqrt(np.maximum(values, 0.0))

    def in_metric(rows: Float32) -> Float64:
        exact = rows.astype(np.float64)
        return exact if root is None else exact @ root

    truth = in_metric(getattr(context, f"{side}_rows")[hidden.source_ids])
    parts = [in_metric(one.rows) for one in rebuilt]
    kinds = strata(context.target, context.missing)

    def fit(chosen: Mask) -> Float64:
        # The normal equations: a few unknowns, however many tokens and dimensions.
        gram = np.array([[np.vdot(a[chosen], b[chosen]) for b in parts] for a in parts])
        right = np.array([np.vdot(a[chosen], truth[chosen]) for a in parts])
        gram += 1e-9 * np.trace(gram) * np.eye(len(gram))
        half = np.linalg.cholesky(gram)
        return np.asarray(nnls(half.T, np.linalg.solve(half, right))[0])

    whole = fit(np.ones(len(kinds), dtype=bool))
    weights = np.array(
        [
            fit(kinds == k) if (kinds == k).sum() >= SMALLEST_STRATUM else whole
            for k in range(len(STRATA))
        ]
    )
    return {
        one.method: tuple(float(w) for w in weights[:, m])
        for m, one in enumerate(rebuilt)
        if weights[:, m].max() > LEAST_WEIGHT
    }


@dataclass(frozen=True)
class Mixture:
    """A sum of other initialisers' rows of one side, with weights by stratum.

    Attributes
    ----------
    side : str
        ``input`` or ``output``; the only side that is answered.
    parts : tuple of (Initialiser, weights)
        `weights` has one number per stratum of `STRATA`.
    """

    name: ClassVar[str] = "stack"
    side: str
    parts: tuple[tuple[Initialiser, tuple[float, ...]], ...]

    def __call__(self, context: InitContext) -> NewRows:
        """Return Σ weight · rows of the side, the weights of a token those of its stratum."""
        kinds = strata(context.target, context.missing)
        shape = (context.n_missing, context.n_source)
        weights, columns = sp.csr_array(shape, dtype=np.float64), []
        virtual: list[Float32] = []
        dense: Float32 | None = None
        for method, by_stratum in self.parts:
            one: SideRows | None = getattr(method(context), self.side)
            if one is None:
                raise InitialiserError(f"'{method.name}' has no {self.side} rows: choose another")
            scale = np.array(by_stratum)[kinds]
            if one.weights is not None:
                scaled = sp.csr_array(sp.diags_array(scale) @ one.weights)
                weights = sp.csr_array(weights + scaled[:, : context.n_source])
                if one.virtual is not None:
                    columns.append(scaled[:, context.n_source :])
                    virtual.append(one.virtual)
            if one.dense is not None:
                added = (scale[:, None] * one.dense).astype(np.float32)
                dense = added if dense is None else dense + added
        if virtual:
            weights = sp.csr_array(sp.hstack([weights, *columns], format="csr"))
        rows = SideRows(weights, np.concatenate(virtual) if virtual else None, dense)
        return NewRows(input=rows) if self.side == "input" else NewRows(output=rows)
