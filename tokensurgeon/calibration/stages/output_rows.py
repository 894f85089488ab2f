"""Output rows of new tokens from what the source itself says of their pieces.

`prior` gives a token the row of its first piece and a constant for the pieces that follow;
`readout` fits it to the source's probability of the whole token wherever the text shows it;
`shrunk` pulls new rows towards the mean row. All are closed form, solved in float64.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, fields
from typing import ClassVar

import numpy as np

from tokensurgeon.calibration.contract import (
    Candidate,
    Candidates,
    Doubles,
    Ids,
    Matrices,
    Rows,
    blocks,
)
from tokensurgeon.calibration.data import Workbench
from tokensurgeon.calibration.stages.sampled_contexts import Places, make_places
from tokensurgeon.initialisers import mean_row

FLOOR = 1e-9
"""Least share of its first piece's probability that a token may be given."""
MOST_OCCURRENCES = 512
"""Of one token that `readout` is fitted to; evenly spaced ones of those that there are."""


def even_direction(states: Rows, ridge: float = 1e-3) -> Doubles:
    """Return b with state · b about 1 for every state: (HᵀH + λI)⁻¹ Hᵀ1, float64 (width,).

    λ is `ridge` times the mean of HᵀH's diagonal. Adding c·b to a row adds about c to its logit
    everywhere, as an output bias would.
    """
    states64 = states.astype(np.float64)
    gram = states64.T @ states64
    scale = ridge * np.trace(gram) / len(gram)
    direction: Doubles = np.linalg.solve(gram + scale * np.eye(len(gram)), states64.sum(axis=0))
    return direction


def shifted(
    matrices: Matrices, ids: Ids, amounts: Doubles, direction: Doubles, scale: float
) -> Matrices:
    """Return the matrices with `amounts` nats added to the logits of `ids`.

    By the output bias where there is one, else along `direction`.
    """
    if matrices.bias is not None:
        bias = matrices.bias.copy()
        bias[ids] += (amounts / scale).astype(np.float32)
        return matrices.with_output(matrices.output, bias)
    rows = matrices.output.copy()
    rows[ids] += (amounts[:, None] / scale * direction).astype(np.float32)
    return matrices.with_output(rows)


class Shrunk:
    """u = ū + (1 − c)(u − ū) for new rows, ū the mean of the source's trained output rows."""

    name: ClassVar[str] = "shrunk"
    changes_shared: ClassVar[bool] = False
    two_matrices: ClassVar[bool] = False

    def __call__(self, bench: Workbench, matrices: Matrices) -> Candidates:
        """Yield c = 0.25 and 0.5."""
        mean = mean_row(bench.context.output_rows, bench.context.anchors)
        for amount in (0.25, 0.5):
            rows = matrices.output.copy()
            rows[bench.new] = mean + (1 - amount) * (rows[bench.new] - mean)
            yield Candidate({"towards_mean": amount}, matrices.with_output(rows))


class Prior:
    """u_t = u_{s₁} + log π_t · b: as the first piece, less what its other children take.

    π_t = (n(t) + a·π₀)/(n(s₁) + a), counted where the source emits s₁ at a border common to both
    tokenizers; π₀ is the source's own estimate for the pieces that follow, ∏ p(s_j) from its
    token frequencies. With `shared` the shared token s₁ gives up what its new children take, so
    that all of them together keep its mass.
    """

    name: ClassVar[str] = "prior"
    changes_shared: ClassVar[bool] = True
    two_matrices: ClassVar[bool] = False

    def __call__(self, bench: Workbench, matrices: Matrices) -> Candidates:
        """Yield the new rows alone, and the new and the shared ones."""
        context, seen = bench.context, bench.occurrences
        alignment, scale = context.alignment, bench.model.logit_scale
        direction = even_direction(bench.source_states())
        n_rows, strength = len(matrices.output), 1.0
        n_token = np.bincount(seen.tokens, minlength=n_rows).astype(np.float64)
        n_first = np.bincount(seen.first, minlength=context.n_source).astype(np.float64)
        log_unigram = _log_unigram(bench.source_track.ids, context.n_source)
        of_new = np.isin(context.missing, bench.new)
        pieces = [p for p, wanted in zip(context.pieces, of_new, strict=True) if wanted]
        first = np.array([p[0] for p in pieces], dtype=np.int64)
        rest = np.array([log_unigram[list(p[1:])].sum() for p in pieces])
        guess = np.exp(np.maximum(rest, np.log(FLOOR)))
        share = (n_token[bench.new] + strength * guess) / (n_first[first] + strength)
        rows = matrices.output.copy()
        rows[bench.new] = context.output_rows[first]
        bias = matrices.bias
        if bias is not None and context.output_bias is not None:
            bias = bias.copy()
            bias[bench.new] = context.output_bias[first]
        base = matrices.with_output(rows, bias)
        amounts = np.log(np.clip(share, FLOOR, 1.0))
        alone = shifted(base, bench.new, amounts, direction, scale)
        yield Candidate({"rows": "new"}, alone)
        if matrices.tied:
            return
        source_of = alignment.output_source_ids[bench.shared]
        counted = bench.shared[(source_of >= 0) & (n_first[source_of] > 0)]
        own = alignment.output_source_ids[counted]
        left = (n_token[counted] + 0.5 * strength) / (n_first[own] + strength)
        amounts = np.log(np.clip(left, FLOOR, 1.0))
        both = shifted(alone, counted, amounts, direction, scale)
        yield Candidate({"rows": "new and shared"}, both)


