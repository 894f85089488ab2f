#!/usr/bin/env python3
"""Count and train on text that grows: time, and the peak memory of all processes together.

    python scripts/bench_counting.py [--gigabytes 0.1] [--memory-gib 1,2,4] [--method superbpe]
        [--size 64000] [--processes 1,2] [--stock] [--folder DIR]
    python scripts/bench_counting.py --growth FILE…

The text is made of that of the package: a document at a time, each word replaced in one case of
ten by one that is made up. So many of these are new that the distinct ones are 20,000 times the
0.65th power of the megabytes, as the distinct words of encyclopedia articles are (Heaps' law); the
others are made-up words seen before, of frequencies that fall as one over their rank. Runs of words
are new wherever a rare word is in them, some 7,000 a megabyte, as in those articles. The same seed
makes the same text. `--growth` prints how the distinct words and runs of text grow.

Each line is one command in a process of its own. Processor seconds are those of all its processes;
of wall-clock seconds a busy machine takes more. Peak memory is the sum of the proportional shares
(PSS) of its process and all children, looked at twenty times a second, and more seldom where
looking takes long; Linux only. The text is made once in a folder. `--stock` trains the plain BPE of
the tokenizers library from an iterator over the same text beside.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from tokensurgeon.text.corpus import read_documents
from tokensurgeon.trainers.corpus_counts import tables_for
from tokensurgeon.trainers.plan import Plan

TEXTS = Path(__file__).parent.parent / "tokensurgeon" / "data" / "text"
REPLACED, LETTERS = 0.1, "etaoinshrdlucmfw"
WORDS, EXPONENT = 20_000, 0.65
"""Distinct words in a megabyte, and how they grow with more."""
EVERY, LOOKING = 0.05, 0.02
"""Seconds between two looks at the memory, and the share of the time that looking may take: in a
process of gigabytes it takes long, and holds the process up."""
STOCK = """
import json, sys
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
tokenizer = Tokenizer(models.BPE())
tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
texts = (json.loads(line)["text"] for line in open(sys.argv[1], encoding="utf-8"))
trainer = trainers.BpeTrainer(vocab_size=int(sys.argv[2]), show_progress=False)
tokenizer.train_from_iterator(texts, trainer)
"""


def made_up(number: int) -> str:
    """Return a word for a number."""
    word = ""
    while number:
        number, letter = divmod(number, len(LETTERS))
        word += LETTERS[letter]
    return word


def documents(n_bytes: int, seed: int = 0) -> Iterator[str]:
    """Yield documents of about so many bytes in all."""
    sources = []
    for document in read_documents(sorted(TEXTS.glob("*.jsonl"))):
        words = document.text.split(" ")
        sources.append((words, np.flatnonzero([word.isalpha() for word in words])))
    draw, done, known = np.random.default_rng(seed), 0, 1
    while done < n_bytes:
        source, at = sources[draw.integers(len(sources))]
        words = list(source)
        replaced = draw.permutation(at[draw.random(len(at)) < REPLACED])
        numbers = np.exp(draw.random(len(replaced)) * np.log(known)).astype(np.int64)
        n_new = min(len(replaced), int(WORDS * (done / 1e6) ** EXPONENT) - known)
        if n_new > 0:
            numbers[:n_new] = np.arange(known, known + n_new)
            known += n_new
        for place, number in zip(replaced.tolist(), numbers.tolist(), strict=True):
            words[place] = made_up(number)
        text = " ".join(words)
        done += len(text.encode())
        yield text


def growth(texts: Iterable[str], name: str) -> None:
    """Print how many words and runs are distinct, and with which power of the text they grow.

    From an eighth of the text to all of it; its lines are shuffled.
    """
    texts = [line for text in texts for line in text.splitlines(keepends=True)]
    np.random.default_rng(0).shuffle(texts)
    cutters = tables_for(["superbpe"], Plan("bpe", 0))
    total, done = sum(len(text.encode()) for text in texts), 0
    marks: list[tuple[int, list[int]]] = []
    found: dict[str, set[str]] = {table: set() for table in cutters}
    for text in texts:
        done += len(text.encode())
        for table, cutter in cutters.items():
            found[table].update(cutter.cut(text))
        if done >= total / 2 ** (3 - len(marks)):
            marks.append((done, [len(distinct) for distinct in found.values()]))
    for number, table in enumerate(found):
        (first, few), (last, many) = ((n, counts[number]) for n, counts in (marks[0], marks[-1]))
        exponent = np.log(many / few) / np.log(last / first)
        print(f"{name}: {many:,} {table} in {last / 1e6:.2f} MB, exponent {exponent:.2f}")


def peak_of(command: list[str]) -> tuple[float, float, int]:
    """Run a command; return its seconds, those of processors, and its peak memory in bytes.

    Of it and its children.
    """
    before, started, peak = _processor_seconds(), time.perf_counter(), 0
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        looked = time.perf_counter()
        peak = max(peak, sum(map(_share, _tree(process.pid))))
        time.sleep(max(EVERY, (time.perf_counter() - looked) / LOOKING))
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return time.perf_counter() - started, _processor_seconds() - before, peak


def _processor_seconds() -> float:
    """Return the seconds of all children that have ended, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _tree(pid: int) -> list[int]:
    """Return a process and all below it."""
    found, left = [], [pid]
    while left:
        one = left.pop()
        found.append(one)
        try:
            for task in Path(f"/proc/{one}/task").iterdir():
                left += map(int, (task / "children").read_text().split())
        except OSError:
            continue  # it ended meanwhile
    return found


