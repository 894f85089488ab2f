"""Rows for ids that no method answers for: a mean input row, and an output row nobody prefers.

Padding, reserved ids, unmatched control tokens and tokens that nothing can spell still have a
row in the matrix. On the input side the mean row is harmless. On the output side a row must not
draw probability: a zero row has logit 0, which in many models is far above the average logit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tokensurgeon.arrays import Float32, Float64, Mask
from tokensurgeon.errors import InitialiserError
from tokensurgeon.initialisers.contract import InitContext
from tokensurgeon.models.head import OutputHead

MARGIN = 20.0
"""Nats below which a row is silent, where an output bias can bring it so low: a million such rows
take 0.2 % of the probability."""
SHARE = 0.99
"""Share of the probe states whose distance to the logsumexp is reported."""
LONGEST_PROBE = 32
"""Tokens of a stretch of text: enough for a state to be in the midst of something."""
RIDGES = (1e-4, 1e-3, 1e-2, 1e-1)
"""Penalties to choose from, in units of the states' mean square, a decade apart."""
MOST_PROBES = 1024
"""Sequences whose states are looked at, where there is time for them."""
STEPS = 200
"""Of the fit, at most; it is convex and mostly ends before."""


@dataclass(frozen=True)
class SuppressedRow:
    """An output row that hidden states do not prefer, and what it reaches.

    Attributes
    ----------
    row : float32 (width,)
    bias : float
        The output bias to write beside it; 0 where the model has none.
    margin : float
        Nats below the logsumexp that 99 % of the probe states keep; NaN without probe states.
    cost : float
        Nats a token that as many such rows as the source has tokens would take from the others,
        mean over the probe states; NaN without probe states.
    norm : float
        Norm of `row`.
    n_probes : int
    """

    row: Float32
    bias: float
    margin: float
    cost: float
    norm: float
    n_probes: int


def trained_rows(rows: Float32, anchors: Mask) -> Float32:
    """Return the rows that look trained; where none does, the finite ones.

    Raises
    ------
    InitialiserError
        If no row is finite.
    """
    chosen = rows[anchors]
    if not len(chosen) or not np.isfinite(chosen).all():
        chosen = rows[np.isfinite(rows).all(axis=1)]
    if not len(chosen):
        raise InitialiserError(f"none of the {len(rows)} source rows is finite; repair the source")
    return chosen


def mean_row(rows: Float32, anchors: Mask) -> Float32:
    """Return the mean of the rows where `anchors`, (width,) float32, summed in float64."""
    chosen = trained_rows(rows, anchors)
    return np.asarray(chosen.mean(axis=0, dtype=np.float64), dtype=np.float32)


def mean_input_row(context: InitContext) -> Float32:
    """Return the mean of the trained input rows, (width,) float32."""
    return mean_row(context.input_rows, context.anchors)


def suppressed_output_row(context: InitContext, n_probes: int = MOST_PROBES) -> SuppressedRow:
    """Return an output row that takes next to no probability at any hidden state.

    With forward passes it is the row q that minimises the loss it causes: the mean over probe
    states h of log(1 + n·exp(q·h − logsumexp)), n being the number of source tokens, with a ridge
    on the distance to the mean trained row that does best on probes left out. To keep 99 % of the
    states 20 nats below, as is often asked, is another aim and a worse one: it buys depth where
    nothing is to be won with the few states, those of an indentation, say, that then prefer the
    row. On technical-base with 102 such ids that cost 0.08 bits per byte. The norm is bounded by
    twice the 99th percentile of the trained rows', whatever that costs. Where the output has a
    bias, the row is the mean row and the bias does the work. Without forward passes the row is
    the mean trained row: rows alone do not show where states lie.

    Parameters
    ----------
    context : InitContext
    n_probes : int
        Most probe sequences: one, two and three tokens after the prefix, and as many stretches of
        the calibration text if there is one. Seeded.
    """
    rows = trained_rows(context.output_rows, context.anchors).astype(np.float64)
    mean = rows.mean(axis=0)
    scale, states = context.logit_scale, _probe_states(context, n_probes)
    if states is None:
        bias = 0.0
        if context.output_bias is not None:
            known = context.output_bias[np.isfinite(context.output_bias)]
            bias = float(known.min() if len(known) else 0.0) - MARGIN / scale
        return _described(mean, bias, float("nan"), float("nan"), 0)
    finite = np.isfinite(context.output_rows).all(axis=1)
    # The scale of the logits goes into states and bias: all that follows is then in nats.
    states = scale * states
    output_bias = None
    if context.output_bias is not None:
        output_bias = context.output_bias[finite] * np.float32(scale)
    head = OutputHead(context.output_rows[finite], output_bias, softcap=context.softcap)
    level = _logsumexp(head, states)
    # As many rows as there are tokens, each at this logit, take half of the probability.
    ceiling = head.inverse(level - np.log(context.n_source))
    row, bias = mean, 0.0
    if output_bias is not None:
        lowest = head.inverse(level - MARGIN)
        bias = -float((states @ mean - lowest).max())
    else:
        row = mean + _least_preferred(mean, states, ceiling)
        limit = 2.0 * float(np.quantile(np.linalg.norm(rows, axis=1), 0.99))
        row = mean + min(1.0, _longest(mean, mean - row, limit)) * (row - mean)
    logits = states @ row + bias
    margin = -float(np.quantile(logits - head.inverse(level), SHARE, method="higher"))
    return _described(row, bias / scale, margin, _cost(logits - ceiling), len(states))


