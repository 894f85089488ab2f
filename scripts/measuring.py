"""What scripts that measure share: files of documents, and what a command costs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path


def documents_file(path: Path, texts: Iterable[str]) -> Path:
    """Write documents as JSON lines, and return the file; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), "utf-8")
    return path


@dataclass(frozen=True)
class Cost:
    """What a command took: seconds on the clock, processor seconds, the peak of its memory.

    Processor seconds count its child processes too. `peak_bytes` is that of the largest process,
    and at least that of the process that started it: a child begins as its copy.
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: int


def run_measured(command: Sequence[str], log: Path | None = None) -> tuple[str, Cost]:
    """Run a command, and return what it printed and what it cost.

    Parameters
    ----------
    command : sequence of str
    log : Path, optional
        Where its stderr is added; to the terminal if not given.

    Raises
    ------
    subprocess.CalledProcessError
        If it does not end with 0.
    """
    started = time.perf_counter()
    with (log or Path(os.devnull)).open("ab") as file:
        errors = None if log is None else file
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors)
        assert process.stdout is not None
        with process.stdout as printed:
            output = printed.read().decode()
        # Unlike `wait`, this says what this one child used.
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    cost = Cost(
        time.perf_counter() - started,
        usage.ru_utime + usage.ru_stime,
        usage.ru_maxrss if sys.platform == "darwin" else usage.ru_maxrss * 1024,
    )
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, output)
    return output, cost
