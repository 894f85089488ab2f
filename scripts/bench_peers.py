#!/usr/bin/env python3
"""Run this project beside its peers on the same inputs, in turns, and print ratios.

    python scripts/bench_peers.py [--quick] [--only PART ...] [--peers FOLDER] [--json]
    python scripts/bench_peers.py --source MODEL --donor MODEL --fit FILE --text FILE

| part | ours | beside it |
|---|---|---|
| omp | the matching pursuit of `omp` on seeded noise | mergekit's solver |
| patching | `transplant --init omp-published`, whole | mergekit-tokensurgeon, `--k 64`, whole |
| focus | `transplant --init focus`, whole | deepfocus, both matrices, with loading and writing |
| alignment | reading two tokenizers, aligning them | deepfocus reading them, finding overlaps |
| evaluation | `evaluate`, a random model of SmolLM2-135M's shape | its bare forward passes |
| vocabulary | `train bpe`, whole | the trainer of the tokenizers library; SentencePiece's BPE |

Figures are medians over the turns, of processor seconds (user and system, child processes among
them), since others may use the machine as well. A ratio is theirs over ours: above 1, ours takes
less. Peers that are no dependency of this project are installed from the package registry into
environments of their own, once, below `--peers`. With `--text` the checkpoints of `patching` and
`focus` are measured too, in bits per byte. `--quick` takes small inputs and one turn: minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bench_counting
import bench_omp
from measuring import Cost, documents_file, in_turns, machine, measured, run_measured
from peers import FOCUS, OVERLAP, environment_of, peer_settings

from tokensurgeon.progress import peak_memory

DATA = Path(__file__).parent.parent / "tokensurgeon" / "data"
PACKAGES = ("tokensurgeon", "torch", "transformers", "tokenizers", "sentencepiece")
SMOLLM2: dict[str, Any] = {
    "vocab_size": 49_152,
    "hidden_size": 576,
    "intermediate_size": 1_536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 8_192,
    "tie_word_embeddings": True,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
"""The shape of SmolLM2-135M; what its weights are costs nothing."""
SENTENCEPIECE = """
import json, sys
import sentencepiece
texts = (json.loads(line)["text"] for line in open(sys.argv[1], encoding="utf-8"))
lines = (line for text in texts for line in text.splitlines())
sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=lines, model_prefix=sys.argv[3], vocab_size=int(sys.argv[2]),
    model_type="bpe", byte_fallback=True, character_coverage=1.0, hard_vocab_limit=False,
    num_threads=int(sys.argv[4]), minloglevel=2,
)
"""
Line = dict[str, Any]


def line(part: str, peer: str, ours: Cost, theirs: Cost, **more: Any) -> Line:
    """Return one comparison."""
    return {
        "part": part,
        "peer": peer,
        "ours_cpu_seconds": round(ours.cpu_seconds, 2),
        "theirs_cpu_seconds": round(theirs.cpu_seconds, 2),
        "ratio": round(theirs.cpu_seconds / ours.cpu_seconds, 2),
        "ours_peak_gib": _peak(ours),
        "theirs_peak_gib": _peak(theirs),
        **more,
    }


def _peak(cost: Cost) -> float | None:
    """Return a peak of memory in GiB; None where it may be that of this process."""
    return round(cost.peak_bytes / 2**30, 2) if cost.peak_bytes > peak_memory() else None


class Bench:
    """The inputs, and a method for each part."""

    def __init__(self, asked: argparse.Namespace, scratch: Path) -> None:
        self.asked, self.scratch = asked, scratch
        self.log = scratch / "stderr.log"
        self.environment = peer_settings(scratch, asked.threads)

    def peer(self, name: str) -> str:
        """Return the Python of a peer's environment."""
        return str(environment_of(self.asked.peers, name))

    def ours(self, *arguments: object) -> Callable[[], Cost]:
        """Return a run of our command line."""
        command = [sys.executable, "-m", "tokensurgeon", "-q", *map(str, arguments)]
        return lambda: run_measured(command, self.log)[1]

    def theirs(self, *command: object, clear: Path | None = None) -> Callable[[], Cost]:
        """Return a run of a peer; what it wrote the last time goes first."""

        def run() -> Cost:
            if clear is not None:
                shutil.rmtree(clear, ignore_errors=True)
            return run_measured([*map(str, command)], self.log, self.environment)[1]

        return run

    def gap(self, folder: Path) -> float | None:
        """Return how far a checkpoint is above its source on the text, in bits per byte."""
        if self.asked.text is None:
            return None
        command = [sys.executable, "-m", "tokensurgeon", "-q", "evaluate", str(folder)]
        command += [str(self.asked.text), "--against", str(self.asked.source), "--json"]
        entries = json.loads(run_measured(command, self.log)[0])["entries"]
        source, patched = (entry["bits_per_byte"] for entry in entries)
        return round(float(patched - source), 4)

    def omp(self) -> Iterator[Line]:
        """Both solvers on the same rows, in turns."""
        asked = argparse.Namespace(
            tokens=64 if self.asked.quick else 512,
            turns=self.asked.turns,
            peer=self.peer("mergekit"),
            threads=self.asked.threads,
            device="cpu",
            exact=False,
        )
        for size in bench_omp.SIZES[: 1 if self.asked.quick else None]:
            ours, theirs = bench_omp.measure(size, asked)
            costs = [
                Cost(0.0, asked.tokens / one["tokens_per_cpu_second"], 0) for one in (ours, theirs)
            ]
            yield line(
                f"omp, {size}",
                theirs["solver"],
                *costs,
                residuals=[round(one["mean_residual"], 4) for one in (ours, theirs)],
            )

    def patching(self) -> Iterator[Line]:
        """Whole commands that write a checkpoint by matching pursuit with k = 64."""
        ours, theirs = self.scratch / "ours", self.scratch / "theirs"
        program = Path(self.peer("mergekit")).parent / "mergekit-tokensurgeon"
        source, donor = self.asked.source, self.asked.donor
        works = {
            "ours": self.ours(
                "transplant", source, "--donor", donor, "--init", "omp-published",
                "-o", ours, "--force",
            ),
            "theirs": self.theirs(
                program, source, donor, theirs, "--k", 64, "--approximation-method", "omp",
                clear=theirs,
            ),
        }  # fmt: skip
        costs = in_turns(works, self.asked.turns)
        gaps = [self.gap(ours), self.gap(theirs)]
        yield line("patching", "mergekit-tokensurgeon", costs["ours"], costs["theirs"], gaps=gaps)

    def focus(self) -> Iterator[Line]:
        """Whole commands that write a checkpoint by FOCUS, from the same text."""
        ours, theirs, fit = self.scratch / "ours-focus", self.scratch / "focus", self.asked.fit
        source, donor = self.asked.source, self.asked.donor
        works = {
            "ours": self.ours(
                "transplant", source, "--tokenizer", donor, "--init", "focus",
                "--calibration-text", fit, "-o", ours, "--force",
            ),
            "theirs": self.theirs(
                self.peer("deepfocus"), "-c", FOCUS, source, donor, fit, theirs, clear=theirs
            ),
        }  # fmt: skip
        costs = in_turns(works, self.asked.turns)
        gaps = [self.gap(ours), self.gap(theirs)]
        yield line("focus", "deepfocus", costs["ours"], costs["theirs"], gaps=gaps)

    def alignment(self) -> Iterator[Line]:
        """Two tokenizers read and aligned, by both once before what is timed."""
        from tokensurgeon.alignment import align
        from tokensurgeon.vocabulary import load_vocabulary

        shared: dict[str, int] = {}

        def ours() -> None:
            source, donor = map(load_vocabulary, (self.asked.source, self.asked.donor))
            shared["ours"] = len(align(source, donor).shared)

        def theirs() -> Cost:
            command = [self.peer("deepfocus"), "-c", OVERLAP]
            command += [str(self.asked.source), str(self.asked.donor)]
            told = json.loads(run_measured(command, self.log, self.environment)[0])
            shared["theirs"] = told["shared"]
            return Cost(told["wall"], told["cpu"], 0)

        ours()
        costs = in_turns({"ours": lambda: measured(ours), "theirs": theirs}, self.asked.turns)
        yield line("alignment", "deepfocus", costs["ours"], costs["theirs"], shared=shared)

    def evaluation(self) -> Iterator[Line]:
        """All that `evaluate` does to a text beside the forward passes that it cannot do without.

        The passes are of the same chunks, one at a time, shortest first, up to the logits.
        """
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM

        from tokensurgeon.evaluation import Entry, evaluate
        from tokensurgeon.models import load_model
        from tokensurgeon.text.encoding import fitting_chunks, prefix_of
        from tokensurgeon.vocabulary import load_vocabulary

        torch.manual_seed(0)
        folder = self.scratch / "smollm2"
        LlamaForCausalLM(LlamaConfig(**SMOLLM2)).save_pretrained(folder)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(DATA / "source" / name, folder)
        model, vocabulary = load_model(folder), load_vocabulary(folder)
        n_bytes = 4_000 if self.asked.quick else 40_000
        texts = _text(n_bytes)
        chunks, encoded, fits = fitting_chunks(vocabulary, texts, model.max_positions)
        prefix = prefix_of(vocabulary)
        sequences = sorted(([*prefix, *ids] for ids in encoded.ids), key=len)
        assert fits.all()

        def bare() -> None:
            with torch.inference_mode():
                for sequence in sequences:
                    model.model(input_ids=torch.tensor([sequence]), use_cache=False)

        def ours() -> None:
            result = evaluate([Entry("model", model, vocabulary)], texts, max_bytes=None)
            assert result.entries[0].n_tokens == sum(map(len, encoded.ids))

        bare()  # first calls are slower
        works = {"ours": lambda: measured(ours), "theirs": lambda: measured(bare)}
        costs = in_turns(works, self.asked.turns)
        yield line(
            "evaluation", "forward passes", costs["ours"], costs["theirs"], chunks=len(chunks)
        )

    def vocabulary(self) -> Iterator[Line]:
        """One text, one number of tokens, three trainers."""
        size = 4_000 if self.asked.quick else 32_000
        text = documents_file(
            self.scratch / "text.jsonl",
            bench_counting.documents(int(2e6 if self.asked.quick else 2e7)),
        )
        output = self.scratch / "vocabulary"
        settings = [sys.executable, "-c"]
        works = {
            "ours": self.ours("train", "bpe", text, "--size", size, "-o", output, "--force"),
            "tokenizers": self.theirs(*settings, bench_counting.STOCK, text, size),
            "sentencepiece": self.theirs(
                *settings, SENTENCEPIECE, text, size, self.scratch / "pieces", self.asked.threads
            ),
        }
        costs = in_turns(works, self.asked.turns)
        for peer in ("tokenizers", "sentencepiece"):
            yield line(f"vocabulary, {size:,} tokens", peer, costs["ours"], costs[peer])


