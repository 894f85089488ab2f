"""Measure every method on pairs of real models and tokenizers, and write a page for each pair.

    python scripts/measure_pairs.py ASSETS --state DIR [--corpus DIR] [--limits DIR] [--bytes N]
                                    [--text-bytes N] [--seeds N] [--only KEYS] [--methods NAMES]
                                    [--once KEYS] [--adapted KEYS] [--kept] [--after-steps N]
                                    [-o docs/results/pairs]

ASSETS holds `models/`, `tokenizers/` and `corpora/` of third parties, which are not part of this
repository; the model that ships is measured too, fitted to the calibration text that
`scripts/gather_corpus.py --calibration-bytes 1000000` puts into the folder `--corpus`, or to the
120 kB that ship. Each finished method is kept in the state folder, so that a run that was stopped
goes on, and a page is made anew in minutes. `--limits` holds KEY.json of `tokensurgeon
trained-limit`, where a pair has one. With -o each pair's page is written into that folder; then run
`scripts/results_pages.py`, which takes the summaries from the pages.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

from measuring import documents_file

from tokensurgeon import Recipe, initialisers
from tokensurgeon.report import gap, span_tables, words
from tokensurgeon.studies.after_steps import rank_facts
from tokensurgeon.studies.compare import Comparison, compare
from tokensurgeon.studies.comparison_state import file_name
from tokensurgeon.studies.further_training import FurtherTraining
from tokensurgeon.studies.gap_closed import KnownLimit
from tokensurgeon.text.corpus import read_documents

DATA = Path(__file__).parent.parent / "tokensurgeon" / "data"
AUTO = "auto+calibration"
"""What users get who name nothing."""
HEALED = f"{AUTO}+heal=5"
FITTED = ("subword-mean+calibration", AUTO, HEALED)
BUDGET = 120.0
"""Minutes: so many that the clock decides no figure."""
SIDES = ("subword-last/subword-mean", "subword-last/omp", "hidden-residual/omp")
"""Pairs of methods that are measured where there are two matrices."""
NEEDS_A_DONOR = ("omp", "omp-published")
NOT_COMPARED = ("external", "anchors", "hypernetwork")
"""Methods that need a setting of the user's."""
THIRD, OURS = "trained by a third party", "trained for this project"


@dataclass(frozen=True)
class Pair:
    """A source and a target; `trained` says by whom; `other` is text of another domain."""

    key: str
    title: str
    trained: str
    source: Path
    target: Path
    text: Path
    calibration: Path
    other: Path
    donor: Path | None = None
    tied: bool = False
    fitted: tuple[str, ...] = FITTED
    """What is measured besides initialisers: all of it where time allows."""


def pairs(assets: Path, corpus: Path = DATA / "text") -> list[Pair]:
    """Return the pairs that are measured."""
    models, corpora = assets / "models", assets / "corpora"
    stories, other = models / "stories260K", corpora / "flores-en.txt"
    story_texts = (
        corpora / "tinystories-valid.json",
        corpora / "tinystories-train-head.txt",
        other,
    )
    base, donor = models / "technical-base", models / "technical-donor"
    technical_texts = (
        corpora / "technical-valid.json",
        corpora / "technical-train.json",
        other,
    )
    found = []
    for name in ("storyllamas-4096", "gpt2"):
        for tied in (False, True):
            how = "tied" if tied else "untied"
            found.append(
                Pair(
                    f"stories-{name}-{how}",
                    f"stories260K ({how}) → {name}",
                    f"source {THIRD}",
                    stories,
                    assets / "tokenizers" / name,
                    *story_texts,
                    tied=tied,
                    fitted=(AUTO, HEALED) if tied else FITTED,
                )
            )
    with_omp = ("omp-published+calibration", *FITTED)
    found += [
        Pair(
            "technical-donor",
            "technical-base → technical-donor's tokenizer, with the donor",
            f"source and donor {OURS}",
            base,
            donor,
            *technical_texts,
            donor=donor,
            fitted=with_omp,
        ),
        Pair(
            "technical-alone",
            "technical-base → technical-donor's tokenizer, without the donor",
            f"source {OURS}",
            base,
            donor,
            *technical_texts,
            fitted=(AUTO, HEALED),
        ),
        Pair(
            "ships",
            "the model that ships → its target",
            f"source and donor {OURS}",
            DATA / "source",
            DATA / "donor",
            DATA / "text/evaluation.jsonl",
            corpus / "calibration.jsonl",
            other,
            donor=DATA / "donor",
            fitted=with_omp,
        ),
        Pair(
            "technical-coarse-to-fine",
            "technical-base → kl3m-004-char-8k (coarse to fine)",
            f"source {OURS}",
            base,
            assets / "tokenizers/kl3m-004-char-8k",
            *technical_texts,
            fitted=(AUTO, HEALED),
        ),
    ]
    return found


