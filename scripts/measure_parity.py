"""How evenly plain and parity-aware BPE split languages: Gini of tokens for the same text.

    python scripts/measure_parity.py CORPORA [--size 4096]

CORPORA is a folder with ``flores-*.txt`` (parallel by line) and ``udhr-multilingual.txt`` (twelve
translations of one text). FLORES: trained on even lines, measured on odd ones. UDHR: trained on the
first seven tenths of each, measured on the rest. The cost is of all languages together: bytes per
token relative to plain BPE. FLORES is for measuring only; no vocabulary made of it is published.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from pathlib import Path

from tokensurgeon.text.corpus import corpus_of_texts
from tokensurgeon.trainers import Shape, train_vocabulary
from tokensurgeon.trainers.measures.formulas import gini

TRANSITIONS = (0.75, 0.5, 0.25, 0.05)
"""Shares of the merges for all languages together that are tried."""


def flores(folder: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Return what is trained on and what is measured on, by language."""
    train, held = {}, {}
    for path in sorted(folder.glob("flores-*.txt")):
        lines = path.read_text("utf-8").splitlines(keepends=True)
        train[path.stem], held[path.stem] = "".join(lines[::2]), "".join(lines[1::2])
    return train, held


def languages(path: Path) -> dict[str, str]:
    """Return the text under each line ``## LANGUAGE``."""
    parts = re.split(r"^## (\w+)\n", path.read_text("utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def udhr(folder: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Return what is trained on and what is measured on, by language."""
    train, held = {}, {}
    for name, body in languages(folder / "udhr-multilingual.txt").items():
        cut = body.rfind("\n", 0, len(body) * 7 // 10) + 1
        train[name], held[name] = body[:cut], body[cut:]
    return train, held


def measured(
    held: Mapping[str, str], size: int, train: Mapping[str, str], share: float | None
) -> tuple[float, float, str]:
    """Return Gini, bytes per token over all, and the language of the most tokens."""
    parts = {name: corpus_of_texts([text]) for name, text in train.items()}
    trained = train_vocabulary(
        parts,
        method="bpe" if share is None else "parity",
        size=size,
        shape=Shape(transition=share, parallel=share is not None),
    )
    tokens = {name: len(trained.tokenizer.encode(text).ids) for name, text in held.items()}
    n_bytes = sum(len(text.encode()) for text in held.values())
    return (
        gini(list(tokens.values())),
        n_bytes / sum(tokens.values()),
        max(tokens, key=lambda n: tokens[n]),
    )


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("corpora", type=Path)
    parser.add_argument("--size", type=int, default=4096)
    args = parser.parse_args()
    print("| text | languages | method | for all first | Gini | bytes/token | cost | worst off |")
    print("|---|---|---|---|---|---|---|---|")
    for name, read in (("FLORES", flores), ("UDHR", udhr)):
        train, held = read(args.corpora)
        plain = 0.0
        for share in (None, *TRANSITIONS):
            inequality, rate, worst = measured(held, args.size, train, share)
            plain = plain or rate
            method, first = ("bpe", "–") if share is None else ("parity", f"{share:.0%}")
            print(f"| {name} | {len(train)} | {method} | {first} | {inequality:.4f} | {rate:.3f} | "
                  f"{plain / rate - 1:+.1%} | {worst} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
