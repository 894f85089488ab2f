"""Measure the initialisers on pairs of real models and tokenizers, and write the tables.

    python scripts/measure_pairs.py ASSETS [--bytes N] [-o docs/figures.md]

ASSETS holds `models/`, `tokenizers/` and `corpora/` of third parties, which are not part of this
repository; the model that ships is measured too. Every table says who trained the source, on which
text it was measured, and what each method was given.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tokensurgeon import Recipe, compare
from tokensurgeon.surgery import Comparison

DATA = Path(__file__).parent.parent / "tokensurgeon" / "data"
PLAIN = ("zero", "mean", "random", "multivariate")
SUBWORD = ("subword-mean", "subword-first", "subword-last", "subword-exp", "subword-shrunk")
ENDS = ("subword-ends",)
RESIDUAL = ("hidden-residual/subword-mean",)


@dataclass(frozen=True)
class Pair:
    """A source and a target, and the methods to compare on them."""

    title: str
    source: str
    target: str
    text: str
    methods: tuple[str, ...]
    donor: str | None = None
    untie: bool = False
    settings: tuple[tuple[str, int], ...] = ()
    """(method, k): further runs of a method with another k."""


def pairs(assets: Path) -> list[Pair]:
    """Return the pairs that are measured."""
    stories = str(assets / "models/stories260K")
    story_text = str(assets / "corpora/tinystories-valid.json")
    found = []
    for name in ("storyllamas-4096", "gpt2", "llama2"):
        for untie in (False, True):
            methods = (*PLAIN, *SUBWORD)
            methods += (*ENDS, *RESIDUAL) if untie else ("hidden-residual",)
            how = "untied (`--untie`)" if untie else "tied"
            found.append(
                Pair(
                    f"stories260K (trained by a third party, {how}) → {name}",
                    stories,
                    str(assets / "tokenizers" / name),
                    story_text,
                    methods,
                    untie=untie,
                )
            )
    found.append(
        Pair(
            "technical-base → the tokenizer of technical-donor (both trained for this project)",
            str(assets / "models/technical-base"),
            str(assets / "models/technical-donor"),
            str(assets / "corpora/technical-valid.json"),
            ("mean", *SUBWORD, *ENDS, *RESIDUAL, "subword-last/omp"),
            donor=str(assets / "models/technical-donor"),
            settings=tuple((m, k) for m in ("omp", "omp-published") for k in (8, 16, 64)),
        )
    )
    found.append(
        Pair(
            "the model that ships → its target (both trained for this project)",
            str(DATA / "source"),
            str(DATA / "donor"),
            str(DATA / "text/evaluation.jsonl"),
            (*PLAIN, *SUBWORD, *ENDS, *RESIDUAL),
            donor=str(DATA / "donor"),
            settings=tuple((m, k) for m in ("omp", "omp-published") for k in (8, 16, 64)),
        )
    )
    return found


def run(pair: Pair, n_bytes: int) -> list[dict[str, object]]:
    """Measure a pair; one row a method."""

    def table(methods: tuple[str, ...], k: int | None = None) -> Comparison:
        recipe = Recipe.model_validate(
            {
                "source": pair.source,
                "tokenizer": pair.target,
                "donor": pair.donor,
                "text": {"evaluation": [pair.text], "max_bytes": n_bytes},
                "untie": pair.untie,
                "init": {"settings": {"*": {"k": k}} if k else {}},
            }
        )
        return compare(recipe, methods)

    rows = list(table(pair.methods).rows)
    for k in sorted({k for _, k in pair.settings}):
        methods = tuple(method for method, at in pair.settings if at == k)
        more = [row for row in table(methods, k).rows if row["method"] != "source"]
        rows += [{**row, "method": f"{row['method']} k={k}"} for row in more]
    measured = [row for row in rows if row["error"] is None]
    refused = [row for row in rows if row["error"] is not None]
    return sorted(measured, key=lambda row: row["bits_per_byte"]) + refused


def markdown(pair: Pair, rows: list[dict[str, object]], seconds: float) -> str:
    """Return a pair's table."""
    lines = [
        f"### {pair.title}",
        "",
        f"On `{Path(pair.text).name}`.",
        "",
        "| method | bits per byte | gap | 95 % interval | perplexity ratio | bytes per token "
        "| donor | forward tokens |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if row["error"] is not None:
            lines.append(f"| {row['method']} | {row['error']} | | | | | | |")
            continue
        interval = row["interval"]
        between = f"{interval[0]:.3f} … {interval[1]:.3f}" if interval else "–"
        gap = f"{row['gap']:+.3f}" if row["gap"] is not None else "–"
        ratio = row["perplexity_ratio"]
        lines.append(
            f"| {row['method']} | {row['bits_per_byte']:.3f} | {gap} | {between} "
            f"| {f'{ratio:.2f}' if ratio else '–'} | {row['bytes_per_token']:.2f} "
            f"| {'yes' if row['donor'] else 'no'} | {row['forward_tokens']:,} |"
        )
    return "\n".join([*lines, "", f"Measured in {seconds:.0f} s.", ""])


def main() -> None:
    """Measure all pairs, or those whose title holds the words of --only."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("assets", type=Path)
    parser.add_argument("--bytes", type=int, default=60_000)
    parser.add_argument("--only", default="")
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    parts = [
        "# Figures",
        "",
        f"Bits per byte on the first {arguments.bytes:,} bytes of held-out text, without any "
        "calibration or further training. Made by `scripts/measure_pairs.py`.",
        "",
    ]
    for pair in pairs(arguments.assets):
        if arguments.only not in pair.title:
            continue
        start = time.perf_counter()
        parts.append(markdown(pair, run(pair, arguments.bytes), time.perf_counter() - start))
        print(parts[-1], flush=True)
    if arguments.output:
        arguments.output.write_text("\n".join(parts), encoding="utf-8")
        print(f"written to {arguments.output}", file=sys.stderr)


if __name__ == "__main__":
    main()
