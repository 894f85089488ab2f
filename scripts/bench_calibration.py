#!/usr/bin/env python3
"""Time every calibration stage, and healing, at the size of a vocabulary, with its peak memory.

    python scripts/bench_calibration.py [--missing 2000] [--shared 2000] [--width 128] [--threads 1]
    python scripts/bench_calibration.py --missing 32000 --shared 30000 --width 768 --layers 12 \
        --bytes 250000

Each line is a fresh process on one pair: a Llama with random weights, and two BPE tokenizers of
made-up words, all seeded. The target is trained; the source is what is left of it once `--missing`
tokens are taken away, so some of its borders are others. The rows at the start are those of
`subword-mean`. A stage is measured as `calibrate` runs it, alone: with the scores of the start and
of each candidate, and with the source's states on the text, which stages in a row would share.
`--stages all` runs the stages in a row; `heal` trains all rows on 10,000 tokens, without what
scoring them would take.

A random model has little to gain, and a stage that goes on for as long as it helps may try more on
a trained one: `--longest` tells every stage that each candidate is the best so far. The peak is
that of the process beyond what it held before, model, rows and text; on a device also what it held
there, with them.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from tokensurgeon.calibration import STAGES


def words(n: int, rng: np.random.Generator) -> list[str]:
    """Return n made-up words of one to four syllables, the short ones first."""
    letters = list("etaoinshrdlu")
    syllables = ["".join(rng.choice(letters, size)) for size in rng.integers(2, 4, 600)]
    distinct: dict[str, None] = {}
    while len(distinct) < n:
        distinct["".join(rng.choice(syllables, rng.integers(1, 5)))] = None
    return sorted(distinct, key=len)


def documents(ranked: list[str], n_bytes: int, rng: np.random.Generator) -> list[str]:
    """Return `n_bytes` of text in which the first words are the frequent ones."""
    frequency = 1 / np.arange(3, len(ranked) + 3)
    share = frequency / frequency.sum()
    texts: list[str] = []
    while n_bytes > 0:
        text = " ".join(ranked[i] for i in rng.choice(len(ranked), 300, p=share))
        texts.append(text[:n_bytes])
        n_bytes -= len(text)
    return texts


def target_tokenizer(ranked: list[str], size: int) -> dict[str, Any]:
    """Return a byte-level BPE trained on the words, the first ones more often, as JSON."""
    from tokenizers import ByteLevelBPETokenizer

    tokenizer, special = ByteLevelBPETokenizer(), ["<s>", "</s>"]
    text = (f" {word}" * (1 + len(ranked) // (i + 1)) for i, word in enumerate(ranked))
    tokenizer.train_from_iterator(text, size, 1, special_tokens=special, show_progress=False)
    return dict(json.loads(tokenizer.to_str()))


def source_tokenizer(target: dict[str, Any], n_shared: int, rng: Any) -> dict[str, Any]:
    """Return the target with `n_shared` tokens left, mostly its first, and their merges."""
    vocabulary = sorted(target["model"]["vocab"], key=target["model"]["vocab"].get)
    merges = [tuple(pair) for pair in target["model"]["merges"]]
    late: dict[str, float] = {}
    for i, (left, right) in enumerate(merges):
        own = i + rng.uniform(0, len(merges))
        # No token stays without its parts.
        late.setdefault(left + right, max(own, late.get(left, 0.0), late.get(right, 0.0)))
    # Sorting is stable: parts stand before what is made of them.
    shared = sorted(vocabulary, key=lambda token: late.get(token, -1.0))[:n_shared]
    known = set(shared)
    usable = [pair for pair in merges if known.issuperset((*pair, "".join(pair)))]
    ids = {token: i for i, token in enumerate(shared)}
    return {**target, "model": {**target["model"], "vocab": ids, "merges": usable}}


def build(folder: Path, arguments: argparse.Namespace) -> None:
    """Save the source with its tokenizer, the target's tokenizer, and the texts."""
    import torch
    from tokenizers import Tokenizer
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    rng = np.random.default_rng(arguments.seed)
    ranked = words(arguments.shared + arguments.missing, rng)
    target = target_tokenizer(ranked, arguments.shared + arguments.missing)
    source = source_tokenizer(target, arguments.shared, rng)
    for name, document in (("source", source), ("target", target)):
        tokenizer = Tokenizer.from_str(json.dumps(document))
        PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>"
        ).save_pretrained(folder / name)
    other = rng.permutation(ranked).tolist()  # of another domain: other words are frequent
    for name, order, n_bytes in (("text", ranked, arguments.bytes), ("other", other, 20_000)):
        lines = [json.dumps({"text": text}) for text in documents(order, n_bytes, rng)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines), "utf-8")
    torch.manual_seed(arguments.seed)
    heads = max(1, arguments.width // 64)
    config = LlamaConfig(
        vocab_size=arguments.shared,
        hidden_size=arguments.width,
        intermediate_size=8 * arguments.width // 3,
        num_hidden_layers=arguments.layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=1024,
        bos_token_id=0,
        eos_token_id=1,
        tie_word_embeddings=False,
    )
    LlamaForCausalLM(config).save_pretrained(folder / "source")


def work(folder: Path, arguments: argparse.Namespace) -> Callable[[], tuple[int | None, int]]:
    """Return the work to time, its inputs made; it says candidates tried and tokens run."""
    from tokensurgeon import Recipe
    from tokensurgeon.calibration import calibrate, find_stages
    from tokensurgeon.calibration.training.loop import train_rows
    from tokensurgeon.surgery import prepare
    from tokensurgeon.surgery.rows import patch_rows

    text = {"calibration": [str(folder / "text.jsonl")], "other": [str(folder / "other.jsonl")]}
    recipe = {"source": str(folder / "source"), "tokenizer": str(folder / "target"), "text": text}
    # So much time that the clock never cuts the text.
    asked = {"seed": arguments.seed, "budget": 1e6, "device": arguments.device}
    session = prepare(Recipe.parse({**recipe, **asked}))
    rows = patch_rows(session, ("subword-mean", "subword-mean"), session.recipe.init)
    data, matrices = session.calibration_data, rows.matrices
    assert len(data.new) == arguments.missing
    names = list(STAGES) if arguments.one == "all" else [arguments.one]
    seen: list[Any] = []
    plain = data.score

    def score(matrices: Any, chunks: Any) -> float:
        seen.append(chunks)
        figure = plain(matrices, chunks)
        return -len(seen) if arguments.longest else figure

    def stages() -> tuple[int | None, int]:
        before = data.forward_tokens
        with patch.object(data, "score", score):
            calibrate(data, matrices, find_stages(names, tied=False))
        # Besides the candidates the start is scored.
        tried = sum(chunks is data.texts.selection for chunks in seen) - 1
        return tried, data.forward_tokens - before

    def heal() -> tuple[int | None, int]:
        trained = np.zeros(len(matrices.input), dtype=bool)
        trained[np.union1d(data.new, data.shared)] = True
        better = itertools.count(0, -1)  # so that the best rows are kept, as they would be
        healed = train_rows(
            data.patched(matrices),
            data.context.target,
            data.texts.documents,
            train_input=trained,
            train_output=trained,
            tied=False,
            minutes=1e6,
            max_tokens=10_000,
            max_passes=None,
            seed=arguments.seed,
            selection=lambda model: next(better),
        )
        return None, healed.n_tokens

    return heal if arguments.one == "heal" else stages


def peak(forget: bool = False) -> float:
    """Return the largest resident size of this process, in MiB; `forget` what was before."""
    if forget:
        Path("/proc/self/clear_refs").write_text("5", "utf-8")
    status = Path("/proc/self/status").read_text("utf-8")
    return int(re.findall(r"VmHWM:\s+(\d+)", status)[0]) / 1024


def run_one(folder: Path, arguments: argparse.Namespace) -> None:
    """Do one piece of work and print its figures."""
    import torch

    torch.set_num_threads(arguments.threads)
    job = work(folder, arguments)
    # What made the inputs may have taken more than they do.
    on_cuda = arguments.device.startswith("cuda")
    if on_cuda:
        torch.cuda.reset_peak_memory_stats(arguments.device)
    before, wall, cpu = peak(forget=True), time.perf_counter(), time.process_time()
    tried, tokens = job()
    seconds, cpu_seconds = time.perf_counter() - wall, time.process_time() - cpu
    figures = {"stage": arguments.one, "candidates": tried, "seconds": seconds}
    figures |= {"cpu_seconds": cpu_seconds, "peak_mib": peak() - before, "tokens": tokens}
    if on_cuda:
        figures["device_mib"] = torch.cuda.max_memory_allocated(arguments.device) / (1 << 20)
    print(json.dumps(figures))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--missing", type=int, default=2000)
    parser.add_argument("--shared", type=int, default=2000, help="all that the source has")
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--bytes", type=int, default=60_000, help="of made-up text")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    usual = [*STAGES, "heal"]
    parser.add_argument("--stages", nargs="*", default=usual, choices=[*usual, "all"])
    parser.add_argument("--longest", action="store_true", help="as if every candidate helped")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        run_one(arguments.folder, arguments)
        return
    threads = ("OMP", "OPENBLAS", "MKL", "RAYON")
    environment = {f"{name}_NUM_THREADS": str(arguments.threads) for name in threads}
    if not arguments.json:
        print(
            f"{arguments.missing:,} missing and {arguments.shared:,} shared tokens, width "
            f"{arguments.width}, layers {arguments.layers}, {arguments.bytes:,} bytes, threads "
            f"{arguments.threads}, seed {arguments.seed}\n"
            "stage           candidates  seconds  CPU-seconds  peak MiB beyond  tokens run",
            flush=True,
        )
    with tempfile.TemporaryDirectory() as scratch:
        build(Path(scratch), arguments)
        for name in arguments.stages:
            command = [sys.executable, __file__, *sys.argv[1:], "--one", name, "--folder", scratch]
            told = subprocess.check_output(command, text=True, env=os.environ | environment)
            line = told.splitlines()[-1]
            if not arguments.json:
                figures = json.loads(line)
                line = (
                    f"{name:14s}  {figures['candidates'] or '':>10}  {figures['seconds']:7.1f}  "
                    f"{figures['cpu_seconds']:11.1f}  {figures['peak_mib']:15.0f}  "
                    f"{figures['tokens']:10,}"
                )
                if "device_mib" in figures:
                    line += f"  {figures['device_mib']:8.0f} MiB on the device"
            print(line, flush=True)


if __name__ == "__main__":
    main()
