"""Directions of output rows: the one along which every state reads one, and white coordinates."""

from __future__ import annotations

import numpy as np

from tokensurgeon.arrays import Float32, Float64, Ids, blocks
from tokensurgeon.calibration.matrices import Matrices

RIDGE = 1e-3
"""λ in units of the mean of the Gram matrix's diagonal: small beside what the states say, and large
enough for a stable inverse where they span fewer dimensions than the model is wide."""
AT_ONCE = 1 << 16
"""States that are turned into float64 together."""


def even_direction(states: Float32, ridge: float = RIDGE) -> Float64:
    """Return b with state · b about 1 for every state: (HᵀH + λI)⁻¹ Hᵀ1, float64 (width,).

    λ is `ridge` times the mean of HᵀH's diagonal. Adding c·b to a row adds about c to its logit
    everywhere, as an output bias would.
    """
    states64 = states.astype(np.float64)
    gram = states64.T @ states64
    scale = ridge * np.trace(gram) / len(gram)
    direction: Float64 = np.linalg.solve(gram + scale * np.eye(len(gram)), states64.sum(axis=0))
    return direction


def shifted(
    matrices: Matrices, ids: Ids, amounts: Float64, direction: Float64, scale: float
) -> Matrices:
    """Return the matrices with `amounts` nats added to the logits of `ids`.

    By the output bias where there is one, else along `direction`.

    Parameters
    ----------
    matrices : Matrices
    ids : int64 (n,)
    amounts : float64 (n,)
        Nats.
    direction : float64 (width,)
        See `even_direction`.
    scale : float
        Of the logits.
    """
    if matrices.bias is not None:
        bias = matrices.bias.copy()
        bias[ids] += (amounts / scale).astype(np.float32)
        return matrices.with_output(matrices.output, bias)
    rows = matrices.output.copy()
    rows[ids] += (amounts[:, None] / scale * direction).astype(np.float32)
    return matrices.with_output(rows)


def whitener(states: Float32, ridge: float = RIDGE) -> Float64:
    """Return W with WWᵀ = (G + εI)⁻¹, G = HᵀH/n, float64 (width, width)."""
    gram = np.zeros((states.shape[1], states.shape[1]))
    for part in blocks(len(states), AT_ONCE):
        some = states[part].astype(np.float64)
        gram += some.T @ some / len(states)
    gram += ridge * np.trace(gram) / len(gram) * np.eye(len(gram))
    values, vectors = np.linalg.eigh(gram)
    return np.asarray(vectors / np.sqrt(values))
