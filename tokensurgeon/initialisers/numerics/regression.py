"""Ridge regression onto rows, with the penalty chosen on rows that were held out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from tokensurgeon.arrays import Float32, Float64, Ids, blocks
from tokensurgeon.spaces.work import ON_CPU, Steps, Work

Features = Callable[[Ids], npt.NDArray[np.floating]]
"""From numbers of examples to their features, (count, d)."""


class Targets(Protocol):
    """Rows by numbers of examples: an array, or something that makes them when asked."""

    def __getitem__(self, index: Any, /) -> Any:
        """Return (count, width) of these examples."""


PENALTIES = (1e-8, 1e-6, 1e-4, 1e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0, 10.0, 100.0)
"""λ, relative to the mean squared feature: from next to none to nearly the mean row, a few steps a
decade where most fits end."""
_PLAIN = 1e-2
"""λ where there are too few examples to choose it."""
_HELD_OUT = 0.1
"""Share of the groups that λ is chosen on."""
_MOST_HELD_OUT = 2048
"""Examples held out at most: enough to rank twelve penalties."""
_BLOCK = 4096
"""Examples whose features stand in memory at once."""


@dataclass(frozen=True)
class Ridge:
    """A fitted linear map ``rows = features @ coefficients + intercept``.

    Attributes
    ----------
    coefficients : float64 (d, width)
    intercept : float64 (width,)
    penalty : float
        The λ that was chosen, relative to the mean squared (centred) feature.
    explained : float
        Share of the held-out rows' variance that it predicts; below 0 it is worse than the mean
        row, NaN if there were too few examples to hold any out.
    """

    coefficients: Float64
    intercept: Float64
    penalty: float
    explained: float

    def __call__(self, features: npt.NDArray[np.floating]) -> Float32:
        """Return the rows of these features, float32 (count, width)."""
        return np.asarray(features @ self.coefficients + self.intercept, dtype=np.float32)


def fit_ridge(
    features: Features,
    targets: Sequence[Targets],
    n: int,
    *,
    groups: Ids | None = None,
    generator: np.random.Generator,
    work: Work = ON_CPU,
) -> list[Ridge]:
    """Fit min ‖Y − XB‖² + λ‖B‖² on centred data, one map for each matrix of targets.

    λ is taken from `PENALTIES` by the error on a tenth of the groups (at most 2,048 examples),
    for each matrix of targets on its own; the map is then fitted to all examples.

    Parameters
    ----------
    features : callable
        Called with blocks of example numbers, so that the features never stand in memory at once.
    targets : sequence of arrays (n, width), or of what gives their rows by number
    n : int
        Examples, at least 1.
    groups : int64 (n,), optional
        Examples of one group are held out together.
    generator : numpy.random.Generator
        Chooses the groups to hold out.
    work : Work
        Products and solves run in float64, on CPU where the device has none.
    """
    where = torch.device("cpu" if work.device.startswith("mps") else work.device)
    groups = np.arange(n) if groups is None else groups
    names = generator.permutation(np.unique(groups))
    share = min(_HELD_OUT, _MOST_HELD_OUT / n)
    is_held = np.isin(groups, names[: int(share * len(names))])
    moments = _Moments(features, targets, np.flatnonzero(~is_held), where, work.progress)
    held = np.flatnonzero(is_held)
    chosen = [PENALTIES.index(_PLAIN)] * len(targets)
    explained = [float("nan")] * len(targets)
    if len(held):
        x, *ys = moments.exact(features(held), *(rows[held] for rows in targets))
        errors = np.zeros((len(PENALTIES), len(targets)))
        for i, penalty in enumerate(PENALTIES):
            for j, (b, intercept) in enumerate(moments.solve(penalty)):
                errors[i, j] = float(((ys[j] - x @ b - intercept) ** 2).sum())
        chosen = [int(i) for i in np.argmin(errors, axis=0)]
        for j, y in enumerate(ys):
            variance = float(((y - moments.y_means[j]) ** 2).sum())
            explained[j] = 1.0 - float(errors[chosen[j], j]) / max(variance, 1e-30)
        moments.add(features, targets, held)
    maps = []
    for j, i in enumerate(chosen):
        b, intercept = moments.solve(PENALTIES[i], only=j)[0]
        maps.append(Ridge(b.cpu().numpy(), intercept.cpu().numpy(), PENALTIES[i], explained[j]))
    return maps


class _Moments:
    """Sums of products of features and targets: all that a ridge fit needs."""

    def __init__(
        self,
        features: Features,
        targets: Sequence[Targets],
        index: Ids,
        device: torch.device,
        progress: Steps,
    ) -> None:
        self._device, self._progress, self._n = device, progress, 0
        self._xx: torch.Tensor | None = None
        self.add(features, targets, index)

    def exact(self, *arrays: npt.NDArray[np.floating]) -> list[torch.Tensor]:
        """Return the arrays as float64, where the sums are."""
        return [torch.from_numpy(np.asarray(a, dtype=np.float64)).to(self._device) for a in arrays]

    def add(self, features: Features, targets: Sequence[Targets], index: Ids) -> None:
        """Add the examples of these numbers."""
        for block in blocks(max(1, len(index)), _BLOCK):
            part = index[block]
            x, *ys = self.exact(features(part), *(rows[part] for rows in targets))
            if self._xx is None:
                d = x.shape[1]
                self._xx = torch.zeros(d, d, dtype=torch.float64, device=self._device)
                self._x = torch.zeros(d, dtype=torch.float64, device=self._device)
                self._xy = [self._xx.new_zeros(d, y.shape[1]) for y in ys]
                self._y = [self._xx.new_zeros(y.shape[1]) for y in ys]
            self._xx.addmm_(x.T, x)
            self._x += x.sum(dim=0)
            for i, y in enumerate(ys):
                self._xy[i].addmm_(x.T, y)
                self._y[i] += y.sum(dim=0)
            self._n += len(part)
            self._progress(min(block.stop, len(index)), len(index))

    @property
    def y_means(self) -> list[torch.Tensor]:
        """The mean target of each matrix."""
        return [y / max(1, self._n) for y in self._y]

    def solve(
        self, penalty: float, only: int | None = None
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return (coefficients, intercept) for each matrix of targets, or for one."""
        assert self._xx is not None
        n = max(1, self._n)
        mean = self._x / n
        gram = self._xx - n * torch.outer(mean, mean)
        scale = float(gram.diagonal().mean().clamp_min(1e-30))
        gram.diagonal().add_(penalty * scale + 1e-12 * scale)
        factor = torch.linalg.cholesky(gram)
        maps = []
        for i in range(len(self._y)) if only is None else [only]:
            centred = self._xy[i] - torch.outer(mean, self._y[i])
            b = torch.cholesky_solve(centred, factor)
            maps.append((b, self._y[i] / n - mean @ b))
        return maps