def _log_unigram(ids: Ids, n_source: int) -> Doubles:
    counts = np.bincount(ids, minlength=n_source) + 0.5
    found: Doubles = np.log(counts / counts.sum())
    return found


class Readout:
    """Fit each new row to the source's own log-probability of the token.

    Where t occurs between two borders of the source, with h the source's state before it:
    z = log p(pieces) + logsumexp(h), and u_t = u₀ + (Σhhᵀ + λG)⁻¹ Σh(z − h·u₀), G the mean of hhᵀ
    over the text, u₀ the row so far. Rows that the text does not show stay, unless the source is
    asked what it would say of them in contexts of its own choice (see `sampled_contexts`).
    """

    name: ClassVar[str] = "readout"
    changes_shared: ClassVar[bool] = False
    two_matrices: ClassVar[bool] = False

    def __call__(self, bench: Workbench, matrices: Matrices) -> Candidates:
        """Yield λ = 64 and λ = 16; then λ = 16 with places beside the text."""
        seen = from_text(bench)
        for strength in (64.0, 16.0):
            rows = read_out(bench, matrices, seen, strength)
            yield Candidate({"ridge": strength}, matrices.with_output(rows))
        places = make_places(bench)
        if len(places.tokens):
            rows = read_out(bench, matrices, joined(seen, from_places(places)), 16.0)
            settings = {"ridge": 16.0, "places": len(places.tokens)}
            yield Candidate(settings, matrices.with_output(rows))


@dataclass(frozen=True)
class Readings:
    """What rows are fitted to, one entry each.

    Attributes
    ----------
    tokens : int64 (n,)
        Target ids, ascending.
    states : float32 (n, width)
        The source's, before the token.
    logits : float64 (n,)
        What the token's final logit should be there.
    weights : float64 (n,)
    """

    tokens: Ids
    states: Rows
    logits: Doubles
    weights: Doubles


def from_text(bench: Workbench) -> Readings:
    """Return where the text shows new tokens, at most 512 times each."""
    seen = bench.occurrences
    here = np.flatnonzero(np.isin(seen.tokens, bench.new))
    here = here[np.argsort(seen.tokens[here], kind="stable")]
    edges = np.flatnonzero(np.diff(seen.tokens[here], prepend=-1, append=-1))
    chosen = [
        np.linspace(a, b - 1, min(b - a, MOST_OCCURRENCES)).astype(np.int64)
        for a, b in itertools.pairwise(edges.tolist())
    ]
    here = here[np.concatenate([np.zeros(0, np.int64), *chosen])]
    at = seen.states[here]
    logits = seen.logprob[here] + bench.logsumexp[at]
    return Readings(seen.tokens[here], bench.source_states()[at], logits, np.ones(len(here)))


def from_places(places: Places) -> Readings:
    """Weigh places by how likely the token is there: a low logit need not be exact."""
    tokens = places.tokens
    starts = np.flatnonzero(np.diff(tokens, prepend=-1))
    most = np.repeat(
        np.maximum.reduceat(places.logprob, starts), np.diff(starts, append=len(tokens))
    )
    logits = places.logprob + places.logsumexp
    return Readings(tokens, places.states, logits, np.exp(places.logprob - most))


def joined(one: Readings, other: Readings) -> Readings:
    """Return both, by token."""
    order = np.argsort(np.concatenate([one.tokens, other.tokens]), kind="stable")
    return Readings(
        *(
            np.concatenate([getattr(one, f.name), getattr(other, f.name)])[order]
            for f in fields(Readings)
        )
    )


def read_out(bench: Workbench, matrices: Matrices, seen: Readings, strength: float) -> Rows:
    """Return the output rows after `Readout` with λ = `strength`, float32 (n_rows, width).

    In coordinates in which G is the identity every token is a small ridge regression: of as many
    unknowns as it has occurrences, or as the model is wide, whichever is less.
    """
    whiten = whitener(bench.source_states())
    wanted = bench.raw(seen.logits)
    if matrices.bias is not None:
        wanted = wanted - matrices.bias[seen.tokens]
    rows = matrices.output.copy()
    for token in np.unique(seen.tokens).tolist():
        here = slice(*np.searchsorted(seen.tokens, [token, token + 1]))
        root = np.sqrt(seen.weights[here])
        hidden = seen.states[here].astype(np.float64)
        left = root * (wanted[here] - hidden @ rows[token].astype(np.float64))
        flat = root[:, None] * (hidden @ whiten)
        if len(flat) < flat.shape[1]:
            inner = flat @ flat.T + strength * np.eye(len(flat))
            step = flat.T @ np.linalg.solve(inner, left)
        else:
            inner = flat.T @ flat + strength * np.eye(flat.shape[1])
            step = np.linalg.solve(inner, flat.T @ left)
        rows[token] += (whiten @ step).astype(np.float32)
    return rows


def whitener(states: Rows, ridge: float = 1e-3) -> Doubles:
    """Return W with WWᵀ = (G + εI)⁻¹, G = HᵀH/n, float64 (width, width)."""
    gram = np.zeros((states.shape[1], states.shape[1]))
    for part in blocks(len(states), 1 << 16):
        some = states[part].astype(np.float64)
        gram += some.T @ some / len(states)
    gram += ridge * np.trace(gram) / len(gram) * np.eye(len(gram))
    values, vectors = np.linalg.eigh(gram)
    return np.asarray(vectors / np.sqrt(values))
