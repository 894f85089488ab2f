"""How fast trained vocabularies encode: megabytes per CPU-second, relative to the first one.

    python scripts/measure_encoding.py TEXT FOLDER FOLDER...

Each is loaded anew in each of five rounds, in turns, so that no cache is warm. Prints medians.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from pathlib import Path

from tokensurgeon.text.corpus import read_documents

ROUNDS = 5
"""Rounds; an odd number, so that the median is one of the times."""


def main(file: str, folders: list[str]) -> None:
    """Print one line per vocabulary."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    from tokenizers import Tokenizer

    texts = [document.text for document in read_documents([file], max_bytes=10_000_000)]
    n_bytes = sum(len(text.encode()) for text in texts)
    rates_of: dict[str, list[float]] = {folder: [] for folder in folders}
    for _ in range(ROUNDS):
        for folder, rates in rates_of.items():
            tokenizer = Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
            started = time.process_time()
            tokenizer.encode_batch_fast(texts, add_special_tokens=False)
            rates.append(n_bytes / 1e6 / (time.process_time() - started))
    first = statistics.median(rates_of[folders[0]])
    print("| vocabulary | MB per CPU-second | × the first |")
    print("|---|---|---|")
    for folder, rates in rates_of.items():
        rate = statistics.median(rates)
        print(f"| {Path(folder).name} | {rate:.2f} | {rate / first:.2f} |")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
