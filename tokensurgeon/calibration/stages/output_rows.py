"""Output rows of new tokens from what the source itself says of their pieces.

`prior` gives a token the row of its first piece and a constant for the pieces that follow;
`readout` fits it to the source's probability of the whole token wherever the text shows it;
`shrunk` pulls new rows towards the mean row. All are closed form, solved in float64.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, fields

import numpy as np

from tokensurgeon.arrays import Float32, Float64, Ids
from tokensurgeon.calibration.contract import Candidate, Candidates, Cost, Stage
from tokensurgeon.calibration.data import CalibrationData, TextSizes
from tokensurgeon.calibration.matrices import Matrices
from tokensurgeon.calibration.stages.directions import even_direction, shifted, whitener
from tokensurgeon.calibration.stages.sampled_contexts import SampledContexts, sample_contexts
from tokensurgeon.initialisers import mean_row

MIN_SHARE = 1e-9
"""Least share of its first piece's probability that a token may be given: 21 nats, which no text
that fits into memory can tell from never."""
PRIOR_COUNT = 1.0
"""Occurrences that the source's own estimate of a token is worth beside those in the text."""
MOST_OCCURRENCES = 512
"""Of one token that `readout` is fitted to, evenly spaced: as many unknowns as a small model is
wide, so that more of them would hardly change the row."""


class Shrunk(Stage):
    """u = ū + (1 − c)(u − ū) for new rows, ū the mean of the source's trained output rows."""

    name = "shrunk"

    def propose(self, data: CalibrationData, matrices: Matrices) -> Candidates:
        """Yield c = 0.25 and 0.5."""
        mean = mean_row(data.context.output_rows, data.context.anchors)
        for amount in (0.25, 0.5):
            rows = matrices.output.copy()
            rows[data.new] = mean + (1 - amount) * (rows[data.new] - mean)
            yield Candidate.of({"towards_mean": amount}, matrices.with_output(rows))
        return None


class Prior(Stage):
    """u_t = u_{s₁} + log π_t · b: as the first piece, less what its other children take.

    π_t = (n(t) + a·π₀)/(n(s₁) + a), counted where the source emits s₁ at a boundary common to both
    tokenizers; π₀ is the source's own estimate for the pieces that follow, ∏ p(s_j) from its
    token frequencies. In the second candidate the shared token s₁ gives up what its new children
    take, so that all of them together keep its mass.
    """

    name = "prior"
    changes_shared = True
    adapts_to_text = True
    fit_passes = 1

    def propose(self, data: CalibrationData, matrices: Matrices) -> Candidates:
        """Yield the new rows alone, and the new and the shared ones."""
        context, seen = data.context, data.occurrences
        alignment, scale = context.alignment, data.model.logit_scale
        direction = even_direction(data.source_states())
        n_rows = len(matrices.output)
        n_token = np.bincount(seen.tokens, minlength=n_rows).astype(np.float64)
        n_first = np.bincount(seen.first, minlength=context.n_source).astype(np.float64)
        log_unigram = _log_unigram(data.source_positions.ids, context.n_source)
        _, pieces = data.new_pieces
        first = np.array([p[0] for p in pieces], dtype=np.int64)
        rest = np.array([log_unigram[list(p[1:])].sum() for p in pieces])
        guess = np.exp(np.maximum(rest, np.log(MIN_SHARE)))
        share = (n_token[data.new] + PRIOR_COUNT * guess) / (n_first[first] + PRIOR_COUNT)
        rows = matrices.output.copy()
        rows[data.new] = context.output_rows[first]
        bias = matrices.bias
        if bias is not None and context.output_bias is not None:
            bias = bias.copy()
            bias[data.new] = context.output_bias[first]
        base = matrices.with_output(rows, bias)
        amounts = np.log(np.clip(share, MIN_SHARE, 1.0))
        alone = shifted(base, data.new, amounts, direction, scale)
        yield Candidate.of({"rows": "new"}, alone)
        if matrices.tied:
            return None
        source_of = alignment.output_source_ids[data.shared]
        counted = data.shared[(source_of >= 0) & (n_first[source_of] > 0)]
        own = alignment.output_source_ids[counted]
        left = (n_token[counted] + 0.5 * PRIOR_COUNT) / (n_first[own] + PRIOR_COUNT)
        amounts = np.log(np.clip(left, MIN_SHARE, 1.0))
        both = shifted(alone, counted, amounts, direction, scale)
        yield Candidate.of({"rows": "new and shared"}, both)
        return None


def _log_unigram(ids: Ids, n_source: int) -> Float64:
    counts = np.bincount(ids, minlength=n_source) + 0.5
    frequencies: Float64 = np.log(counts / counts.sum())
    return frequencies


