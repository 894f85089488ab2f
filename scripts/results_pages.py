"""Write the summaries of the measured pairs from the pages of the pairs. ``--check`` only compares.

A page under ``docs/results/pairs`` holds everything that was measured on one source and one target
tokenizer; `scripts/measure_pairs.py` writes it. The figures that the summary and the README repeat
are taken from these pages, so that they cannot differ from them. The script replaces what is
between the marks ``pairs`` and ``methods`` of docs/results/README.md, and between the marks
``figures:methods`` of README.md.
"""

from __future__ import annotations

import re
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = ROOT / "docs" / "results" / "pairs"
SUMMARY = ROOT / "docs" / "results" / "README.md"
README = ROOT / "README.md"

ORDER = (
    "stories-storyllamas-4096-untied",
    "stories-storyllamas-4096-tied",
    "stories-gpt2-untied",
    "stories-gpt2-tied",
    "technical-donor",
    "technical-alone",
    "ships",
    "technical-coarse-to-fine",
)
"""Pages in the order of the tables; one that is not there is left out."""

BASELINES = ("subword-mean", "omp-published")
"""The plain baseline that needs nothing, and the published one that needs a donor."""
DEFAULT = "auto+calibration"
HEALED = "auto+calibration+heal=5"

SHOWN = (
    (HEALED, "the default and five minutes of `--heal`"),
    (DEFAULT, "the default: `auto`, calibrated"),
    ("omp-published+calibration", "`omp-published`, calibrated"),
    ("subword-mean+calibration", "`subword-mean`, calibrated"),
    ("auto", "`auto`, not calibrated"),
    ("omp", "`omp`"),
    ("omp-published", "`omp-published`"),
    ("hidden-residual", "`hidden-residual`"),
    ("subword-shrunk", "`subword-shrunk`"),
    ("subword-mean", "`subword-mean`"),
    ("mean", "`mean`"),
)
"""Methods of the table that sets pairs side by side, best first on most pairs."""
SIDE_BY_SIDE = (
    "ships",
    "technical-donor",
    "stories-storyllamas-4096-untied",
    "stories-gpt2-untied",
)
IN_README = (HEALED, DEFAULT, "omp", "subword-mean", "mean")


@dataclass(frozen=True)
class Page:
    """What a page of a pair says: `rows` holds the cells of its table by method and heading."""

    key: str
    title: str
    limit: str
    rows: dict[str, dict[str, str]]
    seeds: dict[str, str]
    """Gap at the best and at the worst seed, by method."""

    @classmethod
    def read(cls, path: Path) -> Page:
        """Read a page; its first table is that of the methods."""
        text = path.read_text("utf-8")
        title = re.match(r"# (.*)\n", text)
        limit = re.search(r"^The trained limit is ([\d.]+) bits per byte", text, re.M)
        table = re.search(r"^\| method \|.*?\n\n", text, re.M | re.S)
        if title is None or table is None:
            sys.exit(f"{path} has no title or no table of methods")
        lines = [
            [cell.strip() for cell in line.strip("|").split("|")]
            for line in table[0].strip().splitlines()
        ]
        seeds = re.search(r"^Gap at the best and at the worst seed: (.*)", text, re.M)
        return cls(
            path.stem,
            title[1],
            limit[1] if limit else "–",
            {cells[0]: dict(zip(lines[0], cells, strict=True)) for cells in lines[2:]},
            dict(re.findall(r"`(\S+)` (\S+ … \S+\d)", seeds[1])) if seeds else {},
        )

    @property
    def link(self) -> str:
        """The title, leading to the page from the summary."""
        return f"[{self.title}](pairs/{self.key}.md)"

    @property
    def tied(self) -> bool:
        """Whether the source has one matrix for both sides."""
        return "(tied)" in self.title

    def cell(self, method: str, heading: str = "gap") -> str:
        """Return a cell of the table, "–" where the method was not measured."""
        return self.rows.get(method, {}).get(heading, "–")

    def gap(self, method: str) -> float | None:
        """Return a method's gap to the source in bits per byte."""
        cell = self.cell(method)
        return None if cell == "–" else float(cell)

    def best_baseline(self) -> tuple[float, str]:
        """Return the gap and the name of the better plain baseline."""
        gaps = [(gap, name) for name in BASELINES if (gap := self.gap(name)) is not None]
        return min(gaps)

    def with_seeds(self, method: str) -> str:
        """Return a method's gap, with the best and the worst seed in brackets."""
        seeds = self.seeds.get(method)
        return self.cell(method) + (f" ({seeds})" if seeds else "")

    def share(self, method: str) -> float | None:
        """Return which share of the better baseline's gap a method leaves."""
        gap = self.gap(method)
        return None if gap is None else gap / self.best_baseline()[0]


