"""The loss by how tokens stand to the source's, wherever a report is read."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from rich.console import Console

from tests.report.test_gap import comparison, measured
from tests.report.test_report import make_report, shown
from tokensurgeon.evaluation import RELATIONS
from tokensurgeon.report import model_card, span_tables
from tokensurgeon.report.plot import write_plot
from tokensurgeon.report.terminal import print_comparison


def part(relation: str, patched: float, source: float, on_states: float | None) -> dict[str, Any]:
    return {
        "relation": relation,
        "tokens": 2_596,
        "bytes": 100,
        "share": 0.25,
        "bits_per_byte": patched,
        "source_bits_per_byte": source,
        "on_source_states": on_states,
    }


PARTS = [
    part("one source token", 0.949, 0.917, 0.916),
    part("first part", 0.122, 0.095, 0.11),
    part("inside", 0.094, 0.0, None),
]
SENTENCE = (
    "Bits per byte of tokens that are one source token 0.9490 (source 0.9170, these rows on its "
    "states 0.9160), parts of one 0.2160 (source 0.0950)"
)


def evaluation() -> dict[str, Any]:
    source, patched = measured([])["entries"]
    plain = {**patched, "name": "subword-mean"}
    worse = [{**own, "bits_per_byte": own["bits_per_byte"] + 1} for own in PARTS]
    split = ((source, None), (patched, PARTS), (plain, worse))
    return {"entries": [{**entry, "by_span": parts} for entry, parts in split]}


def test_the_words_of_the_tables_are_those_of_the_split() -> None:
    assert {span_tables.ONE, *span_tables.IN_PARTS, "longer"} == set(RELATIONS)


def test_a_table_shows_the_source_once_and_then_every_model() -> None:
    entries = evaluation()["entries"]
    assert span_tables.headings(entries) == [
        "one source token", "on the source's states", "first part", "inside",
    ]  # fmt: skip
    assert span_tables.rows(entries) == [
        ["tokens", "2,596", "", "2,596", "2,596"],
        ["share of bytes", "25.0 %", "", "25.0 %", "25.0 %"],
        ["source", "0.9170", "", "0.0950", "0.0000"],
        ["patched", "0.9490", "0.9160", "0.1220", "0.0940"],
        ["subword-mean", "1.9490", "0.9160", "1.1220", "1.0940"],
    ]


def test_rows_that_were_not_tried_on_the_source_are_a_dash() -> None:
    entries = [{"name": "patched", "by_span": [part("one source token", 1.0, 1.0, None)]}]
    assert span_tables.rows(entries)[-1] == ["patched", "1.0000", "–"]
    assert "states" not in str(span_tables.in_short(entries[0]))


def test_card_and_terminal_show_it() -> None:
    report = make_report(evaluation=evaluation())
    assert SENTENCE in shown(report)
    card = model_card(report)
    assert "| patched | 0.9490 | 0.9160 | 0.1220 | 0.0940 |\n" in card
    assert "| subword-mean | 1.9490 | 0.9160 | 1.1220 | 1.0940 |\n" in card


def test_a_report_without_it_is_shown_as_before() -> None:
    report = make_report(evaluation=measured([]))
    assert span_tables.rows(measured([])["entries"]) == []
    assert "source token" not in shown(report)
    assert "how tokens stand" not in model_card(report)


def test_a_comparison_shows_that_of_every_method_on_its_page_and_of_the_best_on_a_terminal(
    tmp_path: Path,
) -> None:
    table = comparison("omp & co", "zero")
    for entry in table["evaluation"]["entries"]:
        entry["by_span"] = PARTS
    write_plot(tmp_path / "a.html", table)
    text = (tmp_path / "a.html").read_text("utf-8")
    for name in ("omp &amp; co", "zero"):
        assert (
            f'<tr><th scope="row">{name}</th><td>0.9490</td><td>0.9160</td><td>0.1220</td>' in text
        )
    buffer = io.StringIO()
    print_comparison(Console(file=buffer, width=200), table)
    assert f"omp & co: {SENTENCE}" in buffer.getvalue()
