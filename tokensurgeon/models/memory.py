"""Whether a checkpoint can be run here: its size against the memory that is free."""

from __future__ import annotations

import os
from pathlib import Path

from tokensurgeon.checkpoint.checkpoint import Checkpoint

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
SLACK = 1.1
"""Room for states and buffers, on top of the weights."""


def available_memory() -> int | None:
    """Return the bytes that this process may still take, None where nothing says so."""
    found = []
    try:
        for line in Path("/proc/meminfo").read_text("ascii").splitlines():
            if line.startswith("MemAvailable:"):
                found.append(int(line.split()[1]) * 1024)
    except (OSError, ValueError):
        pass
    if not found and "SC_PHYS_PAGES" in os.sysconf_names:
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    group = Path("/sys/fs/cgroup")
    try:
        most = (group / "memory.max").read_text("ascii").strip()
        if most != "max":
            found.append(int(most) - int((group / "memory.current").read_text("ascii")))
    except (OSError, ValueError):
        pass
    return max(0, min(found)) if found else None


def needed_memory(checkpoint: Checkpoint, dtype: str) -> int:
    """Return the bytes that running the checkpoint takes in a dtype."""
    values = checkpoint.n_bytes / checkpoint.bytes_per_value
    return int(SLACK * values * BYTES[dtype])


def fits(checkpoint: Checkpoint, dtype: str, copies: int = 1) -> bool:
    """Say whether the model can be loaded here, so many times at once."""
    free = available_memory()
    return free is None or copies * needed_memory(checkpoint, dtype) <= free
