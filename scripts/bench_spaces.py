#!/usr/bin/env python3
"""Time every anchor space and every combiner at the size of a vocabulary, with its peak memory.

    python scripts/bench_spaces.py [--missing 8000] [--shared 8000] [--width 256] [--threads 2]

Each line is a fresh process. Spaces are built on made-up words and a made-up text (the encoder is
left out: it costs what its forward passes cost); combiners get made-up rows of `--width`
dimensions, whose lengths spread as in a trained model, and two tables of rows of that width. The
peak is that of the process less what it had before the work, its inputs among them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from tokensurgeon.progress import peak_memory

SPACES = ("ngrams", "co-occurrence")
COMBINERS = ("nearest", "sparsemax", "cosine", "cosine-100", "omp", "ridge")


def rows(n: int, width: int, seed: int) -> Any:
    """Return float32 (n, width): clusters, a common direction, and lengths that differ."""
    import numpy as np

    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((256, width), dtype=np.float32)
    vectors = rng.standard_normal((n, width), dtype=np.float32)
    vectors += centres[rng.integers(256, size=n)] + centres[:1]
    vectors *= rng.lognormal(0.0, 0.3, (n, 1)).astype(np.float32)
    return vectors


def words(n: int, seed: int = 0) -> list[bytes]:
    """Return n made-up words of stems and endings, some with a space in front."""
    import numpy as np

    rng = np.random.default_rng(seed)
    stems = [bytes(rng.integers(97, 123, rng.integers(2, 8)).tolist()) for _ in range(n // 3)]
    ends = (b"", b"s", b"ed", b"ing", b"er", b"ation", b"ly")
    made: dict[bytes, None] = {}
    while len(made) < n:
        stem = stems[int(rng.integers(len(stems)))]
        end = ends[int(rng.integers(len(ends)))]
        made[(b" " if rng.random() < 0.5 else b"") + stem + end] = None
    return list(made)


def work(arguments: argparse.Namespace) -> Callable[[], Any]:
    """Return the work to time, its inputs made."""
    import numpy as np

    n, n_shared, width = arguments.missing, arguments.shared, arguments.width
    budget = int(arguments.memory_gib * 2**30)
    if arguments.one == "ngrams":
        from tokensurgeon.spaces import ngram_space

        tokens = words(n + n_shared)
        return lambda: ngram_space(tokens)
    if arguments.one == "co-occurrence":
        from tokensurgeon.spaces import co_occurrence_space

        rng = np.random.default_rng(0)
        ids = np.minimum(rng.zipf(1.2, arguments.text), n + n_shared) - 1
        documents = np.split(ids, range(1000, len(ids), 1000))
        return lambda: co_occurrence_space(documents, n + n_shared)
    from tokensurgeon.initialisers.numerics.combiners import (
        mapped,
        nearest,
        proportional,
        pursued,
        sparsemax,
    )
    from tokensurgeon.spaces.work import Work

    queries, anchors = rows(n, width, 1), rows(n_shared, width, 2)
    tables = (rows(n_shared, width, 3), rows(n_shared, width, 4))
    how = Work(arguments.device, budget)
    return {
        "nearest": lambda: nearest(queries, anchors, 10, 0.1, how),
        "sparsemax": lambda: sparsemax(queries, anchors, 1.0, tables, how),
        "cosine": lambda: proportional(queries, anchors, tables, None, how),
        "cosine-100": lambda: proportional(queries, anchors, (), 100, how),
        "omp": lambda: pursued(queries, anchors, 16, how),
        "ridge": lambda: mapped(queries, anchors, tables, np.random.default_rng(0), how),
    }[arguments.one]


def run_one(arguments: argparse.Namespace) -> None:
    """Do one piece of work and print its figures."""
    import torch

    torch.set_num_threads(arguments.threads)
    job = work(arguments)
    before = peak_memory()
    wall, cpu = time.perf_counter(), time.process_time()
    job()
    figures = {
        "what": arguments.one,
        "seconds": time.perf_counter() - wall,
        "cpu_seconds": time.process_time() - cpu,
        "peak_mib": (peak_memory() - before) / 2**20,
    }
    print(json.dumps(figures))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--missing", type=int, default=8000)
    parser.add_argument("--shared", type=int, default=8000)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--text", type=int, default=1_000_000, help="tokens of made-up text")
    parser.add_argument("--memory-gib", type=float, default=2.0, help="the combiners' budget")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", nargs="*", default=[*SPACES, *COMBINERS])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        run_one(arguments)
        return
    if not arguments.json:
        print("what            seconds  CPU-seconds  peak MiB beyond the inputs")
    for name in arguments.only:
        command = [sys.executable, __file__, *sys.argv[1:], "--one", name]
        found = subprocess.run(command, check=True, capture_output=True, text=True)
        figures = json.loads(found.stdout.splitlines()[-1])
        if arguments.json:
            print(json.dumps(figures), flush=True)
            continue
        print(
            f"{name:14s}  {figures['seconds']:7.1f}  {figures['cpu_seconds']:11.1f}  "
            f"{figures['peak_mib']:8.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
