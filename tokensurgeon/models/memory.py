"""Whether a checkpoint can be run here: its size against the memory that is free."""

from __future__ import annotations

import os
from pathlib import Path

from tokensurgeon.arrays import ITEM_BYTES
from tokensurgeon.checkpoint.checkpoint import Checkpoint

SLACK = 1.1
"""Memory over that of the weights, for states and logits.

Their blocks are bounded, so a tenth is ample for any model whose weights are near what is free.
"""


def available_memory() -> int | None:
    """Return the bytes that this process may still take, None where nothing says so."""
    bounds = []
    try:
        for line in Path("/proc/meminfo").read_text("ascii").splitlines():
            if line.startswith("MemAvailable:"):
                bounds.append(int(line.split()[1]) * 1024)
    except (OSError, ValueError):
        pass
    if not bounds and "SC_PHYS_PAGES" in os.sysconf_names:
        bounds.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    group = Path("/sys/fs/cgroup")
    try:
        most = (group / "memory.max").read_text("ascii").strip()
        if most != "max":
            bounds.append(int(most) - int((group / "memory.current").read_text("ascii")))
    except (OSError, ValueError):
        pass
    return max(0, min(bounds)) if bounds else None


def needed_memory(checkpoint: Checkpoint, dtype: str) -> int:
    """Return the bytes that running the checkpoint takes in a dtype."""
    n_values = checkpoint.n_bytes / ITEM_BYTES[checkpoint.dtype]
    return int(SLACK * n_values * ITEM_BYTES[dtype])


def fits(checkpoint: Checkpoint, dtype: str, copies: int = 1) -> bool:
    """Say whether the model can be loaded here, so many times at once."""
    free = available_memory()
    return free is None or copies * needed_memory(checkpoint, dtype) <= free
