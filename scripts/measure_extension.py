"""Measure an extended model beside what is often done: append tokens of a second tokenizer.

    python scripts/measure_extension.py MODEL --text FILE --held-out FILE [--elsewhere FILE]
        --state DIR [--add N] [--budget MINUTES] [--heal MINUTES] [--bytes N] [--only NAMES]
        [-o FILE]

Both learn N tokens from the same text and leave the old ones where they are:

- *appended*: a second BPE is trained on the text, with N tokens that the model does not have. They
  go to the model's tokenizer as added tokens (`tokenizer.add_tokens`), most frequent first, and get
  the mean of their pieces' rows.
- *extended*: the model's own merges go on (`tokensurgeon extend`). Rows are the same means; or
  chosen and calibrated with old rows as they were; the same with old rows free; or the means, and
  then the new rows alone trained for some processor minutes.

Both are measured on excerpts of the held-out documents that share no 13 words in a row with the
text, and on excerpts of text of another kind. The use of the new tokens is counted on all held-out
documents. What is finished is a JSON file in the state folder, and is not run again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from measuring import documents_file

from tokensurgeon import evaluate, transplant
from tokensurgeon.inspection.extension import measure_extension
from tokensurgeon.text.corpus import read_documents
from tokensurgeon.text.overlap import overlapping
from tokensurgeon.trainers import extend_vocabulary, train_vocabulary
from tokensurgeon.vocabulary import load_vocabulary

EXCERPT = 1_200
"""Characters of a document that are measured on: many documents rather than long ones."""
MEAN = {"input": "subword-mean", "output": "subword-mean"}


@dataclass(frozen=True)
class Variant:
    """One way to give a model new tokens."""

    title: str
    vocabulary: str
    settings: dict[str, Any]


def variants(budget: float, heal: float) -> dict[str, Variant]:
    """Return the ways, by name."""
    mean = {"init": MEAN, "budget": 0}
    fitted = {"budget": budget, "keep_shared": True}
    free = {**fitted, "keep_shared": False}
    return {
        "appended": Variant("appended, `subword-mean`", "appended", mean),
        "extended": Variant("extended, `subword-mean`", "extended", mean),
        "calibrated": Variant("extended, calibrated, old rows kept", "extended", fitted),
        "all-rows": Variant("extended, calibrated, old rows free", "extended", free),
        "trained": Variant(
            f"extended, `subword-mean`, new rows trained {heal:g} min",
            "extended",
            # Training counts processor time, the budget the clock: room for a busy machine.
            {"init": MEAN, "heal": heal, "budget": budget + 10 * heal, "keep_shared": True},
        ),
    }


def append_tokens(model: Path, text: Sequence[str], add: int, folder: Path) -> Path:
    """Append the most frequent tokens of a second tokenizer that the model's does not have."""
    from transformers import AutoTokenizer

    known = {data for data in load_vocabulary(model).token_bytes if data}
    size = 2 * add
    while True:
        second = train_vocabulary(text, method="bpe", size=size).tokenizer
        spelled = (second.decode([i]) for i in range(1, second.get_vocab_size()))
        new = [t for t in spelled if t and "\ufffd" not in t and t.encode() not in known]
        if len(new) >= add:
            break
        size += add - len(new)
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.add_tokens(new[:add])
    tokenizer.save_pretrained(folder)
    return folder


