"""The page of a surgery: it says what report.json says, to everybody, and loads nothing."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.report.test_report import make_report
from tokensurgeon.errors import CheckpointError
from tokensurgeon.jobs.trim import trim
from tokensurgeon.report import SurgeryReport, surgery_page, write_surgery_page
from tokensurgeon.report.shown_numbers import ShownNumbers
from tokensurgeon.report.surgery_page import load_lines
from tokensurgeon.surgery import transplant
from tokensurgeon.surgery.shown_rows import POINTS

VOID = {"meta", "br"}
UNITS = {"kB": 1e3, "MB": 1e6, "GB": 1e9, "min": 60.0, "%": 0.01}


class Element:
    def __init__(self, tag: str, attributes: dict[str, str], parent: Element | None) -> None:
        self.tag, self.attributes, self.parent = tag, attributes, parent
        self.inner: list[Element | str] = []

    def __iter__(self):
        yield self
        for child in self.inner:
            if isinstance(child, Element):
                yield from child

    @property
    def text(self) -> str:
        return "".join(c if isinstance(c, str) else c.text for c in self.inner)

    def classes(self) -> list[str]:
        return self.attributes.get("class", "").split()


class Tree(HTMLParser):
    """A page as elements; a tag that is not closed where it should be is an error."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.root = self.at = Element("", {}, None)
        self.feed(html)
        assert self.at is self.root, self.at.tag

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs}, self.at)
        self.at.inner.append(element)
        if tag not in VOID:
            self.at = element

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.at.inner.append(Element(tag, {n: v or "" for n, v in attrs}, self.at))

    def handle_endtag(self, tag: str) -> None:
        assert tag == self.at.tag, f"</{tag}> ends <{self.at.tag}>"
        assert self.at.parent is not None
        self.at = self.at.parent

    def handle_data(self, data: str) -> None:
        self.at.inner.append(data)

    def all(self, *tags: str) -> list[Element]:
        return [element for element in self.root if element.tag in tags]


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory, tiny_source: Path, tiny_donor: Path, tiny_text: Path
) -> Path:
    """A surgery with everything that a page shows."""
    output = tmp_path_factory.mktemp("page") / "patched"
    transplant(
        source=str(tiny_source),
        donor=str(tiny_donor),
        output=str(output),
        init={"input": "subword-mean", "output": "subword-last"},
        text={"evaluation": [str(tiny_text)], "generate": 2},
        budget=0,
    )
    return output


@pytest.fixture(scope="module")
def trimmed(tmp_path_factory: pytest.TempPathFactory, tiny_source: Path, tiny_text: Path) -> Path:
    output = tmp_path_factory.mktemp("trimmed") / "small"
    trim(tiny_source, output, text=[tiny_text], size=290)
    return output


OF = {"data-of", "data-count-of"}
"""Attributes that say where in the report a number is from."""


