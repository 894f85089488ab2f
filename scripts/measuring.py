"""What scripts that measure share: files of documents, what work costs, turns, the machine."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any


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


def run_measured(
    command: Sequence[str],
    log: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> tuple[str, Cost]:
    """Run a command, and return what it printed and what it cost.

    Parameters
    ----------
    command : sequence of str
    log : Path, optional
        Where its stderr is added; to the terminal if not given.
    environment : mapping, optional
        In the place of this process's own.

    Raises
    ------
    subprocess.CalledProcessError
        If it does not end with 0.
    """
    started = time.perf_counter()
    with (log or Path(os.devnull)).open("ab") as file:
        errors = None if log is None else file
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, env=environment)
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


def measured(work: Callable[[], Any]) -> Cost:
    """Do work in this process, and return what it cost; the memory is what the process ever had."""
    from tokensurgeon.progress import peak_memory

    wall, cpu = time.perf_counter(), time.process_time()
    work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return Cost(wall, cpu, peak_memory())


def in_turns(works: Mapping[str, Callable[[], Cost]], turns: int) -> dict[str, Cost]:
    """Do each piece of work once a turn, and return the medians of their costs by name.

    On a machine that others use too, what runs in turns meets the same neighbours.
    """
    costs: dict[str, list[Cost]] = {name: [] for name in works}
    for _ in range(turns):
        for name, work in works.items():
            costs[name].append(work())
    return {
        name: Cost(
            statistics.median(cost.seconds for cost in of_work),
            statistics.median(cost.cpu_seconds for cost in of_work),
            max(cost.peak_bytes for cost in of_work),
        )
        for name, of_work in costs.items()
    }


def machine(packages: Sequence[str] = ()) -> dict[str, Any]:
    """Return what a figure was measured on: processor, cores, memory, load, and versions.

    The load is that of the last minute and, where it is above the number of cores, says that other
    work used them.
    """
    processor, memory = platform.processor() or platform.machine(), 0
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        processor = next(line for line in lines if line.startswith("model name")).split(": ")[1]
    except (OSError, StopIteration, IndexError):
        pass  # no Linux, or a processor without a name
    if hasattr(os, "sysconf"):
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    versions = {"python": platform.python_version()}
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "processor": processor,
        "cores": os.cpu_count(),
        "memory_gib": round(memory / 2**30, 1),
        "load": round(os.getloadavg()[0], 1),
        "versions": versions,
    }
