"""How long new rows may be: no longer than trained rows are."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tokensurgeon.arrays import Float32, Float64
from tokensurgeon.errors import InitialiserError


def clip_rows(new: Float32, trained: Float32, percentile: float) -> tuple[Float32, int]:
    """Shorten each new row to at most a percentile of the trained rows' norms.

    A row that is short enough stays bit for bit; none is ever made longer. Rows and norms that
    are not finite are left alone.

    Parameters
    ----------
    new : float32 (n, width)
        Not changed.
    trained : float32 (m, width)
    percentile : float
        Above 0, at most 100; 100 is the longest trained row.

    Returns
    -------
    rows : float32 (n, width)
    n_clipped : int

    Raises
    ------
    InitialiserError
        If the percentile is out of range, or no trained row is finite.
    """
    if not 0 < percentile <= 100:
        raise InitialiserError(f"clip must be above 0 and at most 100; got {percentile}")
    known = _norms(trained)
    known = known[np.isfinite(known)]
    if not known.size:
        raise InitialiserError("no trained row is finite, so there is no norm to clip at")
    limit = float(np.percentile(known, percentile))
    norms = _norms(new)
    long = np.isfinite(norms) & (norms > limit)
    rows = new.copy()
    if not long.any():
        return rows, 0
    rows[long] *= (limit / norms[long])[:, None].astype(np.float32)
    # Rounding may leave a row a hair too long: a second clipping would then shorten it again.
    over = np.flatnonzero(long)[_norms(rows[long]) > limit]
    rows[over] *= np.float32(1 - 1e-6)
    return rows, int(long.sum())


def longest_norm(trained: Float32) -> float:
    """Return the 99th percentile of the norms of trained rows: what new rows are clipped at."""
    return float(np.quantile(np.linalg.norm(trained, axis=1), 0.99))


def shortened(values: npt.NDArray[np.floating], limit: float) -> Float32:
    """Return the rows, none longer than `limit`."""
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    return np.asarray(values * np.minimum(1.0, limit / np.maximum(norms, 1e-30)), np.float32)


def _norms(rows: Float32) -> Float64:
    with np.errstate(invalid="ignore", over="ignore"):
        return np.asarray(np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64)))