@pytest.fixture(params=["patched", "trimmed", "old"])
def page_and_report(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """A page of each kind with its report.json: `old` is as an older version wrote it."""
    if request.param == "old":
        report = make_report()
        return surgery_page(report), json.loads(report.to_json())
    written = request.getfixturevalue({"patched": "folder", "trimmed": "trimmed"}[request.param])
    html = (written / "report.html").read_text("utf-8")
    return html, json.loads((written / "report.json").read_text("utf-8"))


def shown_value(text: str) -> tuple[float, float]:
    """Return the number that is written, and half a unit of its last digit."""
    found = re.search(r"([-+]?[\d,]+(?:\.\d+)?) ?(\S*)", text)
    assert found is not None, text
    scale = UNITS.get(found[2], 1.0)
    digits = len(found[1].partition(".")[2])
    return float(found[1].replace(",", "")) * scale, 0.5001 * 10.0**-digits * scale


def test_every_number_is_that_of_the_report(page_and_report: tuple[str, dict[str, Any]]) -> None:
    html, report = page_and_report
    marked = [e for e in Tree(html).root if OF & set(e.attributes)]
    assert len(marked) > 15
    lookup = ShownNumbers(report)
    for element in marked:
        counted = element.attributes.get("data-count-of")
        place = element.attributes["data-of"] if counted is None else counted
        assert not place.endswith(("/", "#"))
        value = lookup.value(place) if counted is None else len(lookup.value(place))
        assert value is not None, place
        written = element.attributes["value" if element.tag == "data" else "data-value"]
        assert float(written) == value, place
        number, half = shown_value(element.text)
        if place.endswith("tokens_saved"):  # written as the change that it is
            number = -number
        assert abs(number - value) <= half, f"{place}: {element.text} is not {value}"


def test_no_other_number_is_on_the_page(page_and_report: tuple[str, dict[str, Any]]) -> None:
    """But in sentences that other tests read, names, texts and code."""
    tree = Tree(page_and_report[0])
    leave = {"style", "title", "desc", "code", "pre", "h1", "b", "meta"}

    def texts(element: Element):
        row_name = element.tag == "th" and element.attributes.get("scope") == "row"
        if element.tag in leave and not any(OF & set(e.attributes) for e in element):
            return
        if row_name or {"said", "text"} & set(element.classes()) or OF & set(element.attributes):
            return
        for child in element.inner:
            if isinstance(child, str):
                yield child
            else:
                yield from texts(child)

    assert not [text for text in texts(tree.root) if re.search(r"\d", text)]


def test_the_page_of_a_folder_is_made_from_its_report_alone(folder: Path, tmp_path: Path) -> None:
    report = SurgeryReport.from_json((folder / "report.json").read_bytes())
    written = (folder / "report.html").read_text("utf-8")
    assert surgery_page(report) == written
    path = write_surgery_page(folder, tmp_path / "again.html")
    assert path.read_text("utf-8") == written
    with pytest.raises(CheckpointError, match=r"report\.json is no report"):
        write_surgery_page(tmp_path, tmp_path / "none.html")
    assert not (tmp_path / "none.html").exists()


def test_all_parts_are_there(folder: Path) -> None:
    tree = Tree((folder / "report.html").read_text("utf-8"))
    ids = {element.attributes.get("id") for element in tree.all("section")}
    assert ids == {"measured", "tokens", "kinds", "new", "map", "alignment", "warnings", "cost",
                   "load"}  # fmt: skip
    pictures = {e.attributes["aria-labelledby"].split("-title")[0] for e in tree.all("svg")
                if "aria-labelledby" in e.attributes}  # fmt: skip
    assert pictures == {"gaps", "map-input", "map-output", "alignment"}


def test_what_a_report_does_not_say_is_left_out() -> None:
    bare = make_report(evaluation=None, not_evaluated="no text was given")
    tree = Tree(surgery_page(bare))
    ids = {element.attributes.get("id") for element in tree.all("section")}
    assert ids == {"measured", "warnings", "cost", "load"}
    assert "no text was given" in tree.root.text


def test_the_page_loads_and_runs_nothing(page_and_report: tuple[str, dict[str, Any]]) -> None:
    tree = Tree(page_and_report[0])
    assert not tree.all("script", "link", "img", "iframe", "object", "embed", "use", "image")
    assert "default-src 'none'" in page_and_report[0]
    for element in tree.root:
        assert not {"src", "style", "srcset", "xlink:href"} & set(element.attributes)
        assert not [name for name in element.attributes if name.startswith("on")]
        assert element.attributes.get("href", "#").startswith("#")
    assert "url(" not in page_and_report[0]
    assert "@import" not in page_and_report[0]


def test_the_structure_can_be_read_aloud(page_and_report: tuple[str, dict[str, Any]]) -> None:
    tree = Tree(page_and_report[0])
    assert tree.all("html")[0].attributes["lang"] == "en"
    assert tree.all("title")[0].text.strip()
    ids = [e.attributes["id"] for e in tree.root if "id" in e.attributes]
    assert len(ids) == len(set(ids))
    levels = [int(e.tag[1]) for e in tree.all("h1", "h2", "h3", "h4")]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    for link in tree.all("a"):
        assert link.attributes["href"][1:] in ids
    for heading in tree.all("th"):
        assert heading.attributes.get("scope") in ("col", "row")
        assert heading.text.strip()
    for table in tree.all("table"):
        assert [e.text.strip() for e in table if e.tag == "caption"] != [""]
        around = table.parent
        assert around is not None
        assert around.attributes["tabindex"] == "0"
        assert around.attributes["role"] == "region"
        assert around.attributes["aria-label"]
    for picture in tree.all("svg"):
        if picture.attributes.get("aria-hidden") == "true":
            continue
        assert picture.attributes["role"] == "img"
        named = picture.attributes["aria-labelledby"].split()
        own = {e.attributes.get("id"): e for e in picture if e.tag in ("title", "desc")}
        assert all(own[name].text.strip() for name in named)


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """Return the ratio of the Web Content Accessibility Guidelines 2.2."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_colours_can_be_told_apart_in_light_in_dark_and_on_paper() -> None:
    style = Tree(surgery_page(make_report())).all("style")[0].text
    schemes = [dict(re.findall(r"--(\w+): (#\w{6})", one)) for one in
               re.findall(r":root \{([^}]*)\}", style)]  # fmt: skip
    assert len(schemes) == 3
    assert luminance(schemes[1]["paper"]) < 0.02 < 0.9 < luminance(schemes[0]["paper"])
    for scheme in schemes:
        assert set(scheme) == set(schemes[0])
        for ground in ("paper", "box"):
            for ink in ("ink", "soft", "main"):
                assert contrast(scheme[ink], scheme[ground]) >= 4.5, (ink, ground)
        for ground in ("even", "odd"):
            assert contrast(scheme["ink"], scheme[ground]) >= 4.5, ground
        for mark in ("main", "new", "left", "control"):
            assert contrast(scheme[mark], scheme["paper"]) >= 3.0, mark


def test_what_is_in_tokens_and_names_stays_text() -> None:
    evil = "<script>alert(1)</script>"
    report = make_report(
        warnings=(evil,), baselines=(evil,), source=make_report().source.model_copy(
            update={"path": f"models/{evil}"}
        ), written_to=f"out {evil}",
    )  # fmt: skip
    html = surgery_page(report)
    assert "<script" not in html
    assert "&lt;script&gt;" in html


def test_what_is_shown_of_rows_and_texts_is_bounded_and_true(folder: Path) -> None:
    report = SurgeryReport.from_json((folder / "report.json").read_bytes())
    assert [one.side for one in report.row_maps] == ["input", "output"]
    for one in report.row_maps:
        for kind, total in one.totals.items():
            assert len(getattr(one, kind)) == min(total, POINTS)
        assert 0 < sum(one.explained) <= 1
    assert report.row_maps[1].totals["copied"] == report.output.copied
    assert report.row_maps[1].totals["new"] == report.output.initialised
    for cut in report.cuts:
        assert sum(cut.source) == sum(cut.target) == len(cut.text.encode())
    patched = next(e for e in report.evaluation["entries"] if e["name"] == "patched")
    named = [one["id"] for end in ("worst", "best") for one in patched["new_tokens"][end]]
    assert [fact.id for fact in report.new_tokens] == named
    for fact in report.new_tokens:
        assert [side.method for side in fact.sides] == ["subword-mean", "subword-last"]
        mean, last = (side.weights for side in fact.sides)
        assert {weight.spelling for weight in mean} <= set(fact.pieces)
        assert [weight.spelling for weight in last] == [fact.pieces[-1]]
    saved = patched["tokens_saved"]
    assert saved == pytest.approx(1 - patched["tokens"] / report.evaluation["entries"][0]["tokens"])


@pytest.mark.parametrize(
    ("kind", "programs", "said"),
    [
        ("causal", ["transformers", "vLLM", "llama.cpp"], "AutoModelForCausalLM"),
        ("masked", ["transformers"], "AutoModelForMaskedLM"),
        ("encoder-decoder", ["transformers"], "AutoModelForSeq2SeqLM"),
        ("headless", ["transformers"], "AutoModel."),
    ],
)
def test_the_lines_that_load_it_fit_the_kind(kind: str, programs: list[str], said: str) -> None:
    report = make_report()
    report = report.model_copy(update={"source": report.source.model_copy(update={"kind": kind})})
    lines = load_lines(report, "a folder/x")
    assert [program for program, _, _ in lines] == programs
    assert said in lines[0][1]
    compile(lines[0][1], "transformers", "exec")
    assert all("'a folder/x'" in line for _, line, _ in lines)


def test_the_lines_for_transformers_load_the_model(folder: Path) -> None:
    report = SurgeryReport.from_json((folder / "report.json").read_bytes())
    namespace: dict[str, Any] = {}
    exec(load_lines(report, str(folder))[0][1], namespace)
    assert len(namespace["tokenizer"]) == report.target.n_tokens
    assert namespace["model"].get_input_embeddings().weight.shape[0] == report.rows.total