def excerpts(files: Sequence[str], seen: Sequence[str], n_bytes: int, path: Path) -> Path:
    """Write the beginnings of evenly spaced documents that share nothing long with `seen`."""
    texts = [document.text for document in read_documents(files)]
    refused = set(overlapping(texts, seen))
    fresh = [text for i, text in enumerate(texts) if i not in refused]
    step = max(1, len(fresh) * EXCERPT // n_bytes)
    return documents_file(path, (text[:EXCERPT] for text in fresh[::step]))


def kept(path: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what a file holds, or what is made now and kept there."""
    if not path.exists():
        path.write_text(json.dumps(make(), indent=2), "utf-8")
    facts: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return facts


def bits(model: Path, texts: dict[str, Path], n_bytes: int) -> dict[str, float | None]:
    """Return bits per byte on each text."""
    return {
        name: evaluate(model, [file], max_bytes=n_bytes, allow_seen_text=True)
        .entries[0]
        .bits_per_byte
        for name, file in texts.items()
    }


def main() -> None:
    """Run what is not there yet, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("model", type=Path)
    for name in ("text", "held-out", "elsewhere"):
        parser.add_argument(f"--{name}", nargs="+", default=[], required=name != "elsewhere")
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--add", type=int, default=4_000)
    parser.add_argument("--budget", type=float, default=10.0)
    parser.add_argument("--heal", type=float, default=5.0)
    parser.add_argument("--bytes", type=int, default=30_000)
    parser.add_argument("--only", default="")
    parser.add_argument("-o", "--output", type=Path)
    given = parser.parse_args()
    state: Path = given.state
    state.mkdir(parents=True, exist_ok=True)
    seen = [document.text for document in read_documents(given.text)]
    texts = {"held out": excerpts(given.held_out, seen, given.bytes, state / "held-out.jsonl")}
    if given.elsewhere:
        texts["elsewhere"] = excerpts(given.elsewhere, seen, given.bytes, state / "elsewhere.jsonl")
    folders = {name: state / name for name in ("appended", "extended")}
    if not folders["appended"].exists():
        append_tokens(given.model, given.text, given.add, folders["appended"])
    if not folders["extended"].exists():
        extend_vocabulary(
            given.model,
            given.text,
            add=given.add,
            never_longer=True,
            held_out=given.held_out,
            output=folders["extended"],
        )
    documents = [document.text for document in read_documents(given.held_out)]
    before = load_vocabulary(given.model)

    def use(name: str) -> dict[str, Any]:
        return measure_extension(before, load_vocabulary(folders[name]), documents).to_dict()

    uses = {name: kept(state / f"{name}.use.json", partial(use, name)) for name in folders}
    lines = [
        source_line(
            kept(state / "source.json", lambda: bits(given.model, texts, given.bytes)), uses
        )
    ]
    every = variants(given.budget, given.heal)
    for name in given.only.split(",") if given.only else every:
        variant = every[name]

        def measured(variant: Variant = variant) -> dict[str, Any]:
            output = state / "model"
            shutil.rmtree(output, ignore_errors=True)
            result = transplant(
                source=str(given.model),
                tokenizer=str(folders[variant.vocabulary]),
                output=str(output),
                text={"calibration": given.text},
                baselines=(),
                **variant.settings,
            )
            stages = [
                {"stage": s.stage, "kept": s.kept, "why": s.why} for s in result.report.stages
            ]
            facts = bits(output, texts, given.bytes)
            shutil.rmtree(output)
            return {**facts, "stages": stages, "timings": result.report.timings}

        facts = kept(state / f"{name}.json", measured)
        lines.append(line(variant.title, facts, uses[variant.vocabulary]))
        print(f"{name} is measured", file=sys.stderr)
    page = "\n".join([*table_head(texts), *lines]) + "\n"
    print(page, end="")
    if given.output:
        given.output.write_text(page, "utf-8")


def table_head(texts: dict[str, Path]) -> list[str]:
    """Return the head of the table."""
    columns = ["", "bytes per token", "tokens saved", "new tokens used", "unreachable", "longer"]
    columns += [f"bits per byte, {name}" for name in ("held out", "elsewhere")]
    return [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]


def source_line(facts: dict[str, Any], uses: dict[str, Any]) -> str:
    """Return the line of the model as it is."""
    per_token = uses["extended"]["bytes_per_token_before"]
    return cells("as it is", f"{per_token:.3f}", "", "", "", "", *figures(facts))


def line(title: str, facts: dict[str, Any], use: dict[str, Any]) -> str:
    """Return the line of a variant."""
    return cells(
        title,
        f"{use['bytes_per_token']:.3f}",
        f"{use['tokens_saved']:.1%}",
        f"{use['used']:,} of {use['added']:,}",
        f"{use['unreachable']:,} ({use['unreachable'] / use['added']:.1%})",
        f"{use['longer']:,} of {use['documents']:,} documents",
        *figures(facts),
    )


def figures(facts: dict[str, Any]) -> list[str]:
    """Return bits per byte on both texts."""
    return [
        "–" if facts.get(name) is None else f"{facts[name]:.4f}"
        for name in ("held out", "elsewhere")
    ]


def cells(*texts: str) -> str:
    """Return a line of a table."""
    return f"| {' | '.join(texts)} |"


if __name__ == "__main__":
    main()