def table(headings: list[str], rows: list[list[str]]) -> list[str]:
    """Return a Markdown table."""
    lines = [headings, ["---"] * len(headings), *rows]
    return ["| " + " | ".join(cells) + " |" for cells in lines]


def pairs(pages: list[Page]) -> str:
    """Return the figures that matter, a line a pair, and the same calibration of other rows."""
    first, second = [], []
    for page in pages:
        gap, name = page.best_baseline()
        share, healed_share = (page.share(method) for method in (DEFAULT, HEALED))
        first.append(
            [
                page.link,
                page.cell("source", "bits per byte"),
                f"{gap:+.3f} (`{name}`)",
                page.with_seeds(DEFAULT),
                "–" if share is None else f"{share:.2f}",
                page.with_seeds(HEALED),
                "–" if healed_share is None else f"{healed_share:.2f}",
                page.limit,
            ]
        )
        second.append(
            [
                page.title,
                *(page.cell(f"{baseline}+calibration") for baseline in BASELINES),
                page.cell(DEFAULT),
                page.cell(DEFAULT, "gap, adapted"),
                page.cell(HEALED, "gradient steps"),
            ]
        )
    lines = table(
        [
            "pair",
            "source, bits per byte",
            "better plain method",
            "the default",
            "share left",
            "healed five minutes",
            "share left",
            "trained limit, bits per byte",
        ],
        first,
    )
    for method, words in ((DEFAULT, "the default"), (HEALED, "the default and healing")):
        shares = [(share, page) for page in pages if (share := page.share(method)) is not None]
        untied = [(share, page.title) for share, page in shares if not page.tied]
        middle = statistics.median(share for share, _ in untied)
        worst, title = max(untied)
        lines += [
            "",
            f"Share left by {words}, untied: median {middle:.2f}, worst {worst:.2f} ({title}).",
        ]
    lines += ["", "The same calibration of other rows, and of the source:", ""]
    lines += table(
        [
            "pair",
            "`subword-mean`, calibrated",
            "`omp-published`, calibrated",
            "the default",
            "the default, to the source calibrated alike",
            "gradient steps of five minutes' healing",
        ],
        second,
    )
    return "\n".join(lines)


def methods(pages: list[Page]) -> str:
    """Return the gaps of the most telling methods on four pairs."""
    shown = [page for key in SIDE_BY_SIDE for page in pages if page.key == key]
    rows = [["(the source, in full)", *(page.cell("source", "bits per byte") for page in shown)]]
    rows += [[words, *(page.cell(method) for page in shown)] for method, words in SHOWN]
    return "\n".join(table(["gap, bits per byte", *(page.title for page in shown)], rows))


def readme(pages: list[Page]) -> str:
    """Return the README's table: the model that ships, its plain methods and the default."""
    page = next(page for page in pages if page.key == "ships")
    words = dict(SHOWN)
    rows = [
        [words[name], page.cell(name), page.cell(name, "donor")] for name in reversed(IN_README)
    ]
    return "\n".join(
        table(["new rows from", "bits per byte above the source", "uses the donor"], rows)
    )


def put(file: Path, mark: str, text: str, check: bool) -> None:
    """Replace what is between two marks of a page, or stop where it differs."""
    old = file.read_text("utf-8")
    marks = re.compile(rf"(<!-- {mark} -->\n).*?(<!-- /{mark} -->)", re.S)
    if len(marks.findall(old)) != 1:
        sys.exit(f"{file} needs the marks <!-- {mark} --> and <!-- /{mark} -->, once")
    new = marks.sub(lambda match: f"{match[1]}{text}\n{match[2]}", old)
    if check and new != old:
        sys.exit(f"{file.name} differs from the pages of the pairs: run scripts/results_pages.py")
    if not check:
        file.write_text(new, "utf-8")


def main(arguments: list[str]) -> None:
    """Write or check the summaries."""
    if arguments not in ([], ["--check"]):
        sys.exit("usage: results_pages.py [--check]")
    there = {path.stem: path for path in PAGES.glob("*.md")}
    if unknown := set(there) - set(ORDER):
        sys.exit(f"name the place of {sorted(unknown)} in ORDER of {Path(__file__).name}")
    pages = [Page.read(there[key]) for key in ORDER if key in there]
    for file, mark, text in (
        (SUMMARY, "pairs", pairs(pages)),
        (SUMMARY, "methods", methods(pages)),
        (README, "figures:methods", readme(pages)),
    ):
        put(file, mark, text, check=bool(arguments))


if __name__ == "__main__":
    main(sys.argv[1:])
