"""One evaluation by several processes, as ``accelerate launch`` or ``torchrun`` start them.

Each scores its share of the chunks, and all of them get all losses: sums are those of one process,
and so are all figures. What the launcher says is in the environment.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

from tokensurgeon.arrays import Ids
from tokensurgeon.errors import UsageError

T = TypeVar("T")


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

    def device(self, name: str) -> str:
        """Return the device of this process: of several GPUs, each has its own."""
        if self.n > 1 and name == "cuda":
            return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        return name


def shared_work() -> SharedWork:
    """Return the part of this process.

    Raises
    ------
    UsageError
        If the launcher's numbers are none.
    """
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

    distributed.init_process_group("gloo")
    atexit.register(distributed.destroy_process_group)