def methods(pair: Pair, wanted: list[str] | None = None) -> list[str]:
    """Return what is measured on a pair: every built-in that can work, then what is fitted."""
    if wanted:
        alone = pair.donor is None
        return [name for name in wanted if not (alone and name.startswith("omp"))]
    found = [*(name for name in initialisers.names() if name not in NOT_COMPARED), "auto"]
    if pair.donor is None:
        found = [name for name in found if name not in NEEDS_A_DONOR]
    if not pair.tied:
        found += [name for name in SIDES if pair.donor is not None or "omp" not in name]
    return list(dict.fromkeys([*found, *pair.fitted]))


def kept(names: list[str], folder: Path) -> list[str]:
    """Return the methods that a state folder holds."""
    found = [re.sub(r"-[0-9a-f]{16}$", "", file.stem) for file in folder.glob("*.json")]
    return [name for name in names if file_name(name) in found]


def head(path: Path, n_bytes: int, folder: Path) -> Path:
    """Write the first documents of a text, up to so many bytes, and return the file."""
    texts, size = [], 0
    for document in read_documents([path]):
        parts = [document.text]
        if path.suffix == ".txt":
            # The stories came without a mark between them: a lone line end parts two, an empty
            # line parts paragraphs. Some came with garbled quotation marks.
            parts = re.split(r"(?<!\n)\n(?!\n)", document.text)
            parts = [text for text in parts if "\u00e2\u20ac" not in text]
        for text in parts:
            if size < n_bytes and text.strip():
                texts.append(text)
                size += len(text.encode())
    return documents_file(folder / f"{path.stem}-{n_bytes}.jsonl", texts)


def measure(pair: Pair, names: list[str], arguments: argparse.Namespace) -> Comparison:
    """Compare the methods on one pair."""
    state, limits, n_bytes = arguments.state, arguments.limits, arguments.bytes
    recipe = Recipe.model_validate(
        {
            "source": str(pair.source),
            "tokenizer": str(pair.target),
            "donor": pair.donor and str(pair.donor),
            "text": {
                "evaluation": [str(pair.text)],
                "max_bytes": n_bytes,
                "calibration": [str(head(pair.calibration, arguments.text_bytes, state / "texts"))],
                "other": [str(pair.other)],
            },
            "untie": not pair.tied,
            "budget": BUDGET,
        }
    )
    file = None if limits is None else limits / f"{pair.key}.json"
    limit = KnownLimit.parse(str(file)) if file is not None and file.exists() else None

    def progress(done: int, total: int, what: str) -> None:
        if what == "methods":
            print(f"{time.strftime('%H:%M:%S')} {pair.key}: {done} of {total}", file=sys.stderr)

    def measured(chosen: list[str], seeds: int) -> Comparison:
        return compare(
            recipe,
            chosen,
            state=state / pair.key,
            seeds=seeds,
            trained_limit=limit,
            adapted="+" in chosen[0] and pair.key in arguments.adapted.split(","),
            further=FurtherTraining(arguments.after_steps),
            progress=progress,
        )

    # The baselines are not repeated with our calibration: that is dear, and their rows are fixed.
    ours = (AUTO, HEALED)
    n_seeds = 1 if pair.key in arguments.once.split(",") else arguments.seeds
    parts = [
        measured(chosen, seeds)
        for chosen, seeds in (
            ([name for name in ours if name in names], n_seeds),
            ([name for name in names if "+" not in name], n_seeds),
            ([name for name in names if "+" in name and name not in ours], 1),
        )
        if chosen
    ]
    first = parts[0]
    rows = sorted(
        (row for part in parts for row in part.rows[1:]),
        key=lambda row: (row["error"] is not None, row["bits_per_byte"] or 0.0),
    )
    others = (entry for part in parts for entry in part.evaluation.entries[1:])
    evaluation = replace(first.evaluation, entries=(first.evaluation.entries[0], *others))
    stages = {name: found for part in parts for name, found in part.stages.items()}
    facts = dict(first.facts)
    if "after_steps" in facts:
        facts["after_steps"] = {**facts["after_steps"], **rank_facts(rows)}
    return Comparison((first.rows[0], *rows), evaluation, facts, stages)


