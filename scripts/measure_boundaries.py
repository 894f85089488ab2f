"""Does a target that cuts text as the source does lose less? Measured over many pairs.

    python scripts/measure_boundaries.py ASSETS --state DIR [--bytes N] [-o PAGE]

For each source and each tokenizer that loses none of its text: how far the two cut the text at the
same positions, the share of the text's tokens that are missing, and the gap of two methods right
after the surgery. With -o the table replaces the text between the marks `boundaries` on the page.
Measurements are saved in DIR; an interrupted run continues.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scipy.stats import pearsonr, spearmanr

from tokensurgeon import Recipe, compare
from tokensurgeon.alignment import align
from tokensurgeon.evaluation.boundaries import boundaries
from tokensurgeon.text import chunk_documents
from tokensurgeon.text.corpus import read_documents
from tokensurgeon.vocabulary import load_vocabulary

DATA = Path(__file__).parent.parent / "tokensurgeon" / "data"
METHODS = ("subword-mean", "hidden-residual/subword-mean")
SHARES = ("kept", "known", "agreement", "missing")
TOKENIZERS = (
    "storyllamas-4096",
    "minimind-6400",
    "kl3m-001-32k",
    "kl3m-004-char-8k",
    "spm-en-1k",
    "llama2",
    "gpt2",
    "gpt-neox-pythia",
    "modernbert",
)


def measure(assets: Path, state: Path, n_bytes: int, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return one row for each pair."""
    sources = {
        "stories260K": (assets / "models/stories260K", assets / "corpora/tinystories-valid.json"),
        "technical-base": (
            assets / "models/technical-base",
            assets / "corpora/technical-valid.json",
        ),
        "the model that ships": (DATA / "source", DATA / "text/evaluation.jsonl"),
    }
    targets = {name: assets / "tokenizers" / name for name in TOKENIZERS}
    targets |= {"technical-donor": assets / "models/technical-donor", "its target": DATA / "donor"}
    targets = {name: path for name, path in targets.items() if not names or name in names}
    rows: list[dict[str, Any]] = []
    for source, (model, text) in sources.items():
        texts = [document.text for document in read_documents([text])]
        chunks = chunk_documents(texts, max_bytes_total=n_bytes)
        scored = [chunk.text for chunk in chunks]
        ours = load_vocabulary(model)
        for target, tokenizer in targets.items():
            theirs = load_vocabulary(tokenizer)
            encodings = theirs.encode_many(scored)
            if not all(encoding.lossless for encoding in encodings):
                print(f"{source} → {target}: loses text, left out", flush=True)
                continue
            alignment = align(ours, theirs)
            n_tokens = sum(len(encoding.ids) for encoding in encodings)
            missing = set(alignment.missing.tolist())
            n_missing = sum(token in missing for encoding in encodings for token in encoding.ids)
            recipe = Recipe.model_validate(
                {
                    "source": str(model),
                    "tokenizer": str(tokenizer),
                    "text": {"evaluation": [str(text)], "max_bytes": n_bytes},
                    "untie": True,
                }
            )
            table = compare(recipe, METHODS, state=state)
            cuts = boundaries(ours, theirs, scored)
            gaps = {row["method"]: row["gap"] for row in table.rows}
            rows.append(
                {
                    "source": source,
                    "target": target,
                    "kept": cuts.kept,
                    "known": cuts.known,
                    "agreement": cuts.agreement,
                    "missing": n_missing / n_tokens,
                    "gaps": [gaps[name] for name in METHODS],
                }
            )
            print(json.dumps(rows[-1]), flush=True)
    return rows


def markdown(rows: list[dict[str, Any]], n_bytes: int) -> str:
    """Return the table and the correlations."""
    lines = [
        f"On the first {n_bytes:,} bytes of each source's held-out text, untied, without "
        "calibration. Made by `scripts/measure_boundaries.py`.",
        "",
        "| source | target | source's boundaries kept | target's boundaries known | agreement "
        "| missing tokens | gap, `subword-mean` | gap, `hidden-residual` / `subword-mean` |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: (row["source"], -row["agreement"])):
        shares = " | ".join(f"{100 * row[key]:.1f} %" for key in SHARES)
        lines.append(
            f"| {row['source']} | {row['target']} | {shares} "
            f"| {row['gaps'][0]:+.3f} | {row['gaps'][1]:+.3f} |"
        )
    lines += [
        "",
        "Correlation of each share with the gap, as Pearson / Spearman:",
        "",
        "| pairs | method | kept | known | agreement | missing tokens |",
        "|---|---|---|---|---|---|",
    ]
    groups = {"all": rows}
    for row in rows:
        groups.setdefault(str(row["source"]), []).append(row)
    for name, group in groups.items():
        for i, method in enumerate(METHODS):
            gaps = [row["gaps"][i] for row in group]
            cells = []
            for key in SHARES:
                values = [row[key] for row in group]
                pearson, spearman = (f(values, gaps).statistic for f in (pearsonr, spearmanr))
                cells.append(f"{pearson:+.2f} / {spearman:+.2f}")
            lines.append(f"| {name} ({len(group)}) | `{method}` | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print, and put the table on the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("assets", type=Path)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--bytes", type=int, default=20_000)
    parser.add_argument("--only", default="", help="tokenizers, parted by commas")
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    names = [name for name in arguments.only.split(",") if name]
    rows = measure(arguments.assets, arguments.state, arguments.bytes, names)
    text = markdown(rows, arguments.bytes)
    print(text)
    if arguments.output:
        page = arguments.output.read_text("utf-8")
        marks = re.compile(r"(<!-- boundaries -->\n).*?(<!-- /boundaries -->)", re.DOTALL)
        arguments.output.write_text(
            marks.sub(lambda mark: f"{mark[1]}{text}{mark[2]}", page), "utf-8"
        )


if __name__ == "__main__":
    main()
