#!/usr/bin/env python3
"""Patch a large made-up sharded checkpoint: time against copying and hashing it, peak memory.

    python scripts/bench_checkpoint.py FOLDER [--gib 16] [--width 4096] [--rows 128256] [--keep]

A Llama of as many layers as the size asks is written into FOLDER as sparse files of zeros, in
bfloat16 and shards of 5 GB, its vocabulary rows as seeded noise. It gets a byte-level tokenizer of
its own, and a target with other ids that lacks a tenth of the tokens. The surgery runs in a process
of its own, so that its peak memory is its own; `cp` and SHA-256 read the same files afterwards.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

SHARD = 5 * 10**9
SURGERY = """
import json, resource, sys, time
import tokensurgeon
from tokensurgeon.progress import peak_memory
start = time.perf_counter()
tokensurgeon.transplant(
    source=sys.argv[1], tokenizer=sys.argv[2], output=sys.argv[3],
    init={"input": "subword-mean", "output": "subword-mean"},
)
use = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps({"seconds": time.perf_counter() - start, "cpu": use.ru_utime + use.ru_stime,
                  "peak_gib": peak_memory() / 2**30}))
"""


def tokenizer(folder: Path, n_tokens: int, seed: int) -> None:
    """Save a byte-level BPE of made-up merges; nine tenths are the same for every seed."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {letter: i for i, letter in enumerate(alphabet)}
    merges: list[tuple[str, str]] = []
    names = list(alphabet)
    shared = np.random.default_rng(0)
    own = np.random.default_rng(seed)
    while len(names) < n_tokens:
        generator = own if len(names) % 10 == 9 else shared
        a, b = (names[int(i)] for i in generator.integers(min(len(names), 4000), size=2))
        if a + b not in vocab and len(a + b) < 24:
            merges.append((a, b))
            vocab[a + b] = len(names)
            names.append(a + b)
    made = Tokenizer(models.BPE(vocab, merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    folder.mkdir(parents=True, exist_ok=True)
    made.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "TokenizersBackend"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def checkpoint(folder: Path, gib: float, width: int, rows: int) -> int:
    """Write the checkpoint; return its bytes."""
    import torch
    import transformers

    inner = 3 * width + width // 2
    per_layer = 2 * (4 * width * width + 3 * width * inner + 2 * width)
    layers = max(1, int((gib * 2**30 - 4 * rows * width) / per_layer))
    config = transformers.LlamaConfig(
        vocab_size=rows, hidden_size=width, intermediate_size=inner, num_hidden_layers=layers,
        num_attention_heads=32, num_key_value_heads=32, tie_word_embeddings=False,
        bos_token_id=None, eos_token_id=None, dtype="bfloat16",
    )  # fmt: skip
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(folder)
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(config)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    shards: list[dict[str, tuple[int, ...]]] = [{}]
    size = total = 0
    for name, shape in shapes.items():
        n_bytes = 2 * int(np.prod(shape))
        if size + n_bytes > SHARD and shards[-1]:
            shards.append({})
            size = 0
        shards[-1][name] = shape
        size, total = size + n_bytes, total + n_bytes
    where: dict[str, str] = {}
    for number, shard in enumerate(shards):
        name = f"model-{number + 1:05d}-of-{len(shards):05d}.safetensors"
        _write_sparse(folder / name, shard, rows, width)
        where |= dict.fromkeys(shard, name)
    index = {"metadata": {"total_size": total}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return total


def _write_sparse(path: Path, shapes: dict[str, tuple[int, ...]], rows: int, width: int) -> None:
    header: dict[str, dict[str, Any]] = {}
    offset = 0
    for name, shape in shapes.items():
        end = offset + 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, shape in shapes.items():
            if shape == (rows, width):
                file.seek(8 + len(text) + header[name]["data_offsets"][0])
                generator = np.random.default_rng(len(name))
                for start in range(0, rows, 8192):
                    block = generator.standard_normal((min(8192, rows - start), width), np.float32)
                    file.write((block.view(np.uint32) >> 16).astype(np.uint16).tobytes())
        file.truncate(8 + len(text) + offset)


def timed(*command: str) -> dict[str, float]:
    """Run a command; return its seconds, wall and processor."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": time.perf_counter() - start, "cpu": cpu}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--gib", type=float, default=16.0)
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--rows", type=int, default=128256)
    parser.add_argument("--keep", action="store_true")
    asked = parser.parse_args()
    source, target, out = (asked.folder / name for name in ("source", "target", "out"))
    source.mkdir(parents=True)
    total = checkpoint(source, asked.gib, asked.width, asked.rows)
    tokenizer(source, asked.rows, 1)
    tokenizer(target, asked.rows, 2)
    print(
        f"{total / 2**30:.1f} GiB in {len(list(source.glob('*.safetensors')))} shards", flush=True
    )
    command = [sys.executable, "-c", SURGERY, str(source), str(target), str(out)]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    surgery = json.loads(told.splitlines()[-1])
    print(f"surgery: {surgery['seconds']:.1f} s, {surgery['cpu']:.1f} CPU-s, "
          f"peak {surgery['peak_gib']:.2f} GiB", flush=True)  # fmt: skip
    files = [str(path) for path in sorted(out.glob("*.safetensors"))]
    hashed = timed("sha256sum", *files)
    print(
        f"sha256sum of the result: {hashed['seconds']:.1f} s, {hashed['cpu']:.1f} CPU-s", flush=True
    )
    copy = asked.folder / "copy"
    copied = timed("cp", "-r", "--sparse=never", str(source), str(copy))
    print(f"cp: {copied['seconds']:.1f} s, {copied['cpu']:.1f} CPU-s", flush=True)
    rows_gib = 4 * asked.rows * asked.width / 2**30
    print(f"one vocabulary matrix as float32: {rows_gib:.2f} GiB")
    if not asked.keep:
        shutil.rmtree(asked.folder)


if __name__ == "__main__":
    main()