def _text(n_bytes: int) -> list[str]:
    """Return the first documents that ship, up to so many bytes; the last is cut."""
    from tokensurgeon.text.corpus import read_documents

    texts: list[str] = []
    for document in read_documents([DATA / "text" / "evaluation.jsonl"]):
        if n_bytes <= 0:
            break
        texts.append(document.text.encode()[:n_bytes].decode("utf-8", "ignore"))
        n_bytes -= len(texts[-1].encode())
    return texts


PARTS = ("omp", "patching", "focus", "alignment", "evaluation", "vocabulary")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="small inputs, one turn")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART")
    parser.add_argument("--peers", type=Path, default=Path("build/peers"), metavar="FOLDER")
    parser.add_argument("--source", type=Path, default=DATA / "source")
    parser.add_argument("--donor", type=Path, default=DATA / "donor")
    parser.add_argument("--fit", type=Path, default=DATA / "text" / "calibration.jsonl")
    parser.add_argument("--text", type=Path, help="measure the checkpoints on it")
    parser.add_argument("--turns", type=int, help="runs of each: 3, or 1 with --quick")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    asked.turns = asked.turns or (1 if asked.quick else 3)
    asked.peers = asked.peers.absolute()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(asked.threads)

    import torch

    torch.set_num_threads(asked.threads)
    started, before = time.perf_counter(), machine(PACKAGES)
    lines: list[Line] = []
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(asked, Path(scratch))
        if not asked.json:
            print(f"{'part':26} {'peer':22} {'ours, s':>8} {'theirs, s':>9} {'ratio':>6}")
        for part in asked.only:
            for one in getattr(bench, part)():
                lines.append(one)
                if not asked.json:
                    _print(one)
    facts = {**before, "load_after": machine()["load"]}
    if asked.json:
        print(json.dumps({"machine": facts, "turns": asked.turns, "lines": lines}, indent=1))
        return
    versions = ", ".join(f"{name} {one}" for name, one in facts["versions"].items())
    print(
        f"\n{facts['processor']}, {facts['cores']} cores, {facts['memory_gib']} GiB; load "
        f"{facts['load']} before and {facts['load_after']} after; {asked.threads} thread(s), "
        f"medians of {asked.turns}; {versions}; {time.perf_counter() - started:.0f} s in all"
    )


def _print(one: Line) -> None:
    known = ("part", "peer", "ours_cpu_seconds", "theirs_cpu_seconds", "ratio")
    rest = {key: value for key, value in one.items() if key not in known}
    print(
        f"{one['part']:26} {one['peer']:22} {one['ours_cpu_seconds']:8.2f} "
        f"{one['theirs_cpu_seconds']:9.2f} {one['ratio']:6.2f}  "
        + ", ".join(f"{key} {value}" for key, value in rest.items() if value is not None),
        flush=True,
    )


if __name__ == "__main__":
    main()
