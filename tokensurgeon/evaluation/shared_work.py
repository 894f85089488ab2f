"""Work of several processes, as ``accelerate launch`` or ``torchrun`` start them.

Of an evaluation each scores its share of the chunks, and all of them get all losses: sums are those
of one process, and so are all figures. Of a surgery the first leads and works alone, but for the
training of rows, where the others do as it says. What the launcher says is in the environment.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from tokensurgeon.arrays import Ids
from tokensurgeon.errors import UsageError

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
PATIENCE = timedelta(days=7)
"""Longest that a process waits for another; one that ends closes its connections, and is noticed at
once."""


@dataclass(frozen=True)
class SharedWork:
    """The part of a process in the work of several.

    Attributes
    ----------
    rank, n : int
        Number of this process, and how many there are.
    """

    rank: int = 0
    n: int = 1

    def own(self, chosen: Ids) -> Ids:
        """Return the chunks of this process, of those that are chosen."""
        mine: Ids = chosen[chosen % self.n == self.rank]
        return mine

    def gathered(self, own: Mapping[int, T]) -> dict[int, T]:
        """Return what all processes found, by chunk; each waits for the others."""
        if self.n == 1:
            return dict(own)
        from torch import distributed

        _join()
        found: list[dict[int, T]] = [{} for _ in range(self.n)]
        distributed.all_gather_object(found, dict(own))
        return {i: value for part in found for i, value in sorted(part.items())}

    def said(self, order: Any = None) -> Any:
        """Return what the first process says; the others wait for it."""
        if self.n == 1:
            return order
        from torch import distributed

        _join()
        orders = [order]
        distributed.broadcast_object_list(orders)
        return orders[0]

    def summed(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the sum of a tensor over all processes, the same bits in each."""
        if self.n == 1:
            return tensor
        from torch import distributed

        _join()
        total = tensor.detach().cpu().clone()
        distributed.all_reduce(total)
        return total.to(tensor.device)

    def device(self, name: str) -> str:
        """Return the device of this process: of several GPUs, each has its own."""
        if self.n > 1 and name == "cuda":
            return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        return name


ALONE = SharedWork()
_led: ContextVar[SharedWork] = ContextVar("_led", default=ALONE)
"""The processes that this one leads."""


@contextlib.contextmanager
def leading(work: SharedWork) -> Iterator[None]:
    """Let this process work alone inside, but for what `followers` are given to do.

    They are told when it is over, whatever ends it.
    """
    token = _led.set(work)
    try:
        yield
    finally:
        _led.reset(token)
        work.said()


def followers() -> SharedWork:
    """Return the part of this process in the work of those that it leads; alone if none."""
    return _led.get()


def shared_work() -> SharedWork:
    """Return the part of this process.

    Raises
    ------
    UsageError
        If the launcher's numbers are none.
    """
    if followers().n > 1:
        return ALONE
    try:
        rank, n = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    except ValueError as error:
        raise UsageError("RANK and WORLD_SIZE are no numbers: unset them") from error
    if not 0 <= rank < n:
        raise UsageError(f"process {rank} of {n} is asked for: unset RANK and WORLD_SIZE")
    return SharedWork(rank, n)


@cache
def _join() -> None:
    """Connect to the other processes, once."""
    import atexit

    from torch import distributed

    distributed.init_process_group("gloo", timeout=PATIENCE)
    atexit.register(distributed.destroy_process_group)
