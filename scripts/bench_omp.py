#!/usr/bin/env python3
"""Time the matching pursuit of `omp` on made-up rows: tokens per second of CPU time.

    python scripts/bench_omp.py [--tokens N] [--device cuda] [--threads 1]

Three sizes, width x shared tokens: 512 x 20k with k 64, 1024 x 40k with k 16, 2048 x 60k with k 8.
The rows are seeded noise with lengths spread as in a trained model. On CPU the time is that of the
process, so other work on the machine does not count.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np

from tokensurgeon.initialisers.pursuit import pursue

SIZES = ((512, 20_000, 64), (1024, 40_000, 16), (2048, 60_000, 8))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--tokens", type=int, default=512, help="missing tokens per size")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--per-search", type=int, default=1, help="1 is the exact greedy choice")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()

    import torch

    torch.set_num_threads(arguments.threads)
    results = []
    for width, n_shared, k in SIZES:
        rng = np.random.default_rng(0)
        atoms = rng.standard_normal((n_shared, width), dtype=np.float32)
        atoms *= rng.lognormal(0.0, 0.3, (n_shared, 1)).astype(np.float32)
        targets = rng.standard_normal((arguments.tokens, width), dtype=np.float32)
        pursue(atoms[:256], targets[:8], 4, device=arguments.device)  # first calls are slower
        wall, cpu = time.perf_counter(), time.process_time()
        found = pursue(
            atoms,
            targets,
            k,
            normalise=False,
            per_search=arguments.per_search,
            device=arguments.device,
        )
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        results.append(
            {
                "width": width,
                "shared": n_shared,
                "k": k,
                "tokens": arguments.tokens,
                "tokens_per_cpu_second": arguments.tokens / cpu,
                "tokens_per_second": arguments.tokens / wall,
                "mean_residual": float(found.residual.mean()),
            }
        )
    if arguments.json:
        print(json.dumps(results, indent=2))
        return
    print("width  shared   k  tokens/CPU-second  tokens/second  residual")
    for row in results:
        print(
            f"{row['width']:5d}  {row['shared']:6d}  {row['k']:2d}  "
            f"{row['tokens_per_cpu_second']:17.1f}  {row['tokens_per_second']:13.1f}  "
            f"{row['mean_residual']:8.4f}"
        )


if __name__ == "__main__":
    main()
