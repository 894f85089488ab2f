#!/usr/bin/env python3
"""Let a model write tokens of a large vocabulary behind an index, beside its own tokens alone.

The merged tokens are those of TEXT, merged inside words. Every other line gives them, prompts are
of the rest. Prints one table of how much is written in a forward pass.

    python scripts/measure_large_vocabulary.py CHECKPOINT TEXT --prompts 8
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

from tokensurgeon.checkpoint import Checkpoint
from tokensurgeon.runtime.merging.dynamic_model import DynamicModel
from tokensurgeon.runtime.merging.large_vocabulary import LargeVocabulary
from tokensurgeon.runtime.merging.merged_rows import context_of, merged_rows
from tokensurgeon.text import read_corpus


def main() -> None:
    """Write after a few prompts in every way."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint")
    parser.add_argument("text")
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--prompt-bytes", type=int, default=200)
    parser.add_argument("--new-tokens", type=int, default=16)
    parser.add_argument("--rows", default="subword-mean", help="what merged tokens are read by")
    parser.add_argument("--output-rows", default="subword-exp", help="what they are written by")
    parser.add_argument("--bias", type=float, default=[-2.0, 0.0], nargs="*")
    parser.add_argument("--methods", default="exact,clusters")
    asked = parser.parse_args()

    texts = [line for text in read_corpus([asked.text]).texts for line in text.splitlines() if line]
    if len(texts) < 2:
        parser.error(f"{asked.text} has {len(texts)} lines; give some to merge and some to go on")
    model = DynamicModel.open(asked.checkpoint, asked.rows)
    tokens = model.merge(texts[::2], least_count=2).merged
    prompts = [
        text.encode()[: asked.prompt_bytes].decode("utf-8", "ignore")
        for text in texts[1::2][: asked.prompts]
    ]
    batch = model.merge(prompts, merges=0)
    context = context_of(Checkpoint.open(asked.checkpoint), model.vocabulary)
    output = merged_rows(context, asked.output_rows, side="output")
    print(f"{len(tokens):,} merged tokens beside {model.model.n_rows:,}; {len(prompts)} prompts")
    print("| written with | bytes a pass | merged | same as exact | processor seconds a pass |")
    print("|---|---|---|---|---|")

    def line(name: str, write: Callable[[], list[tuple[list[int], list[int]]]]) -> list[list[int]]:
        start = time.process_time()
        written = write()
        seconds = time.process_time() - start
        passes = sum(len(ids) for ids, _ in written)
        size = sum(len(model.vocabulary.bytes_of(own)) for _, own in written)
        merged = sum(token >= model.model.n_rows for ids, _ in written for token in ids)
        ways.setdefault(name.split(",")[0], [ids for ids, _ in written])
        exact = ways[name.split(",")[0]]
        same = sum(ids == other for (ids, _), other in zip(written, exact, strict=True))
        print(
            f"| {name} | {size / passes:.2f} | {merged / passes:.1%} | {same} of {len(written)} | "
            f"{seconds / passes:.3f} |",
            flush=True,
        )
        return [own for _, own in written]

    ways: dict[str, list[list[int]]] = {}
    n = asked.new_tokens
    line("own tokens", lambda: [(ids, ids) for ids in model.generate(batch, n)])
    for bias in asked.bias:
        for method in asked.methods.split(","):
            large = LargeVocabulary(model, tokens, output, method, bias=bias)

            def write(large: LargeVocabulary = large) -> list[tuple[list[int], list[int]]]:
                return [(list(w.ids), list(w.own_ids)) for w in large.generate(batch, n)]

            own = line(f"bias {bias:g}, {method}", write)
            print(f"  {model.vocabulary.bytes_of(own[0]).decode('utf-8', 'replace')!r}")


if __name__ == "__main__":
    main()
