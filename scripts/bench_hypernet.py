#!/usr/bin/env python3
"""Time a hypernetwork at the size of a large vocabulary: fit, train on rows, make rows.

    python scripts/bench_hypernet.py SOURCE_TOKENIZER TARGET_TOKENIZER [--width N] [--seconds N]
                                     [--device cuda] [--size N] [--json]

The rows are seeded noise, which teaches nothing: time and memory are measured, not quality. Most of
the fit is the spelling of trained tokens and the normal equations of the ridge composer; text and a
model are left out.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import numpy as np

from tokensurgeon.alignment import align
from tokensurgeon.initialisers.contract import InitContext
from tokensurgeon.initialisers.hypernetwork.composition import rows_of
from tokensurgeon.initialisers.hypernetwork.staged_fit import StagedFit
from tokensurgeon.progress import peak_memory
from tokensurgeon.vocabulary import Kind, load_vocabulary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source")
    parser.add_argument("target")
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    source, target = load_vocabulary(asked.source), load_vocabulary(asked.target)
    alignment = align(source, target)
    spelled = {
        i: source.pieces_of(target.token_bytes[i] or b"") for i in alignment.missing.tolist()
    }
    pieces = {i: spelling for i, spelling in spelled.items() if spelling}
    generator = np.random.default_rng(0)
    shape = (source.n_rows, asked.width)
    rows = [generator.standard_normal(shape, dtype=np.float32) for _ in range(2)]
    stages: dict[str, float] = {}
    begun: list[tuple[float, str]] = [(time.perf_counter(), "")]

    def progress(done: int, total: int, what: str) -> None:
        now = time.perf_counter()
        if begun[0][1] != what:
            begun[0] = (now, what)
        stages[what] = round(now - begun[0][0], 1)

    context = InitContext(
        alignment=alignment,
        missing=np.array(sorted(pieces), dtype=np.int64),
        pieces=tuple(tuple(pieces[i]) for i in sorted(pieces)),
        input_rows=rows[0],
        output_rows=rows[1],
        tied=False,
        anchors=np.asarray(source.kinds == Kind.ORDINARY),
        device=asked.device,
        memory_budget=16 << 30,
        progress=progress,
    )
    start, spent = time.perf_counter(), time.process_time()
    hypernet = StagedFit(context, asked.seconds, size=asked.size).run()
    trained = time.perf_counter() - start
    start = time.perf_counter()
    matrices = rows_of(hypernet, context)
    result: dict[str, Any] = {
        "source_rows": source.n_rows,
        "width": asked.width,
        "missing": len(context.missing),
        "device": asked.device,
        "all_seconds": round(trained, 1),
        "cpu_seconds": round(time.process_time() - spent, 1),
        "stages": stages,
        "steps": hypernet.card["gradient_steps"],
        "rows_seconds": round(time.perf_counter() - start, 1),
        "peak_gib": round(peak_memory() / 2**30, 2),
        "shapes": [list(rows.shape) for rows in matrices],
    }
    if asked.device.startswith("cuda"):
        import torch

        result["device_name"] = torch.cuda.get_device_name()
        result["device_peak_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
    if asked.json:
        print(json.dumps(result))
        return
    for key, value in result.items():
        print(f"{key}: {value}")


if __name__ == "__main__":
    main()