def _share(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return 1024 * int(line.split()[1])
    except OSError:
        pass
    return 0


def main() -> None:
    """Print a line for each command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--gigabytes", type=float, default=0.02)
    parser.add_argument("--memory-gib", default="1")
    parser.add_argument("--processes", default=str(os.cpu_count()))
    parser.add_argument("--method", default="superbpe")
    parser.add_argument("--size", type=int, default=8_000)
    parser.add_argument("--stock", action="store_true")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--growth", nargs="+", type=Path, metavar="FILE")
    given = parser.parse_args()
    for path in given.growth or ():
        growth((document.text for document in read_documents([path])), path.name)
    if given.growth:
        return
    folder = given.folder or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    text = folder / f"text-{given.gigabytes:g}.jsonl"
    if not text.exists():
        with text.open("w", encoding="utf-8") as file:
            for document in documents(int(given.gigabytes * 1e9)):
                file.write(json.dumps({"text": document}, ensure_ascii=False) + "\n")
    ours = [sys.executable, "-m", "tokensurgeon", "-q"]
    print(f"{text.stat().st_size / 1e9:.2f} GB, {given.method}, {given.size:,} tokens")
    print(f"{'command':44} {'seconds':>8} {'processor':>10} {'peak, GiB':>10}")
    for processes in given.processes.split(","):
        for memory in given.memory_gib.split(","):
            counts = folder / "counts"
            command = [
                *ours,
                "count",
                str(text),
                "-o",
                str(counts),
                "--for",
                given.method,
                "--force",
            ]
            command += ["--memory-gib", memory, "--processes", processes]
            _line(f"count, {processes} processes, {memory} GiB", *peak_of(command))
    facts = json.loads((counts / "counts.json").read_text())
    for name, table in facts["tables"].items():
        print(f"  {sum(table['rows']):,} distinct {name}, {sum(table['occurrences']):,} in all")
    command = [
        *ours,
        "train",
        given.method,
        "--from-counts",
        str(counts),
        "--size",
        str(given.size),
    ]
    command += ["-o", str(folder / "vocabulary"), "--force", "--memory-gib", memory]
    _line(f"train from the counts, {memory} GiB", *peak_of(command))
    if given.stock:
        command = [sys.executable, "-c", STOCK, str(text), str(given.size)]
        _line("the stock BPE trainer, from an iterator", *peak_of(command))
    if given.folder is None:
        shutil.rmtree(folder)


def _line(what: str, seconds: float, processor: float, peak: int) -> None:
    print(f"{what:44} {seconds:8.1f} {processor:10.1f} {peak / 2**30:10.2f}", flush=True)


if __name__ == "__main__":
    main()
