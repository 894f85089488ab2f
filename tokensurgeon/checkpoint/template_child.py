"""Chat templates are rendered in a process of its own, bounded in time and memory."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass

WAIT = 600
"""Seconds of waiting on a busy machine."""
MEMORY = 4 << 30
"""Bytes of data of that process: the libraries that it loads take a tenth of it."""

_BOUNDED = """
import json, resource, sys
clock, memory = int(sys.argv[1]), int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_CPU, (clock, clock + 1))
resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
from transformers import AutoTokenizer
def load(folder):
    return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
"""


@dataclass(frozen=True)
class Rendered:
    """What the process wrote before it ended.

    Attributes
    ----------
    lines : tuple of str
    why : str
        Why it ended, where it wrote too little.
    """

    lines: tuple[str, ...]
    why: str


def render(script: str, clock: int, *folders: str, given: str = "") -> Rendered:
    """Run a script that may ``load`` the tokenizers of ``sys.argv[3:]`` and print lines.

    Parameters
    ----------
    script : str
    clock : int
        Seconds of processor time.
    *folders : str
    given : str
        To be read from its standard input.
    """
    command = [sys.executable, "-P", "-c", _BOUNDED + script, str(clock), str(MEMORY), *folders]
    try:
        child = subprocess.run(
            command, input=given.encode(), capture_output=True, timeout=WAIT, check=False
        )
    except subprocess.TimeoutExpired:
        return Rendered((), f"it took more than {WAIT} seconds")
    said = child.stderr.decode("utf-8", "replace").strip().splitlines()
    why = f"it took more than {clock} seconds of processor time, or {MEMORY >> 30} GiB"
    if said and child.returncode > 0:
        why = said[-1][:150]
    return Rendered(tuple(child.stdout.decode("utf-8", "replace").splitlines()), why)
