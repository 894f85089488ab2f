"""Measure surgeries of real models as users run them: bits per byte, time and memory.

    export TOKENSURGEON_ASSETS=ASSETS
    python scripts/measure_real_pairs.py MODELS --state DIR [--only KEYS] [--sides tied,untied]
        [--methods default,subword-mean,omp-published] [--budget MINUTES] [--heal MINUTES]
        [--seeds 0,1,2] [--options "…"] [--bytes N] [--device NAME] [--keep] [--table] [-o FILE]

MODELS is the folder that `scripts/real_models.py` made; ASSETS holds `tokenizers/` and `corpora/`
of third parties. Four pairs:

==============  =====================================================  ===========
key             pair                                                   donor
==============  =====================================================  ===========
gemma-smollm2   Gemma-3-270M → SmolLM2's tokenizer                     SmolLM2
smollm2-llama3  SmolLM2-135M → Llama-3's 128,002 tokens                none
smollm2-gpt2    SmolLM2-135M → gpt2's tokens                           none
smollm2-gemma   SmolLM2-135M → Gemma's 262,144 tokens                  Gemma
==============  =====================================================  ===========

Each run is a `tokensurgeon transplant` and an `evaluate` of its result, each in a process of its
own. `default` names no method: it has the calibration text, the budget and the healing of the
options. A method that is named makes rows alone, without text. Every sixth article of
`wiki-articles.jsonl` is held out; whole ones of these are measured on while they fit into --bytes.
The others are the calibration text. Text of other kinds is measured on too, and never fitted to.

A run that is finished is a JSON file in the state folder, and is not run again. Checkpoints are
deleted when they are measured, unless --keep. --table runs nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from measure_pairs import NEEDS_A_DONOR
from measuring import run_measured
from real_texts import HELD_BYTES, OTHER, Texts, TextsError, write_texts
from results_pages import BASELINES

from tokensurgeon.report import words

ASSETS = "TOKENSURGEON_ASSETS"
DEFAULT = "default"
SIDES = ("tied", "untied")


@dataclass(frozen=True)
class RealPair:
    """A source and a target, of models or tokenizers; `donor` says that the target is a model."""

    title: str
    source: Path
    target: Path
    donor: bool


@dataclass(frozen=True)
class Run:
    """One surgery: its name tells it from all others of a state folder."""

    pair: str
    side: str
    method: str
    budget: float
    heal: float
    seed: int
    options: str
    device: str

    @property
    def name(self) -> str:
        """What its files are called."""
        words_of_name = [self.pair, self.side, self.method]
        if self.method == DEFAULT:
            words_of_name += [f"budget{self.budget:g}", f"heal{self.heal:g}", f"seed{self.seed}"]
            words_of_name += [word.strip("-") for word in shlex.split(self.options)]
        words_of_name += [] if self.device == "cpu" else [self.device]
        return "-".join(words_of_name).replace("/", "_")


def real_pairs(made: Path, assets: Path) -> dict[str, RealPair]:
    """Return the pairs by their keys."""
    gemma, smollm2 = made / "gemma3-270m", made / "smollm2-135m"
    llama3, gpt2 = (assets / "tokenizers" / name for name in ("llama3", "gpt2"))
    return {
        "gemma-smollm2": RealPair("Gemma-3-270M → SmolLM2's tokens, donor", gemma, smollm2, True),
        "smollm2-llama3": RealPair("SmolLM2-135M → Llama-3's tokens", smollm2, llama3, False),
        "smollm2-gpt2": RealPair("SmolLM2-135M → gpt2's tokens", smollm2, gpt2, False),
        "smollm2-gemma": RealPair("SmolLM2-135M → Gemma's tokens, donor", smollm2, gemma, True),
    }


# -- runs ----------------------------------------------------------------------------------------


def transplant_words(run: Run, pair: RealPair, texts: Texts, output: Path) -> list[str]:
    """Return the words of the surgery's command."""
    target = "--donor" if pair.donor else "--tokenizer"
    command = ["transplant", str(pair.source), target, str(pair.target), "-o", str(output)]
    if run.method == DEFAULT:
        command += ["--calibration-text", str(texts.fit), "--budget", f"{run.budget:g}"]
        command += ["--heal", f"{run.heal:g}"] if run.heal else []
        command += shlex.split(run.options)
    else:
        command += ["--init", run.method, "--calibrate", "none"]
    command += ["--seed", str(run.seed), "--device", run.device]
    return command if run.side == "tied" else [*command, "--untie"]


