#!/usr/bin/env python3
"""Time the matching pursuit of `omp` on made-up rows: tokens per second of CPU time.

    python scripts/bench_omp.py [--tokens N] [--sizes 512x20000x64 ...] [--exact]
    python scripts/bench_omp.py --peer /path/to/venv/bin/python

Sizes are width x shared tokens x k. The rows are seeded noise with lengths spread as in a trained
model, which leave no structure that a search could profit from. On CPU the time is that of the
process around the call, user and system, so other work on the machine and imports do not count.

`--peer` names a Python that has mergekit (https://github.com/arcee-ai/mergekit). Its solver runs
in a process of its own on the same rows with as many threads, in turns with this one; the figures
are medians over the turns. Residuals are ‖x − c·A‖ / ‖x‖ in float64, computed here for both.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from peers import peer_settings

from tokensurgeon.initialisers.numerics.pursuit import pursue
from tokensurgeon.progress import peak_memory
from tokensurgeon.spaces.work import Work

SIZES = ("512x20000x64", "1024x40000x16", "2048x60000x8")

PEER = """
import json, sys, time
import numpy as np, torch
from importlib.metadata import version
from mergekit.tokensurgeon.omp import batch_omp
rows, answer, k, threads = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
torch.set_num_threads(threads)
given = np.load(rows)
atoms, targets = torch.from_numpy(given["atoms"]), torch.from_numpy(given["targets"])
batch_omp(targets[:8], atoms[:256], 4)
wall, cpu = time.perf_counter(), time.process_time()
support, coefficients = batch_omp(targets, atoms, k)
wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
np.savez(answer, support=support.numpy(), coefficients=coefficients.numpy())
print(json.dumps({"cpu": cpu, "wall": wall, "version": version("mergekit")}))
"""


def rows_of(width: int, n_shared: int, tokens: int) -> tuple[np.ndarray, np.ndarray]:
    """Return atoms and targets, seed 0."""
    rng = np.random.default_rng(0)
    atoms = rng.standard_normal((n_shared, width), dtype=np.float32)
    atoms *= rng.lognormal(0.0, 0.3, (n_shared, 1)).astype(np.float32)
    return atoms, rng.standard_normal((tokens, width), dtype=np.float32)


def residual_of(
    atoms: np.ndarray, targets: np.ndarray, support: np.ndarray, coefficients: np.ndarray
) -> float:
    """Return the mean relative residual."""
    used = np.where(support >= 0, coefficients, 0.0).astype(np.float64)
    left = np.empty(len(targets))
    for i, (x, ids, weights) in enumerate(zip(targets, support, used, strict=True)):
        x = x.astype(np.float64)
        left[i] = np.linalg.norm(x - weights @ atoms[ids].astype(np.float64)) / np.linalg.norm(x)
    return float(left.mean())


def ours(atoms: np.ndarray, targets: np.ndarray, k: int, exact: bool, device: str) -> Any:
    """Return what `pursue` found, CPU seconds and wall seconds."""
    pursue(atoms[:256], targets[:8], 4, work=Work(device))  # first calls are slower
    wall, cpu = time.perf_counter(), time.process_time()
    pursuit = pursue(atoms, targets, k, normalise=False, exact=exact, work=Work(device))
    return pursuit, time.process_time() - cpu, time.perf_counter() - wall


def peer(python: str, folder: Path, k: int, threads: int) -> dict[str, Any]:
    """Run the peer on the rows in `folder`; return its times and version."""
    arguments = [python, "-c", PEER, str(folder / "rows.npz"), str(folder / "answer.npz")]
    done = subprocess.run(
        [*arguments, str(k), str(threads)],
        capture_output=True,
        text=True,
        cwd=folder,
        env=peer_settings(folder, threads),
    )
    if done.returncode:
        raise SystemExit(f"the peer failed: {done.stderr.strip().splitlines()[-1]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def measure(size: str, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Return one line per solver."""
    width, n_shared, k = map(int, size.split("x"))
    tokens = arguments.tokens
    atoms, targets = rows_of(width, n_shared, tokens)
    times: dict[str, list[tuple[float, float]]] = {}
    residuals: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if arguments.peer:
            np.savez(folder / "rows.npz", atoms=atoms, targets=targets)
        for _ in range(arguments.turns):
            pursuit, cpu, wall = ours(atoms, targets, k, arguments.exact, arguments.device)
            times.setdefault("tokensurgeon", []).append((cpu, wall))
            residuals["tokensurgeon"] = residual_of(
                atoms, targets, pursuit.support, pursuit.coefficients
            )
            if arguments.peer:
                told = peer(arguments.peer, folder, k, arguments.threads)
                name = f"mergekit {told['version']}"
                times.setdefault(name, []).append((told["cpu"], told["wall"]))
                if name not in residuals:
                    answer = np.load(folder / "answer.npz")
                    residuals[name] = residual_of(
                        atoms, targets, answer["support"], answer["coefficients"]
                    )
    return [
        {
            "width": width,
            "shared": n_shared,
            "k": k,
            "tokens": tokens,
            "solver": name,
            "tokens_per_cpu_second": tokens / float(np.median([cpu for cpu, _ in taken])),
            "tokens_per_second": tokens / float(np.median([wall for _, wall in taken])),
            "mean_residual": residuals[name],
            "turns": len(taken),
        }
        for name, taken in times.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--tokens", type=int, default=512, help="missing tokens per size")
    parser.add_argument("--sizes", nargs="+", default=SIZES, metavar="WxNxK")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--exact", action="store_true", help="the exact greedy choice")
    parser.add_argument("--peer", metavar="PYTHON", help="a Python that has mergekit")
    parser.add_argument("--turns", type=int, help="runs of each (1, or 3 with --peer)")
    parser.add_argument("--missing", type=int, help="extrapolate to so many missing tokens")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    arguments.turns = arguments.turns or (3 if arguments.peer else 1)

    import torch

    torch.set_num_threads(arguments.threads)
    results: list[dict[str, Any]] = []
    if not arguments.json:
        print("width  shared   k  solver            tokens/CPU-second  tokens/second  residual")
    for size in arguments.sizes:
        rows = measure(size, arguments)
        results += rows
        for row in rows if not arguments.json else ():
            print(
                f"{row['width']:5d}  {row['shared']:6d}  {row['k']:2d}  {row['solver']:16s}  "
                f"{row['tokens_per_cpu_second']:17.1f}  {row['tokens_per_second']:13.1f}  "
                f"{row['mean_residual']:8.4f}",
                flush=True,
            )
            if arguments.missing:
                hours = arguments.missing / row["tokens_per_cpu_second"] / 3600
                print(f"       {arguments.missing:,} tokens, extrapolated: {hours:.1f} CPU-hours")
    peak = peak_memory()
    if arguments.json:
        print(json.dumps({"results": results, "peak_memory": peak}, indent=2))
    else:
        print(f"peak memory {peak / 1e9:.1f} GB, the rows of the largest size among it")


if __name__ == "__main__":
    main()
