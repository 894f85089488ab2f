"""Rows for ids that no method answers for: a mean input row, and an output row nobody prefers.

Padding, reserved ids, unmatched control tokens and tokens that nothing can spell still have a
row in the matrix. On the input side the mean row is harmless. On the output side a row must not
draw probability: a zero row has logit 0, which in many models is far above the average logit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tokensurgeon.errors import InitialiserError
from tokensurgeon.initialisers.contract import InitContext, Rows

MARGIN = 20.0
"""Nats below the logsumexp at which a quiet row should stay."""

SHARE = 0.99
"""Share of the probe states for which it should."""

_RIDGES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)


@dataclass(frozen=True)
class QuietRow:
    """An output row that hidden states do not prefer, and what it reaches.

    Attributes
    ----------
    row : float32 (width,)
    bias : float
        The output bias to write beside it; 0 where the model has none.
    margin : float
        Nats below the logsumexp that 99 % of the probe states keep; NaN without probe states.
    share : float
        Share of the probe states at least 20 nats below; NaN without probe states.
    norm : float
        Norm of `row`.
    n_probes : int
    """

    row: Rows
    bias: float
    margin: float
    share: float
    norm: float
    n_probes: int


def trained_rows(rows: Rows, anchors: npt.NDArray[np.bool_]) -> Rows:
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


def mean_row(rows: Rows, anchors: npt.NDArray[np.bool_]) -> Rows:
    """Return the mean of the rows where `anchors`, (width,) float32, summed in float64."""
    chosen = trained_rows(rows, anchors)
    return np.asarray(chosen.mean(axis=0, dtype=np.float64), dtype=np.float32)


def mean_input_row(context: InitContext) -> Rows:
    """Return the mean of the trained input rows, (width,) float32."""
    return mean_row(context.input_rows, context.anchors)


def quiet_output_row(context: InitContext, n_probes: int = 1024) -> QuietRow:
    """Return an output row whose logit stays far below the others for any hidden state.

    With forward passes: b = (HᵀH + λI)⁻¹Hᵀ1 is a direction along which every final state reads
    about 1, and the row is the mean trained row less c·b, with the smallest c (over a few λ the
    smallest norm) that puts 99 % of the probe states 20 nats below their logsumexp. The norm is
    bounded by twice the 99th percentile of the trained rows', whatever that leaves of the margin.
    Where the output has a bias, the row is the mean row and the bias does the work. Without
    forward passes the row is the mean trained row: rows alone do not show where states lie.

    Parameters
    ----------
    context : InitContext
    n_probes : int
        Most probe sequences: one, two and three tokens after the prefix, and openings of the
        calibration text if there is one. Seeded.
    """
    rows = trained_rows(context.output_rows, context.anchors).astype(np.float64)
    mean = rows.mean(axis=0)
    with_bias = context.output_bias is not None
    states = _probe_states(context, n_probes)
    if states is None:
        bias = _bias_below(context) if with_bias else 0.0
        return _quiet(mean, bias, float("nan"), float("nan"), 0)
    ceiling = _raw(_logsumexp(context, states) - MARGIN, context.softcap)
    excess = states @ mean - ceiling
    if with_bias:
        bias = -_at_share(excess)
        left = excess + bias
        return _quiet(mean, bias, *_reached(left), len(states))
    limit = 2.0 * float(np.quantile(np.linalg.norm(rows, axis=1), 0.99))
    best: tuple[float, float, npt.NDArray[np.float64]] | None = None
    gram = states.T @ states
    scale = np.trace(gram) / len(gram)
    for ridge in _RIDGES:
        direction = np.linalg.solve(gram + ridge * scale * np.eye(len(gram)), states.sum(axis=0))
        reads = states @ direction
        wanted = _at_share(excess / np.maximum(reads, 1e-3))
        amount = min(max(wanted, 0.0), _longest(mean, direction, limit))
        row = mean - amount * direction
        left = _at_share(states @ row - ceiling)
        # What is left above the ceiling counts first, then the norm.
        key = (max(left, 0.0), float(np.linalg.norm(row)))
        if best is None or key < best[:2]:
            best = (*key, row)
    assert best is not None
    row = best[2]
    return _quiet(row, 0.0, *_reached(states @ row - ceiling), len(states))


def _quiet(
    row: npt.NDArray[np.float64], bias: float, margin: float, share: float, n_probes: int
) -> QuietRow:
    norm = float(np.linalg.norm(row))
    return QuietRow(row.astype(np.float32), bias, margin, share, norm, n_probes)


def _at_share(values: npt.NDArray[np.float64]) -> float:
    """Return the least of the values that `SHARE` of them do not exceed."""
    return float(np.quantile(values, SHARE, method="higher"))


def _reached(excess: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Return the margin that `SHARE` of the states keep, and the share that keeps `MARGIN`."""
    return MARGIN - _at_share(excess), float((excess <= 1e-6).mean())


def _longest(
    mean: npt.NDArray[np.float64], direction: npt.NDArray[np.float64], limit: float
) -> float:
    """Return the largest c ≥ 0 for which ‖mean − c·direction‖ ≤ limit."""
    a = float(direction @ direction)
    half_b = float(mean @ direction)
    rest = limit**2 - float(mean @ mean)
    if a == 0.0 or rest <= 0.0:
        return 0.0
    return (half_b + float(np.sqrt(half_b**2 + a * rest))) / a


def _bias_below(context: InitContext) -> float:
    assert context.output_bias is not None
    bias = context.output_bias[np.isfinite(context.output_bias)]
    return float(bias.min() if len(bias) else 0.0) - MARGIN


def _raw(logits: npt.NDArray[np.float64], softcap: float | None) -> npt.NDArray[np.float64]:
    """Undo the softcap; a logit that it cannot reach becomes the lowest that it nearly can."""
    if softcap is None:
        return logits
    return np.asarray(softcap * np.arctanh(np.clip(logits / softcap, -0.999, 0.999)))


def _logsumexp(context: InitContext, states: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    rows = context.output_rows[np.isfinite(context.output_rows).all(axis=1)].astype(np.float32)
    bias = context.output_bias
    result = np.empty(len(states))
    block = max(1, min(len(states), context.memory_budget // (16 * max(1, len(rows)))))
    for start in range(0, len(states), block):
        logits = (states[start : start + block].astype(np.float32) @ rows.T).astype(np.float64)
        if bias is not None:
            logits += bias[np.isfinite(context.output_rows).all(axis=1)]
        if context.softcap is not None:
            logits = context.softcap * np.tanh(logits / context.softcap)
        top = logits.max(axis=1)
        result[start : start + block] = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
    return result


def _probe_states(context: InitContext, n_probes: int) -> npt.NDArray[np.float64] | None:
    """Return final states (n, width) of a seeded probe set, or None."""
    states = context.states
    if states is None or states.width != context.width:
        return None
    generator = context.generator()
    ids = np.flatnonzero(context.anchors)
    if not len(ids):
        return None
    half = min(n_probes // 2, len(ids))
    sequences = [[int(i)] for i in generator.permutation(ids)[:half]]
    for length in (2, 3):
        sequences += generator.choice(ids, (n_probes // 8, length)).tolist()
    room = n_probes // 4
    for text in context.texts[:room]:
        found = [i for i in context.source.encode(text[:400]) if i < context.n_source]
        if found:
            sequences.append(found[: int(generator.integers(1, 33))])
    found_states = states(
        [[*context.prefix, *sequence] for sequence in sequences], states.n_layers
    ).astype(np.float64)
    finite = np.isfinite(found_states).all(axis=1)
    return found_states[finite] if finite.any() else None
