"""Train vocabularies by every method on one text: bytes per token, processor time, peak memory.

    python scripts/measure_vocabularies.py TRAIN HELD-OUT... [--size 32768] [--only superbpe ...]

Each training runs in a process of its own. The time is that of all its processes, workers included,
without the plain BPE for comparison; the memory is the peak of the largest process. The stock
trainer of the tokenizers library is run on the same text, with the same cut. Bytes per token are
measured on the held-out files. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import sys
import time

from measuring import run_measured

from tokensurgeon.progress import peak_memory
from tokensurgeon.text.corpus import read_documents
from tokensurgeon.trainers.counting.in_memory import count_segments
from tokensurgeon.trainers.counting.pretokenizers import pattern, pretokenizer
from tokensurgeon.trainers.counting.weighted import WeightedText
from tokensurgeon.trainers.learners.learn import cutters, train_tokenizer
from tokensurgeon.trainers.mixture import Part, documents_of
from tokensurgeon.trainers.plan import Shape, make_plan
from tokensurgeon.trainers.training_methods import METHODS_BY_NAME

CONTROL = "<|endoftext|>"
STOCK = "stock trainer"
METHODS = (
    "bpe", "superbpe", "boundless", "supertoken", "mwt", "lzw", "pathpiece", "lib",
)  # fmt: skip


def one(train: str, held_out: list[str], size: int, method: str, encoder: str) -> None:
    """Train one vocabulary and print its figures as JSON."""
    started = time.perf_counter()
    if method == STOCK:
        from tokenizers import Tokenizer, models, pre_tokenizers, trainers

        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pretokenizer(pattern("cl100k", "left-3"))
        trainer = trainers.BpeTrainer(
            vocab_size=size,
            special_tokens=[CONTROL],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        training = (document.text for document, _ in documents_of(Part((train,)), "text"))
        tokenizer.train_from_iterator(training, trainer=trainer)
    else:
        shape = Shape(encoder=encoder)
        plan = make_plan(method, size, "cl100k", "left-3", shape, [CONTROL])
        documents = {"all": documents_of(Part((train,)), "text")}
        tokenizer = train_tokenizer(WeightedText(count_segments(documents, cutters(plan))), plan)
    seconds, peak = time.perf_counter() - started, peak_memory()
    texts = [document.text for document in read_documents(held_out)]
    n_bytes = sum(len(text.encode()) for text in texts)
    started = time.process_time()
    encoded = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    encoding = time.process_time() - started
    n_tokens = sum(len(text_encoding.ids) for text_encoding in encoded)
    print(
        json.dumps(
            {
                "bytes_per_token": n_bytes / n_tokens,
                "seconds": seconds,
                "peak": peak,
                "encoding": n_bytes / 1e6 / encoding,
            }
        )
    )


def main() -> int:
    """Run all, each in its own process."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("train")
    parser.add_argument("held_out", nargs="+")
    parser.add_argument("--size", type=int, default=32768)
    parser.add_argument("--only", nargs="+", default=[STOCK, *METHODS], help="methods")
    parser.add_argument("--encoder", help="run one alone, in this process")
    args = parser.parse_args()
    if args.encoder:
        one(args.train, args.held_out, args.size, args.only[0], args.encoder)
        return 0
    print("| method | encoder | bytes/token | × BPE, same encoder | × BPE merges | seconds |"
          " CPU-seconds | GiB | encoding MB/s |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|")
    plain: dict[str, float] = {}
    for method in args.only:
        encoders = ("bpe",) if method == STOCK else METHODS_BY_NAME[method].encoders
        for encoder in encoders:
            command = [sys.executable, __file__, args.train, *args.held_out, "--size",
                       str(args.size), "--encoder", encoder, "--only", method]  # fmt: skip
            printed, cost = run_measured(command)
            figures = json.loads(printed)
            rate = figures["bytes_per_token"]
            if method == "bpe":
                plain[encoder] = rate
            same = rate / plain[encoder] if encoder in plain else float("nan")
            merges = rate / plain["bpe"] if "bpe" in plain else float("nan")
            print(f"| {method} | {encoder} | {rate:.3f} | {same:.3f} | {merges:.3f} | "
                  f"{figures['seconds']:.0f} | {cost.cpu_seconds:.0f} | "
                  f"{figures['peak'] / 2**30:.1f} | "
                  f"{figures['encoding']:.2f} |", flush=True)  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