def _described(
    row: Float64, bias: float, margin: float, cost: float, n_probes: int
) -> SuppressedRow:
    norm = float(np.linalg.norm(row))
    return SuppressedRow(row.astype(np.float32), bias, margin, cost, norm, n_probes)


def _cost(excess: Float64) -> float:
    return float(np.logaddexp(0.0, excess).mean())


def _least_preferred(mean: Float64, states: Float64, ceiling: Float64) -> Float64:
    """Return what to add to the mean row, under the ridge that does best on states left out."""
    excess = states @ mean - ceiling
    even = np.arange(len(states)) % 2 == 0
    ridge = RIDGES[-1]
    if len(states) > 1:

        def left_out(ridge: float) -> float:
            return sum(
                _cost(excess[~fit] + states[~fit] @ _fitted(states[fit], excess[fit], ridge))
                for fit in (even, ~even)
            )

        ridge = min(RIDGES, key=left_out)
    return _fitted(states, excess, ridge)


def _fitted(states: Float64, excess: Float64, ridge: float) -> Float64:
    """Minimise the cost with a ridge, in units of the states' mean square; convex."""
    from scipy.optimize import minimize
    from scipy.special import expit

    weight = ridge * float((states**2).mean())

    def cost(change: Float64) -> tuple[float, Float64]:
        changed = excess + states @ change
        slope = states.T @ expit(changed) / len(states) + weight * change
        return _cost(changed) + weight / 2 * float(change @ change), slope

    start = np.zeros(states.shape[1])
    fit = minimize(cost, start, jac=True, method="L-BFGS-B", options={"maxiter": STEPS})
    return np.asarray(fit.x, dtype=np.float64)


def _longest(mean: Float64, direction: Float64, limit: float) -> float:
    """Return the largest c ≥ 0 for which ‖mean − c·direction‖ ≤ limit."""
    a = float(direction @ direction)
    half_b = float(mean @ direction)
    rest = limit**2 - float(mean @ mean)
    if a == 0.0 or rest <= 0.0:
        return 0.0
    return (half_b + float(np.sqrt(half_b**2 + a * rest))) / a


def _logsumexp(head: OutputHead, states: Float64) -> Float64:
    """Return the logsumexp at each state, summed in float64."""
    level = np.empty(len(states))
    for part in head.blocks(len(states)):
        logits = head.logits(states[part].astype(np.float32))
        level[part] = logits.double().logsumexp(1).numpy()
    return level


def _probe_states(context: InitContext, n_probes: int) -> Float64 | None:
    """Return final states (n, width) of a seeded probe set, or None."""
    states = context.states
    if states is None or states.width != context.width:
        return None
    generator = context.generator()
    ids = np.flatnonzero(context.anchors)
    if not len(ids):
        return None
    room = n_probes // 2 if context.texts else 0
    quarter = (n_probes - room) // 4
    sequences = [[int(i)] for i in generator.permutation(ids)[: 2 * quarter]]
    for length in (2, 3):
        sequences += generator.choice(ids, (quarter, length)).tolist()
    for _ in range(room):
        text = context.texts[int(generator.integers(len(context.texts)))]
        # Not only openings: states inside an indentation or a table are unlike those.
        start = int(generator.integers(max(1, len(text) - 12 * LONGEST_PROBE)))
        encoded = context.source.encode(text[start : start + 12 * LONGEST_PROBE])
        known = [token for token in encoded if token < context.n_source]
        if known:
            sequences.append(known[: int(generator.integers(1, LONGEST_PROBE + 1))])
    final = states([[*context.prefix, *sequence] for sequence in sequences], states.n_layers)
    exact = final.astype(np.float64)
    finite = np.isfinite(exact).all(axis=1)
    return exact[finite] if finite.any() else None