def tokensurgeon(command: Sequence[str], log: Path) -> tuple[Any, dict[str, float]]:
    """Run a command of tokensurgeon; return the JSON that it printed, and its cost."""
    output, cost = run_measured([sys.executable, "-m", "tokensurgeon", *command, "--json"], log)
    return json.loads(output), asdict(cost)


def evaluate(run: Run, pair: RealPair, checkpoint: Path, texts: Texts, state: Path) -> Any:
    """Measure a checkpoint and its source on the held-out articles and on text of other kinds."""
    log = log_file(run, state)

    def measured(folder: Path, text: Path, *more: str) -> Any:
        command = ["evaluate", str(folder), str(text), *more, "--device", run.device]
        return tokensurgeon(command, log)[0]

    other = {}
    for name, text in texts.other.items():
        of_source = state / "sources" / f"{pair.source.name}-{name}.json"
        if not of_source.exists():
            save(of_source, measured(pair.source, text))
        first = json.loads(of_source.read_text("utf-8"))["entries"][0]
        last = measured(checkpoint, text)["entries"][0]
        other[name] = {"source": first["bits_per_byte"], "result": last["bits_per_byte"]}
    return {"held": measured(checkpoint, texts.held, "--against", str(pair.source)), "other": other}


def save(file: Path, content: Any) -> None:
    """Write JSON at once or not at all: a file that is there is whole."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".part")
    partial.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    partial.rename(file)


def run_file(run: Run, state: Path) -> Path:
    """Return where a run's record is kept."""
    return state / "runs" / f"{run.name}.json"


def log_file(run: Run, state: Path) -> Path:
    """Return where a run's commands write what they say on the way."""
    return state / "logs" / f"{run.name}.log"


def measure(
    run: Run, pair: RealPair, texts: Texts, state: Path, *, keep: bool = False
) -> dict[str, Any]:
    """Run and measure one surgery, or read what was measured before.

    Raises
    ------
    subprocess.CalledProcessError
        If a command fails; nothing of the run is kept but its log.
    """
    file, log = run_file(run, state), log_file(run, state)
    if file.exists():
        record: dict[str, Any] = json.loads(file.read_text("utf-8"))
        return record
    output = state / "checkpoints" / run.name
    for folder in (output.parent, log.parent):
        folder.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(output, ignore_errors=True)
    log.unlink(missing_ok=True)
    try:
        report, cost = tokensurgeon(transplant_words(run, pair, texts, output), log)
        figures = evaluate(run, pair, output, texts, state)
    finally:
        if not keep:
            shutil.rmtree(output, ignore_errors=True)
    machine = {"cores": os.cpu_count(), "threads": os.environ.get("OMP_NUM_THREADS")}
    record = {"run": asdict(run), **machine, "cost": cost, **figures, "report": report}
    save(file, record)
    return record


def planned(arguments: argparse.Namespace) -> Iterator[Run]:
    """Yield the runs that the options ask for."""
    for key in arguments.only:
        for side in arguments.sides:
            for method in arguments.methods:
                # Rows of methods that are named do not depend on a seed here.
                for seed in arguments.seeds if method == DEFAULT else [0]:
                    yield Run(
                        key,
                        side,
                        method,
                        arguments.budget,
                        arguments.heal,
                        seed,
                        arguments.options,
                        arguments.device,
                    )


# -- the table -----------------------------------------------------------------------------------


