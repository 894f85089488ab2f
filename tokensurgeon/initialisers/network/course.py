"""A training that can be kept and taken up again: what was stopped ends as if it had not been.

Every step draws its batch from its own number, so that no state of a generator has to be kept.
Needs torch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
import torch

from tokensurgeon.initialisers.network.model import RowNetwork

Tensors = dict[str, torch.Tensor]

WARM_UP = 16
"""Steps over which the rate rises, and after which the time of a step is known."""
LOOKS = 12
"""How often a training looks at what it is not trained on."""
PATIENCE = 4
"""Looks without a better figure that end it."""


class Course:
    """Adam with a warm-up and a rate that falls to zero at the last step.

    Parameters
    ----------
    network : RowNetwork
        Trained in place.
    rate : float
    seconds : float
        What the training may take; how many steps that is, is found by the first ones.
    steps : int or None
        How many steps instead.
    keep : callable(), optional
        Called about every `every` seconds and when a training is broken off, to write the state.

    Attributes
    ----------
    done : int
        Steps taken.
    best : float
        The lowest figure so far.
    spent : float
        Seconds, of earlier runs too.
    """

    def __init__(
        self,
        network: RowNetwork,
        rate: float,
        *,
        seconds: float,
        steps: int | None = None,
        keep: Callable[[], None] = lambda: None,
        every: float = 30.0,
    ) -> None:
        self.network, self.done, self.best, self.spent = network, 0, float("inf"), 0.0
        self.total, self._seconds, self._rate = steps, seconds, rate
        self._keep, self._every, self._worse, self._ended = keep, every, 0, False
        self._first: float | None = None
        self._names = [name for name, _ in network.named_parameters()]
        self._adam = torch.optim.Adam(network.parameters(), lr=rate, betas=(0.9, 0.98))
        self._kept = self._copy()

    def run(
        self,
        step: Callable[[int], torch.Tensor],
        look: Callable[[], float],
        progress: Callable[[int, int], None],
    ) -> None:
        """Train until the steps or the patience end, and leave the best network in place.

        Parameters
        ----------
        step : callable(number)
            The loss of batch `number`, with its graph.
        look : callable()
            A figure that falls as the network gets better on what it is not trained on.
        """
        start = last = time.perf_counter()
        before = self.spent
        if self.best == float("inf"):
            self.best = look()
            self._kept = self._copy()
        try:
            while not self._ended and self.done != self.total:
                self._set_rate()
                self._adam.zero_grad(set_to_none=True)
                step(self.done).backward()  # type: ignore[no-untyped-call]
                torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
                self._adam.step()
                self.done += 1
                self.spent = before + time.perf_counter() - start
                self._plan()
                progress(self.done, self.total or WARM_UP * 8)
                if self.total is not None and self._is_a_look():
                    self._judge(look())
                if time.perf_counter() - last > self._every:
                    self._keep()
                    last = time.perf_counter()
        except BaseException:
            self._keep()
            raise
        self._put(self._kept)

    def _plan(self) -> None:
        """Find out after the warm-up how many steps there is time for."""
        if self.done == 4:
            self._first = self.spent
        if self.total is None and self.done == WARM_UP:
            each = (self.spent - (self._first or 0.0)) / (WARM_UP - 4)
            left = max(0.0, self._seconds - self.spent)
            self.total = WARM_UP + max(WARM_UP, int(0.85 * left / max(each, 1e-6)))

    def _set_rate(self) -> None:
        share = min(1.0, (self.done + 1) / WARM_UP)
        if self.total is not None and self.done >= WARM_UP:
            share = max(0.0, (self.total - self.done) / max(1, self.total - WARM_UP))
        for group in self._adam.param_groups:
            group["lr"] = self._rate * share

    def _is_a_look(self) -> bool:
        assert self.total is not None
        return self.done >= self.total or self.done % max(1, self.total // LOOKS) == 0

    def _judge(self, figure: float) -> None:
        assert self.total is not None
        if figure < self.best:
            self.best, self._worse, self._kept = figure, 0, self._copy()
        else:
            self._worse += 1
        self._ended = (
            self.done >= self.total
            or self._worse >= PATIENCE
            or (self.spent > 1.5 * self._seconds and self._seconds > 0)
        )

    def _copy(self) -> Tensors:
        return {name: p.detach().clone() for name, p in self.network.named_parameters()}

    def _put(self, tensors: Tensors) -> None:
        with torch.no_grad():
            for name, p in self.network.named_parameters():
                p.copy_(tensors[name])

    def state(self) -> dict[str, np.ndarray]:
        """Return everything that a later run needs, by name."""
        numbers = [self.done, self.total or 0, self._worse, self._ended, self.best, self.spent]
        found = {"course": np.array([*numbers, self._first or 0.0], dtype=np.float64)}
        for prefix, tensors in self._groups():
            for name, tensor in tensors.items():
                found[f"{prefix}.{name}"] = tensor.detach().float().cpu().numpy()
        return found

    def resume(self, state: dict[str, np.ndarray]) -> None:
        """Go on from what `state` returned, of a network of the same shape."""
        numbers = state["course"].tolist()
        self.done, self._worse, self._ended = int(numbers[0]), int(numbers[2]), bool(numbers[3])
        self.total = int(numbers[1]) or self.total
        self.best, self.spent, self._first = numbers[4], numbers[5], numbers[6]
        place = next(self.network.parameters()).device

        def read(prefix: str) -> Tensors:
            return {
                n: torch.from_numpy(state[f"{prefix}.{n}"].copy()).to(place) for n in self._names
            }

        self._put(read("now"))
        self._kept = read("best")
        if f"first.{self._names[0]}" in state:
            first, second = read("first"), read("second")
            for name, p in self.network.named_parameters():
                self._adam.state[p] = {
                    "step": torch.tensor(float(self.done)),
                    "exp_avg": first[name],
                    "exp_avg_sq": second[name],
                }

    def _groups(self) -> Iterator[tuple[str, Tensors]]:
        yield "now", dict(self.network.named_parameters())
        yield "best", self._kept
        moments = {name: self._adam.state[p] for name, p in self.network.named_parameters()}
        if all(moments.values()):
            yield "first", {name: one["exp_avg"] for name, one in moments.items()}
            yield "second", {name: one["exp_avg_sq"] for name, one in moments.items()}
