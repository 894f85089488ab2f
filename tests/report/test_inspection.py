"""An inspection on a terminal and as a page: all of it, escaped, and nothing loaded."""

from __future__ import annotations

import html
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from tokensurgeon.errors import OutputError
from tokensurgeon.inspection import Inspection, inspect_tokenizer
from tokensurgeon.report import inspection_words as said
from tokensurgeon.report.inspection_views import page, print_inspection, write_page

NASTY = "if a < b && c > \"d\": '</pre><script>alert(1)</script>' {{ 7 * 7 }}\n  größer 日本\n"


@pytest.fixture(scope="module")
def inspection(
    tmp_path_factory: pytest.TempPathFactory, tiny_source: Path, tiny_donor: Path
) -> Inspection:
    name = tmp_path_factory.mktemp("text") / "<i>&.txt"
    name.write_text(NASTY * 5, "utf-8")
    return inspect_tokenizer(
        tiny_source, [name], against=[tiny_donor], checkpoint=tiny_source, shown_bytes=400
    )


class Page(HTMLParser):
    """Gathers tags, attributes and the text of tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.titles: list[str] = []
        self.cuts: list[str] = []
        self._in_cut = False

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [v or "" for k, v in attributes if k in ("src", "href", "srcset")]
        self.titles += [v or "" for k, v in attributes if k == "title"]
        if tag == "pre":
            self._in_cut = True
            self.cuts.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == "pre":
            self._in_cut = False

    def handle_data(self, data: str) -> None:
        if self._in_cut:
            self.cuts[-1] += data


def test_the_page_escapes_texts_and_names_and_loads_nothing(inspection: Inspection) -> None:
    text = page(inspection)
    parsed = Page()
    parsed.feed(text)
    assert not {"script", "link", "img", "iframe", "i", "b"} & set(parsed.tags)
    assert parsed.addresses == []
    assert "http-equiv" in text
    assert not re.search(r"url\(|@import|https?://", text)
    assert html.escape("<i>&.txt") in text
    assert "49" not in parsed.cuts[0]
    assert "{{·7·*·7·}}" in parsed.cuts[0]


def test_the_page_shows_every_token_of_every_cut_with_its_id(inspection: Inspection) -> None:
    parsed = Page()
    parsed.feed(page(inspection))
    spans = [span for one in inspection.excerpts for cut in one.cuts for span in cut]
    assert parsed.titles == [span.about for span in spans]
    shown = ["".join(s.shown for s in cut) for one in inspection.excerpts for cut in one.cuts]
    assert parsed.cuts == shown


def test_terminal_and_page_say_the_same(inspection: Inspection) -> None:
    screen = Console(file=(buffer := io.StringIO()), width=200, highlight=False)
    print_inspection(screen, inspection)
    printed = buffer.getvalue()
    text = html.unescape(page(inspection))
    for row in said.rows(inspection):
        for cell in row.cells:
            assert cell in printed
            assert cell in text
    for note in said.notes(inspection):
        assert note in printed
        assert note in text
    assert said.PATHPIECE in printed


def test_tokens_are_parted_by_bars_without_colour_and_by_backgrounds_with_it(
    inspection: Inspection,
) -> None:
    plain = Console(file=(buffer := io.StringIO()), width=400, highlight=False)
    print_inspection(plain, inspection)
    for cut in inspection.excerpts[0].cuts:
        first = "|".join(span.shown for span in cut).split("\n")[0]
        assert first.count("|") > 10
        assert first in buffer.getvalue()
    buffer = io.StringIO()
    colour = Console(file=buffer, width=400, force_terminal=True, color_system="truecolor")
    print_inspection(colour, inspection)
    assert "\x1b[30;48;2;168;209;255m" in buffer.getvalue()
    assert "\x1b[30;48;2;255;217;160m" in buffer.getvalue()


@pytest.mark.parametrize("width", [40, 80, 120])
def test_a_narrow_terminal_cuts_no_figure(inspection: Inspection, width: int) -> None:
    screen = Console(file=(buffer := io.StringIO()), width=width, highlight=False)
    print_inspection(screen, inspection)
    printed = buffer.getvalue()
    total = inspection.entries[0].figures.total
    assert total is not None
    assert f"{total.bytes_per_token:.3f}" in printed


def test_a_page_is_written_whole_or_not_at_all(
    inspection: Inspection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_page(tmp_path / "page.html", inspection)
    assert (tmp_path / "page.html").read_text("utf-8") == page(inspection)

    def fail(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OutputError, match="No space"):
        write_page(tmp_path / "other.html", inspection)
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
