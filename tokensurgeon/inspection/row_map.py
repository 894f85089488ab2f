"""Rows of many dimensions as points of a plane: where new rows lie among the trained ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tokensurgeon.arrays import Float32, Float64, Ids

FITTED = 1000
"""Most rows that the plane is laid through: its two directions are then known well, and a width of
some thousands still takes a second."""


@dataclass(frozen=True)
class Plane:
    """The plane of the largest variance of some rows (their first two principal components).

    Attributes
    ----------
    mean : float64 (width,)
    axes : float64 (width, 2)
        Orthonormal; of each the largest component is positive. Zeros where the rows do not vary.
    explained : (float, float)
        Share of the rows' variance along each.
    """

    mean: Float64
    axes: Float64
    explained: tuple[float, float]

    @classmethod
    def through(cls, rows: Float32) -> Plane:
        """Lay a plane through rows, float32 (n, width), n at least 1.

        Examples
        --------
        >>> plane = Plane.through(np.array([[0, 0, 0], [3, 0, 0], [0, 1, 0]], np.float32))
        >>> abs(plane.axes[2]).max().item(), round(sum(plane.explained), 6)
        (0.0, 1.0)
        """
        values = rows.astype(np.float64)
        mean = values.mean(axis=0)
        values -= mean
        total = float((values**2).sum())
        _, strengths, directions = np.linalg.svd(values, full_matrices=False)
        axes = np.zeros((rows.shape[1], 2))
        shares = [0.0, 0.0]
        for k in range(min(2, len(strengths)) if total > 0 else 0):
            largest = np.argmax(np.abs(directions[k]))
            axes[:, k] = directions[k] * np.sign(directions[k, largest])
            shares[k] = float(strengths[k] ** 2 / total)
        return cls(mean, axes, (shares[0], shares[1]))

    def points(self, rows: Float32) -> Float64:
        """Return where rows lie on the plane, float64 (n, 2)."""
        return np.asarray((rows.astype(np.float64) - self.mean) @ self.axes)


def drawn(ids: Ids, n: int, generator: np.random.Generator) -> Ids:
    """Return at most `n` of the ids, drawn without replacement, ascending."""
    if len(ids) <= n:
        return ids
    return np.sort(generator.choice(ids, n, replace=False))