def section(pair: Pair, table: Comparison) -> str:
    """Return the table of a pair."""
    facts = table.facts
    lines = [
        f"# {pair.title}",
        "",
        f"{pair.trained.capitalize()}. {facts['missing']:,} of {facts['n_target']:,} target tokens "
        f"are missing. Measured on {table.evaluation.n_bytes:,} bytes of `{pair.text.name}`, "
        f"fitted on {facts['calibration_bytes']:,} bytes of `{pair.calibration.name}`.",
        "",
    ]
    if facts["trained_limit"]:
        limit = facts["trained_limit"]["limit"]
        lines += [f"The trained limit is {limit:.3f} bits per byte.", ""]
    after_steps = words.after_steps_heading(facts)
    later = "" if after_steps is None else f" {after_steps} |"
    lines += [
        f"| method | bits per byte |{later} gap | 95 % interval | closed | gap, adapted "
        "| perplexity ratio | bytes per token | donor | text bytes | tokens run | gradient steps "
        "| seconds |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|" + ("---|" if later else ""),
    ]
    refused = []
    for row in table.rows:
        if row["error"] is not None:
            refused.append(f"- `{row['method']}`: {row['error']}")
            continue
        figure = words.figure_of(row)
        low_high = figure.interval
        cells = [
            row["method"],
            words.number(figure.bits_per_byte, 3),
            *([words.number(figure.after_steps, 3)] if later else []),
            words.number(figure.gap, 3, sign=True),
            f"{low_high[0]:.3f} … {low_high[1]:.3f}" if low_high else "–",
            words.percent(figure.closed),
            words.number(figure.gap_adapted, 3, sign=True),
            words.number(figure.perplexity_ratio, 2),
            words.number(figure.bytes_per_token, 2),
            "yes" if figure.donor else "no",
            f"{figure.text_bytes:,}",
            f"{figure.forward_tokens:,}",
            f"{figure.gradient_steps:,}",
            words.number(figure.seconds, 1),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", *refused, *([""] if refused else [])]
    ranges = words.notes([words.figure_of(row) for row in table.rows])
    said = [*words.after_steps(facts), *facts["notes"], *ranges]
    lines += [*(f"- {note}" for note in said), ""]
    lines += [*seed_range(table), *stages(pair, table)]
    best = next((row["method"] for row in table.rows if row["gap"] is not None), None)
    if best is not None:
        largest = gap.largest(gap.parts(table.evaluation[best].to_dict()))
        lines += [f"`{best}`: {largest}." if largest else "", "", *spans(table)]
    return "\n".join(lines)


def spans(table: Comparison) -> list[str]:
    """Return the loss of each method by how its tokens stand to the source's."""
    entries = [entry.to_dict() for entry in table.evaluation.entries]
    body = [["", *span_tables.headings(entries)], *span_tables.rows(entries)]
    body.insert(1, ["---"] * len(body[0]))
    return [
        "The loss by how tokens stand to the source's on the same text:",
        "",
        *(f"| {' | '.join(cells)} |" for cells in body),
        "",
    ]


def stages(pair: Pair, table: Comparison) -> list[str]:
    """Return what each stage of the default bought, on text of its own kind and on other text."""
    records = table.stages.get(HEALED, table.stages.get(AUTO, []))
    if not records:
        return []
    lines = [
        f"Stages of `{AUTO}`, in bits per byte on the selection text and on `{pair.other.name}`:",
        "",
        "| stage | kept | selection before | after | other text before | after | tokens run |",
        "|---|---|---|---|---|---|---|",
    ]
    for record in records:
        keys = ("before", "after", "other_before", "other_after")
        figures = [words.number(record[key], 3) for key in keys]
        kept = "yes" if record["kept"] else record["why"].partition(",")[0].partition(" (")[0]
        cells = [record["stage"], kept, *figures, f"{record['forward_tokens']:,}"]
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, ""]


def seed_range(table: Comparison) -> list[str]:
    """Return the gaps of what is random at the best and at the worst seed, as one paragraph."""
    parts = []
    for row in table.rows:
        if row["method"] in (AUTO, HEALED) and row["seed_range"] is not None:
            source = row["bits_per_byte"] - row["gap"]
            low, high = (figure - source for figure in row["seed_range"])
            parts.append(f"`{row['method']}` {low:+.3f} … {high:+.3f}")
    return (
        [f"Gap at the best and at the worst seed: {', '.join(sorted(parts))}.", ""] if parts else []
    )


def main() -> None:
    """Measure all pairs, or those whose key holds the words of --only."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("assets", type=Path)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--corpus", type=Path, default=DATA / "text")
    parser.add_argument("--limits", type=Path)
    parser.add_argument("--bytes", type=int, default=60_000)
    parser.add_argument("--text-bytes", type=int, default=500_000, help="of calibration text")
    parser.add_argument("--seeds", type=int, default=3, help="of what is random")
    parser.add_argument("--once", default="", help="keys of pairs with one seed")
    parser.add_argument("--only", help="keys of pairs, parted by commas")
    parser.add_argument("--methods", help="parted by commas; every built-in if not given")
    parser.add_argument("--kept", action="store_true", help="measure nothing that is not kept")
    parser.add_argument("--after-steps", type=int, default=0, help="of further training")
    parser.add_argument("--adapted", default="", help="keys of pairs whose source is fitted too")
    parser.add_argument("-o", "--output", type=Path, help="folder of the pages")
    arguments = parser.parse_args()
    keys = arguments.only.split(",") if arguments.only else None
    wanted = arguments.methods.split(",") if arguments.methods else None
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
    for pair in pairs(arguments.assets, arguments.corpus):
        if keys is None or pair.key in keys:
            names = methods(pair, wanted)
            if arguments.kept:
                names = kept(names, arguments.state / pair.key)
            text = section(pair, measure(pair, names, arguments))
            print(text, flush=True)
            if arguments.output:
                (arguments.output / f"{pair.key}.md").write_text(text.rstrip() + "\n", "utf-8")


if __name__ == "__main__":
    main()