class Readout(Stage):
    """Fit each new row to the source's own log-probability of the token.

    Where t occurs between two boundaries of the source, with h the source's state before it:
    z = log p(pieces) + logsumexp(h), and u_t = u₀ + (Σhhᵀ + λG)⁻¹ Σh(z − h·u₀), G the mean of hhᵀ
    over the text, u₀ the row so far. Rows that the text does not show stay, unless the source is
    asked what it would say of them in contexts of its own choice (see `sampled_contexts`).
    """

    name = "readout"

    def propose(self, data: CalibrationData, matrices: Matrices) -> Candidates:
        """Yield λ = 64 and λ = 16; then λ = 16 with sampled contexts beside the text."""
        seen = from_text(data)
        for strength in (64.0, 16.0):
            rows = read_out(data, matrices, seen, strength)
            yield Candidate.of({"ridge": strength}, matrices.with_output(rows))
        contexts = sample_contexts(data)
        if len(contexts.tokens):
            rows = read_out(data, matrices, joined(seen, from_contexts(contexts)), 16.0)
            settings = {"ridge": 16.0, "contexts": len(contexts.tokens)}
            yield Candidate.of(settings, matrices.with_output(rows))
        return None

    def cost(self, sizes: TextSizes) -> Cost:
        """The source's states on the text, and its reading of new tokens in contexts."""
        return Cost(sizes.fit + 2 * sizes.contexts)

    def least(self, sizes: TextSizes) -> Cost:
        """The source's states alone."""
        return Cost(sizes.fit)


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
    states: Float32
    logits: Float64
    weights: Float64


def from_text(data: CalibrationData) -> Readings:
    """Return where the text shows new tokens, at most 512 times each."""
    seen = data.occurrences
    new = np.flatnonzero(np.isin(seen.tokens, data.new))
    new = new[np.argsort(seen.tokens[new], kind="stable")]
    edges = np.flatnonzero(np.diff(seen.tokens[new], prepend=-1, append=-1))
    chosen = [
        np.linspace(a, b - 1, min(b - a, MOST_OCCURRENCES)).astype(np.int64)
        for a, b in itertools.pairwise(edges.tolist())
    ]
    new = new[np.concatenate([np.zeros(0, np.int64), *chosen])]
    at = seen.states[new]
    logits = seen.logprob[new] + data.logsumexp[at]
    return Readings(seen.tokens[new], data.source_states()[at], logits, np.ones(len(new)))


def from_contexts(contexts: SampledContexts) -> Readings:
    """Weigh contexts by how likely the token is there: a low logit need not be exact."""
    tokens = contexts.tokens
    starts = np.flatnonzero(np.diff(tokens, prepend=-1))
    most = np.repeat(
        np.maximum.reduceat(contexts.logprob, starts), np.diff(starts, append=len(tokens))
    )
    logits = contexts.logprob + contexts.logsumexp
    return Readings(tokens, contexts.states, logits, np.exp(contexts.logprob - most))


def joined(one: Readings, other: Readings) -> Readings:
    """Return both, by token."""
    order = np.argsort(np.concatenate([one.tokens, other.tokens]), kind="stable")
    return Readings(
        *(
            np.concatenate([getattr(one, f.name), getattr(other, f.name)])[order]
            for f in fields(Readings)
        )
    )


def read_out(data: CalibrationData, matrices: Matrices, seen: Readings, strength: float) -> Float32:
    """Return the output rows after `Readout` with λ = `strength`, float32 (n_rows, width).

    In coordinates in which G is the identity every token is a small ridge regression: of as many
    unknowns as it has occurrences, or as the model is wide, whichever is less.
    """
    whiten = whitener(data.source_states())
    wanted = data.source_head.inverse(seen.logits)
    if matrices.bias is not None:
        wanted = wanted - matrices.bias[seen.tokens]
    rows = matrices.output.copy()
    for token in np.unique(seen.tokens).tolist():
        own = slice(*np.searchsorted(seen.tokens, [token, token + 1]))
        root = np.sqrt(seen.weights[own])
        hidden = seen.states[own].astype(np.float64)
        left = root * (wanted[own] - hidden @ rows[token].astype(np.float64))
        flat = root[:, None] * (hidden @ whiten)
        if len(flat) < flat.shape[1]:
            inner = flat @ flat.T + strength * np.eye(len(flat))
            step = flat.T @ np.linalg.solve(inner, left)
        else:
            inner = flat.T @ flat + strength * np.eye(flat.shape[1])
            step = np.linalg.solve(inner, flat.T @ left)
        rows[token] += (whiten @ step).astype(np.float32)
    return rows
