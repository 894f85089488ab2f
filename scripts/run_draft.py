#!/usr/bin/env python3
"""Generate with a draft model in transformers, and count what the big model accepts.

    python scripts/run_draft.py BIG DRAFT TEXT [--against SMALL] [--prompts 100] [--sample]

The start of each document of TEXT is a prompt. Each line of the table is a way: the big model
alone, with DRAFT as its `assistant_model`, and, where it is named, with the untouched SMALL model
of another tokenizer, by what `generate` does then (re-encoding greedily, token-level intersection
when it samples). Greedy output must be the big model's own, token by token; the last column says
for how many prompts it is. Times are of models of this size on this machine, and say little of
others.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tokensurgeon.text.corpus import read_corpus

PROMPT_BYTES = 200


@dataclass(frozen=True)
class Run:
    """What some prompts took.

    Attributes
    ----------
    outputs : list of list of int
        New tokens of each prompt.
    passes : int
        Of the big model; each gives a token, and those that it accepts.
    seconds : float
    """

    outputs: list[list[int]]
    passes: int
    seconds: float

    @property
    def accepted(self) -> float:
        """Drafted tokens that a pass of the big model accepts, on average."""
        return sum(map(len, self.outputs)) / max(1, self.passes) - 1


@contextmanager
def counted(model: Any) -> Iterator[list[int]]:
    """Count the passes of a model in a list of one number."""
    passes = [0]

    def note(module: Any, args: Any) -> None:
        passes[0] += 1

    handle = model.register_forward_pre_hook(note)
    try:
        yield passes
    finally:
        handle.remove()


def generate(
    big: Any,
    prompts: Sequence[Sequence[int]],
    *,
    draft: Any = None,
    tokenizers: tuple[Any, Any] | None = None,
    new_tokens: int = 64,
    drafted: int = 4,
    sample: bool = False,
) -> Run:
    """Let a big model continue prompts, with a draft or without.

    Parameters
    ----------
    big : transformers model
    prompts : sequence of sequence of int
    draft : transformers model, optional
    tokenizers : pair of transformers tokenizers, optional
        Of the big model and of the draft, where they differ.
    new_tokens, drafted : int
        Tokens of a continuation, and tokens that are drafted at once.
    sample : bool
        By the model's probabilities as they are; else greedily.
    """
    extra: dict[str, Any] = {}
    if draft is not None:
        own = draft.generation_config
        own.num_assistant_tokens, own.num_assistant_tokens_schedule = drafted, "constant"
        own.assistant_confidence_threshold = 0.0
        extra["assistant_model"] = draft
    if tokenizers is not None:
        extra |= {"tokenizer": tokenizers[0], "assistant_tokenizer": tokenizers[1]}
    chosen: dict[str, Any] = {"do_sample": False}
    if sample:
        chosen = {"do_sample": True, "top_k": 0, "top_p": 1.0, "temperature": 1.0}
    outputs, passes, start = [], 0, time.perf_counter()
    for number, prompt in enumerate(prompts):
        torch.manual_seed(number)
        ids = torch.tensor([list(prompt)])
        with counted(big) as seen:
            output = big.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=new_tokens,
                pad_token_id=0, **chosen, **extra,
            )  # fmt: skip
        outputs.append(output[0, ids.shape[1] :].tolist())
        passes += seen[0]
    return Run(outputs, passes, time.perf_counter() - start)


def load(folder: Path) -> tuple[Any, Any]:
    """Return a model, and its tokenizer."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    return model.eval(), AutoTokenizer.from_pretrained(folder, local_files_only=True)


def prompts_of(texts: Sequence[Path], tokenizer: Any, n: int) -> list[list[int]]:
    """Return the starts of documents in a tokenizer's ids, whole words of them."""
    starts = (text[:PROMPT_BYTES].rsplit(" ", 1)[0] for text in read_corpus(texts).texts)
    return [tokenizer(start)["input_ids"] for start in itertools.islice(starts, n)]


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("big", type=Path)
    parser.add_argument("draft", type=Path)
    parser.add_argument("text", type=Path, nargs="+")
    parser.add_argument("--against", type=Path, help="an untouched small model")
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--drafted", type=int, default=4)
    parser.add_argument("--sample", action="store_true")
    asked = parser.parse_args()
    big, tokenizer = load(asked.big)
    prompts = prompts_of(asked.text, tokenizer, asked.prompts)
    ways: dict[str, dict[str, Any]] = {
        "alone": {},
        "with the draft": {"draft": load(asked.draft)[0]},
    }
    if asked.against is not None:
        small, its_tokenizer = load(asked.against)
        ways["with the untouched small model"] = {
            "draft": small, "tokenizers": (tokenizer, its_tokenizer)
        }  # fmt: skip
    shape = {"new_tokens": asked.new_tokens, "drafted": asked.drafted, "sample": asked.sample}
    print(f"{len(prompts)} prompts, {asked.new_tokens} new tokens, {asked.drafted} drafted at once")
    print("| way | accepted a pass | share of the drafted | seconds | as without a draft |")
    print("|---|---|---|---|---|")
    alone: Run | None = None
    for name, way in ways.items():
        run = generate(big, prompts, **shape, **way)
        alone = alone or run
        same = sum(a == b for a, b in zip(run.outputs, alone.outputs, strict=True))
        said = "" if asked.sample else f"{same} of {len(prompts)}"
        share = f"{run.accepted / asked.drafted:.0%}" if "draft" in way else ""
        print(f"| {name} | {run.accepted:.2f} | {share} | {run.seconds:.0f} | {said} |", flush=True)


if __name__ == "__main__":
    main()
