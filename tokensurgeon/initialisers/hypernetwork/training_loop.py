"""A training that can be kept and taken up again: what was stopped ends as if it had not been.

Every step draws its batch from its own number, so that no state of a generator has to be kept.
Needs torch.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch

from tokensurgeon.initialisers.hypernetwork.row_network import RowNetwork

Tensors = dict[str, torch.Tensor]

WARM_UP = 32
"""Steps over which the rate rises, while Adam's second moments settle."""
VALIDATIONS = 12
"""How often a training is validated: each takes time from it."""
PATIENCE = 8
"""Validations without a better figure that end it: two thirds of all."""
STATE = "course"
"""Key of the numbers in a kept state; files have it."""


class TrainingLoop:
    """Adam with a warm-up and a rate that falls to zero at the last step.

    Parameters
    ----------
    network : RowNetwork
        Trained in place.
    rate : float
    seconds : float
        What the training may take, validations included.
    steps : int or None
        How many steps instead, the same on every machine.
    keep : callable(), optional
        Called about every `every` seconds and when a training is broken off, to write the state.
    every : float

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
        self._names = [name for name, _ in network.named_parameters()]
        self._adam = torch.optim.Adam(network.parameters(), lr=rate, betas=(0.9, 0.98))
        self._best_network = self._copy()

    def run(
        self,
        step: Callable[[int], torch.Tensor],
        validate: Callable[[], float],
        progress: Callable[[int, int], None],
        follow: Callable[..., None] = lambda step, **figures: None,
    ) -> None:
        """Train until the steps or the patience end, and leave the best network in place.

        Parameters
        ----------
        step : callable(number)
            The loss of batch `number`, with its graph.
        validate : callable()
            A figure that falls as the network gets better on what it is not trained on.
        progress : callable(done, total)
        follow : callable(step, **figures)
            Is told the loss of every step, and the validation figures.
        """
        start = last = time.perf_counter()
        before, validated = self.spent, int(self.share * VALIDATIONS)
        if self.best == float("inf"):
            self.best = validate()
            follow(0, validation=self.best)
            self._best_network = self._copy()
        try:
            while not self._ended and self.share < 1.0:
                warm = min(1.0, (self.done + 1) / WARM_UP)
                rate = self._rate * warm * (1.0 - self.share)
                for group in self._adam.param_groups:
                    group["lr"] = rate
                self._adam.zero_grad(set_to_none=True)
                loss = step(self.done)
                loss.backward()  # type: ignore[no-untyped-call]
                torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
                self._adam.step()
                self.done += 1
                self.spent = before + time.perf_counter() - start
                follow(self.done, loss=loss.detach(), rate=rate)
                progress(int(1000 * self.share), 1000)
                if int(self.share * VALIDATIONS) > validated:
                    validated = int(self.share * VALIDATIONS)
                    figure = validate()
                    follow(self.done, validation=figure)
                    self._worse += 1
                    if figure < self.best:
                        self.best, self._worse, self._best_network = figure, 0, self._copy()
                    self._ended = self._worse >= PATIENCE
                if time.perf_counter() - last > self._every:
                    self._keep()
                    last = time.perf_counter()
        except BaseException:
            self._keep()
            raise
        self._put(self._best_network)

    @property
    def share(self) -> float:
        """How much of the training is done, 0 to 1."""
        if self.total is not None:
            return self.done / self.total if self.total else 1.0
        return min(1.0, self.spent / self._seconds) if self._seconds else 1.0

    def _copy(self) -> Tensors:
        return {name: p.detach().clone() for name, p in self.network.named_parameters()}

    def _put(self, tensors: Tensors) -> None:
        with torch.no_grad():
            for name, p in self.network.named_parameters():
                p.copy_(tensors[name])

    def state(self) -> dict[str, np.ndarray]:
        """Return everything that a later run needs, by name."""
        numbers = [self.done, self._worse, self._ended, self.best, self.spent]
        state = {STATE: np.array(numbers, dtype=np.float64)}
        groups: dict[str, Tensors] = {
            "now": dict(self.network.named_parameters()),
            "best": self._best_network,
        }
        moments = {name: self._adam.state[p] for name, p in self.network.named_parameters()}
        if all(moments.values()):
            groups["first"] = {name: one["exp_avg"] for name, one in moments.items()}
            groups["second"] = {name: one["exp_avg_sq"] for name, one in moments.items()}
        for prefix, tensors in groups.items():
            for name, tensor in tensors.items():
                state[f"{prefix}.{name}"] = tensor.detach().float().cpu().numpy()
        return state

    def resume(self, state: dict[str, np.ndarray]) -> None:
        """Go on from what `state` returned, of a network of the same shape."""
        numbers = state[STATE].tolist()
        self.done, self._worse, self._ended = int(numbers[0]), int(numbers[1]), bool(numbers[2])
        self.best, self.spent = numbers[3], numbers[4]
        device = next(self.network.parameters()).device

        def read(prefix: str) -> Tensors:
            return {
                n: torch.from_numpy(state[f"{prefix}.{n}"].copy()).to(device) for n in self._names
            }

        self._put(read("now"))
        self._best_network = read("best")
        if f"first.{self._names[0]}" in state:
            first, second = read("first"), read("second")
            for name, p in self.network.named_parameters():
                self._adam.state[p] = {
                    "step": torch.tensor(float(self.done)),
                    "exp_avg": first[name],
                    "exp_avg_sq": second[name],
                }