def entries(record: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what was measured of the source and of the result, on the held-out articles."""
    source, result = record["held"]["entries"]
    return source, result


def gap(record: dict[str, Any]) -> float:
    """Return how many bits per byte the result lost."""
    return float(entries(record)[1]["difference"]["estimate"])


def table(records: Sequence[dict[str, Any]], titles: dict[str, str]) -> str:
    """Return the runs as a Markdown table; `left` is the share of the better baseline's gap."""
    heading = ["pair", "matrices", "method", "minutes given", "seed", "bits per byte", "gap"]
    heading += ["95 % interval", "left", *(f"{name}, gap" for name in OTHER)]
    heading += ["minutes", "CPU minutes", "GiB"]
    lines = ["| " + " | ".join(heading) + " |", "|---" * len(heading) + "|"]
    for record in records:
        run = Run(**record["run"])
        best = min(
            (
                gap(other)
                for other in records
                if other["run"]["method"] in BASELINES
                and (other["run"]["pair"], other["run"]["side"]) == (run.pair, run.side)
            ),
            default=None,
        )
        is_default = run.method == DEFAULT
        given = f"{run.budget:g}" + (f" + {run.heal:g} healing" if run.heal else "")
        source, result = entries(record)
        low_high = result["difference"]
        cells = [
            titles[run.pair],
            run.side,
            " ".join(filter(None, [run.method, run.options])) if is_default else f"`{run.method}`",
            given if is_default else "–",
            str(run.seed) if is_default else "–",
            f"{source['bits_per_byte']:.3f} → {result['bits_per_byte']:.3f}",
            words.number(gap(record), 3, sign=True),
            f"{low_high['low']:+.3f} … {low_high['high']:+.3f}",
            words.number(gap(record) / best if best else None, 2),
            *(
                words.number(figures["result"] - figures["source"], 3, sign=True)
                for figures in record["other"].values()
            ),
            words.number(record["cost"]["seconds"] / 60, 1),
            words.number(record["cost"]["cpu_seconds"] / 60, 1),
            words.number(record["cost"]["peak_bytes"] / 2**30, 1),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


# -- the command ---------------------------------------------------------------------------------


def listed(text: str) -> list[str]:
    """Return what stands between commas."""
    return [part for part in text.split(",") if part]


def say(what: str) -> None:
    """Print a line of progress."""
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)


def last_line(log: Path) -> str:
    """Return the last line of a log."""
    return ["", *log.read_text("utf-8", errors="replace").strip().splitlines()][-1]


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    keys = list(real_pairs(Path(), Path()))
    parser.add_argument("models", type=Path)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--only", type=listed, default=keys, help="keys of pairs")
    parser.add_argument("--sides", type=listed, default=list(SIDES))
    parser.add_argument("--methods", type=listed, default=[*BASELINES, DEFAULT])
    parser.add_argument("--budget", type=float, default=10.0)
    parser.add_argument("--heal", type=float, default=0.0)
    parser.add_argument("--seeds", type=lambda text: [int(n) for n in listed(text)], default=[0])
    parser.add_argument("--options", default="", help="more of transplant, for the default")
    parser.add_argument("--bytes", type=int, default=HELD_BYTES, help="of held-out articles")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--keep", action="store_true", help="the checkpoints")
    parser.add_argument("--table", action="store_true", help="only show what is measured already")
    parser.add_argument("-o", "--output", type=Path, help="a file for the table")
    arguments = parser.parse_args()
    for name, known in (("only", keys), ("sides", SIDES)):
        for one in getattr(arguments, name):
            if one not in known:
                parser.error(f"--{name}: {one!r} is not one of {', '.join(known)}")
    return arguments


def main() -> int:
    """Measure what is not measured yet, and print the table of the runs that were asked for."""
    arguments = parse()
    assets = os.environ.get(ASSETS)
    if not assets:
        print(f"error: {ASSETS} names no folder; set it to the tokenizers and texts of third "
              "parties", file=sys.stderr)  # fmt: skip
        return 1
    pairs = real_pairs(arguments.models, Path(assets))
    try:
        texts = write_texts(Path(assets), arguments.state, arguments.bytes)
    except TextsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    records, failed = [], 0
    for run in planned(arguments):
        pair = pairs[run.pair]
        if run.method in NEEDS_A_DONOR and not pair.donor:
            continue
        if arguments.table and not run_file(run, arguments.state).exists():
            continue
        say(run.name)
        try:
            record = measure(run, pair, texts, arguments.state, keep=arguments.keep)
        except subprocess.CalledProcessError as error:
            failed += 1
            log = log_file(run, arguments.state)
            say(f"{run.name}: ended with {error.returncode}: {last_line(log)} (see {log})")
            continue
        records.append(record)
        say(f"{run.name}: {gap(record):+.3f} in {record['cost']['seconds'] / 60:.1f} minutes")
    text = table(records, {key: pair.title for key, pair in pairs.items()})
    print(text)
    if arguments.output:
        arguments.output.write_text(text + "\n", "utf-8")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
