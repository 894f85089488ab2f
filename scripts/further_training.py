"""What users do next: all weights trained further, from the rows of several initialisers.

    python scripts/further_training.py SOURCE TARGET --train FILE… --text FILE… [-o FILE]

The rows of each initialiser are put on the source's body, and every weight is trained on the same
batches. A table has the bits per byte on held-out text before, in the middle and at the end, the
mean over seeds and their range; the seed is that of the order of the text and of random rows. The
source trained alike on its own tokenizer is its first line. It is small on purpose: one learning
rate, no tuning per method.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tokensurgeon import Recipe
from tokensurgeon.calibration.training.batches import TrainingText
from tokensurgeon.evaluation import Entry, evaluate
from tokensurgeon.studies.further_training import TOKENS_PER_STEP, WeightTrainer, warm_up
from tokensurgeon.surgery import Session, prepare
from tokensurgeon.surgery.measure import evaluation_texts, patched_model
from tokensurgeon.surgery.rows import patch_rows

METHODS = ("mean", "multivariate", "subword-mean", "hidden-residual/subword-mean", "omp")


def figures(
    session: Session, name: str, held_out: Sequence[str], arguments: argparse.Namespace
) -> list[list[float]]:
    """Return bits per byte, one list per seed with a figure per stage."""
    vocabulary = session.alignment.source if name == "source" else session.alignment.target
    by_seed = []
    for seed in range(arguments.seeds):
        model = session.model
        if name != "source":
            first, _, second = name.partition("/")
            seeded = session.variant(seed=seed)
            rows = patch_rows(seeded, (first, second or first), seeded.recipe.init)
            model = patched_model(seeded, rows)
        text = TrainingText.read(vocabulary, session.calibration_texts, model.max_positions)
        trainer = WeightTrainer(model, tied=session.inputs.tied)
        order = text.passes(np.random.default_rng(seed), TOKENS_PER_STEP)
        line: list[float] = []
        seen = done = 0
        for stage in arguments.stages:
            while seen < stage:
                seen += trainer.step(*text.padded(next(order)), arguments.rate * warm_up(done))
                done += 1
            entry = evaluate(
                [Entry(name, trainer.model, vocabulary)], held_out, max_bytes=arguments.bytes
            ).entries[0]
            line.append(float(entry.bits_per_byte or "nan"))
        by_seed.append(line)
        print(f"{name}, seed {seed}: {line}", file=sys.stderr)
    return by_seed


def cell(values: Sequence[float]) -> str:
    """Return a mean and, of several, the range."""
    mean = f"{np.mean(values):.3f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.3f} … {max(values):.3f})"


def main() -> None:
    """Train and measure, and write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source")
    parser.add_argument("target")
    parser.add_argument("--train", nargs="+", required=True, metavar="FILE")
    parser.add_argument("--text", nargs="+", required=True, metavar="FILE")
    parser.add_argument("--donor")
    parser.add_argument("--methods", default=None, help="comma-separated; A/B for two sides")
    parser.add_argument("--untie", action="store_true")
    parser.add_argument("--stages", type=int, nargs="+", default=[0, 500_000, 1_000_000])
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--bytes", type=int, default=60_000)
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    start = time.perf_counter()
    recipe = Recipe.model_validate(
        {
            "source": arguments.source,
            "tokenizer": arguments.target,
            "donor": arguments.donor,
            "untie": arguments.untie,
            "text": {
                "calibration": arguments.train,
                "evaluation": arguments.text,
                "max_bytes": arguments.bytes,
            },
        }
    )
    session = prepare(recipe)
    held_out = evaluation_texts(session)
    if arguments.methods:
        methods = tuple(arguments.methods.split(","))
    else:
        methods = tuple(m for m in METHODS if m != "omp" or arguments.donor)
    lines = [
        f"### {Path(arguments.source).name} → {Path(arguments.target).name}, all weights trained",
        "",
        f"Bits per byte on the first {arguments.bytes:,} bytes of held-out text, after tokens of "
        f"further training; AdamW, learning rate {arguments.rate:g}, {TOKENS_PER_STEP:,} tokens a "
        f"step, seeds 0 … {arguments.seeds - 1}"
        + (" (mean and range)." if arguments.seeds > 1 else "."),
        "",
        "| rows | " + " | ".join(f"{stage:,}" for stage in arguments.stages) + " |",
        "|---|" + "---|" * len(arguments.stages),
    ]
    for name in ("source", *methods):
        by_seed = figures(session, name, held_out, arguments)
        label = "source, its own tokenizer" if name == "source" else f"`{name}`"
        cells = [cell([line[i] for line in by_seed]) for i in range(len(arguments.stages))]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    lines += ["", f"Measured in {time.perf_counter() - start:.0f} s.", ""]
    if arguments.output is None:
        print("\n".join(lines))
    else:
        arguments.output.write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
