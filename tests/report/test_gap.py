"""Where the gap is, said in words; and a comparison as a picture."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.report.test_report import make_report, shown
from tokensurgeon.errors import UsageError
from tokensurgeon.report import gap, model_card
from tokensurgeon.report.plot import check_path, heading, write_plot


def part(kind: str, match: str, source: float, patched: float, *texts: str) -> dict[str, Any]:
    return {
        "kind": kind,
        "match": match,
        "excess": patched - source,
        "bits_per_byte": patched,
        "source_bits_per_byte": source,
        "tokens": 5,
        "bytes": 20,
        "examples": [{"text": text, "tokens": 1, "excess": 0.01} for text in texts],
    }


PARTS = [
    part("spaces", "shared", 0.1, 0.4, " ", "  "),
    part("words", "missing", 0.6, 0.8, " index"),
    part("Cyrillic", "missing", 0.2, 0.202),
    part("digits", "shared", 0.5, 0.498),
]


def measured(parts: list[dict[str, Any]]) -> dict[str, Any]:
    entry = {
        "name": "patched",
        "bits_per_byte": 1.9,
        "difference": {"estimate": 0.5, "low": 0.4, "high": 0.6},
        "perplexity_ratio": 2.0,
        "bytes_per_token": 3.0,
        "excess": parts,
    }
    return {"entries": [{**entry, "name": "source", "difference": None, "excess": None}, entry]}


def test_the_largest_failure_is_named_with_tokens_wherever_the_report_is_read() -> None:
    report = make_report(evaluation=measured(PARTS))
    sentence = gap.largest(gap.patched_parts(report))
    assert sentence == (
        "The largest failure is shared spaces: 0.3000 of the 0.5000 bits per byte above the "
        "source (60 %), such as ' ', '  '"
    )
    assert sentence in model_card(report)
    assert sentence in shown(report)
    assert "missing words +0.2000, the rest" not in shown(report)
    assert "Where the gap is: shared spaces +0.3000, missing words +0.2000" in shown(report)


def test_a_table_of_the_gap_adds_up_and_names_no_crumbs() -> None:
    lines = gap.table(gap.parts(measured(PARTS)["entries"][1]))
    names = [line.name for line in lines]
    assert names == [
        "all missing tokens", "all shared tokens", "shared spaces", "missing words", "the rest",
    ]  # fmt: skip
    whole, pieces = lines[:2], lines[2:]
    assert sum(line.excess for line in whole) == pytest.approx(0.5)
    assert sum(line.excess for line in pieces) == pytest.approx(0.5)
    assert sum(line.share for line in pieces) == pytest.approx(1.0)


@pytest.mark.parametrize("parts", [[], [part("words", "shared", 0.5, 0.4)]])
def test_no_failure_is_named_where_there_is_no_gap(parts: list[dict[str, Any]]) -> None:
    report = make_report(evaluation=measured(parts))
    assert gap.largest(gap.patched_parts(report)) is None
    assert "largest failure" not in model_card(report) + shown(report)


def comparison(*names: str) -> dict[str, Any]:
    rows = [{"method": "source", "bits_per_byte": 1.4, "bytes_per_token": 3.0}]
    for i, name in enumerate(names):
        rows.append({
            "method": name, "bits_per_byte": 1.5 + i, "gap": 0.1 + i,
            "interval": [0.05 + i, 0.15 + i], "perplexity_ratio": 2.0, "bytes_per_token": 3.5,
            "closed": 0.5 - i, "donor": i == 0, "text_bytes": 1000 * i, "seconds": 1.0,
        })  # fmt: skip
    rows.append({"method": "broken", "error": "needs a <donor>"})
    entries = [{**measured(PARTS)["entries"][1], "name": name} for name in names]
    facts = {
        "source": "/a/model", "target": "b/tokenizer", "donor": None, "tied": False,
        "untied": True, "missing": 10, "n_target": 100, "trained_limit": {"limit": 1.45},
        "notes": ["2 of 9 documents are left out"],
    }  # fmt: skip
    text = {"bytes": 1000, "documents": 9}
    return {
        "facts": facts,
        "rows": rows,
        "evaluation": {"entries": entries, "text": text, "protocol": "bits per byte"},
    }


def test_a_picture_shows_every_method_and_is_the_same_each_time(tmp_path: Path) -> None:
    table = comparison("omp & co", "zero")
    for suffix in (".svg", ".png", ".html"):
        write_plot(tmp_path / f"a{suffix}", table)
        write_plot(tmp_path / f"b{suffix}", table)
        data = (tmp_path / f"a{suffix}").read_bytes()
        assert data == (tmp_path / f"b{suffix}").read_bytes()
        assert len(data) > 3_000
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    svg = ElementTree.parse(tmp_path / "a.svg")
    texts = {element.text for element in svg.iter("{http://www.w3.org/2000/svg}text")}
    for word in ("omp & co", "zero", "+0.100", "+1.100", "source, 1.400", "trained limit, 1.450",
                 "model (untied) → b/tokenizer", "given donor rows", "given text"):  # fmt: skip
        assert word in texts, word
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "a.html", "a.png", "a.svg", "b.html", "b.png", "b.svg",
    ]  # fmt: skip


def test_a_page_holds_the_picture_and_the_table_and_loads_nothing(tmp_path: Path) -> None:
    write_plot(tmp_path / "a.html", comparison("omp & co", "zero"))
    text = (tmp_path / "a.html").read_text("utf-8")
    for word in ("omp &amp; co", "needs a &lt;donor&gt;", "+0.1000", "-50 %", "donor rows",
                 "2 of 9 documents are left out", "The largest failure is shared spaces", "<svg",
                 "1 kB of text"):  # fmt: skip
        assert word in text, word
    assert not re.findall(r"<(?:script|link|img|iframe)|(?:src|href)=\"http", text)


def test_a_picture_shows_what_is_left_after_further_training(tmp_path: Path) -> None:
    table = comparison("omp & co", "zero")
    for row, later in zip(table["rows"], (1.3, 1.35, 1.5), strict=False):
        row["after_steps"] = later
    table["facts"]["after_steps"] = {
        "steps": 1, "weights": "all", "rate": 3e-4, "seed": 0, "text_bytes": 5000, "passes": 0.25,
        "warm_up": 20, "tokens_per_step": 2048, "choose_by": "bits-per-byte", "ranked": 2,
        "rank_correlation": None, "best": "zero", "best_first": "omp & co",
    }  # fmt: skip
    write_plot(tmp_path / "a.html", table)
    text = (tmp_path / "a.html").read_text("utf-8")
    for word in ("+0.100, then +0.050", "+1.100, then +0.200", "after 1 step, above the source",
                 ">after 1 step</th>", "<td>1.3500</td>", "read about 0.25 times",
                 "no rank correlation of the two figures is claimed of 2 methods",
                 "best right after the surgery: omp &amp; co; best after 1 step: zero",
                 ):  # fmt: skip
        assert word in text, word


def test_a_comparison_without_a_single_method_is_still_a_picture(tmp_path: Path) -> None:
    write_plot(tmp_path / "a.svg", comparison())
    assert "source, 1.400" in (tmp_path / "a.svg").read_text("utf-8")


def test_a_file_that_is_no_picture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"must end in \.png"):
        check_path(tmp_path / "a.pdf")


def test_a_heading_names_no_folder() -> None:
    facts = {"source": "/mine/model", "target": "trained", "tied": True}
    assert heading(facts) == "model (tied) → a vocabulary trained for it"
