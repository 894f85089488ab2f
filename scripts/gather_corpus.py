"""Gather plain text from packaged, permissively licensed documentation.

Reads the HTML that Debian's documentation packages install (see ``SOURCES``), strips navigation,
drops repeated paragraphs, and writes three JSON-lines files of documents, one object each with
``source``, ``name`` and ``text``::

    train.jsonl         everything that is not held out
    calibration.jsonl   database documentation
    evaluation.jsonl    database documentation

It downloads nothing. If packages are absent, it prints their names.

Whole documents are split, in the order of a seeded hash of their names: database documents of
medium length (1,200 to 8,000 bytes) fill the evaluation text, then the calibration text; all others
are for training. The other two texts must not share 13 consecutive words (letters, digits and
underscores, in lower case) with the evaluation text: every paragraph that such a run touches is
dropped, boilerplate included, and the search is repeated until no run is left. The script fails if
one remains.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

NGRAM = 13
"""Words, as in `tokensurgeon.text.overlap`."""
WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Source:
    """One package: the folder of its pages, and the element of a page that holds the text."""

    name: str
    package: str
    licence: str
    folder: str
    body: frozenset[str] = frozenset()
    leave: str = r"$^"


SPHINX = frozenset({"body"})
SOURCES = (
    Source(
        "postgresql",
        "postgresql-doc-15",
        "PostgreSQL",
        "postgresql-doc-15/html",
        leave=r"^(release|bookindex|biblio|index|acronyms)",
    ),
    Source(
        "sqlite",
        "sqlite3-doc",
        "public domain",
        "sqlite3",
        leave=r"^(changes|chronology|keyword_index|doclist|sitemap|search|toc|prosupport|requirements"
        r"|doc_\w+_crossref)$|^releaselog/",
    ),
    Source(
        "sqlalchemy",
        "python-sqlalchemy-doc",
        "MIT",
        "python-sqlalchemy-doc/html",
        frozenset({"docs-body"}),
        r"^(genindex|search|changelog/changelog)|_modules/",
    ),
    Source(
        "django",
        "python-django-doc",
        "BSD-3-Clause",
        "python-django-doc/html",
        frozenset({"bd", "yui-main"}),
        r"^(genindex|search|py-modindex|contents)|_modules/",
    ),
    Source(
        "python",
        "python3.11-doc",
        "PSF-2.0",
        "python3.11/html",
        SPHINX,
        r"^(genindex|search|contents|py-modindex|whatsnew/changelog|license|copyright)|_static",
    ),
    Source("nodejs", "nodejs-doc", "MIT", "nodejs/api", frozenset({"apicontent"}), r"^all$"),
    Source(
        "cmake",
        "cmake-doc",
        "BSD-3-Clause",
        "cmake-data/html",
        SPHINX,
        r"^(genindex|search|index)|_static",
    ),
    Source(
        "flask",
        "python-flask-doc",
        "BSD-3-Clause",
        "python-flask-doc/html",
        SPHINX,
        r"^(genindex|search|py-modindex)|_modules/",
    ),
)
DATABASES = ("postgresql", "sqlite")

SKIPPED_TAGS = {"script", "style", "head", "nav", "form", "svg", "button", "select"}
SKIPPED_CLASSES = {
    "navheader", "navfooter", "toc", "nosearch", "headerlink", "viewcode-link", "sphinxsidebar",
    "footer", "related", "indexterm", "mark", "fancy_toc", "bottomnav", "version-picker", "menu",
}  # fmt: skip
BLOCKS = {
    "p", "div", "section", "article", "ul", "ol", "dl", "dt", "table", "tr", "pre", "blockquote",
    "h1", "h2", "h3", "h4", "h5", "h6", "hr", "body", "main", "details", "summary",
}  # fmt: skip
VOID = {"br", "hr", "img", "input", "link", "meta", "area", "base", "col", "embed", "wbr"}


class Page(HTMLParser):
    """The text of one page, with blank lines between blocks and ``pre`` unchanged."""

    def __init__(self, body: frozenset[str]) -> None:
        super().__init__(convert_charrefs=True)
        self.body = body
        self.inside = None if body else "html"
        self.depth = 1
        self.skip: str | None = None
        self.skip_depth = 0
        self.pre = 0
        self.in_title = False
        self.title = ""
        self.parts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Enter the body, enter something skipped, or break the line."""
        if tag == "title":
            self.in_title = True
        if self.skip:
            self.skip_depth += tag == self.skip
            return
        values = {k: v or "" for k, v in attrs}
        names = {*values.get("class", "").split(), values.get("id", "")}
        if self.inside is None:
            if names & self.body:
                self.inside, self.depth = tag, 1
            return
        if tag not in VOID and (tag in SKIPPED_TAGS or names & SKIPPED_CLASSES):
            self.skip, self.skip_depth = tag, 1
            return
        self.depth += tag == self.inside
        if tag == "br":
            self.parts.append("\n")
        elif tag in ("li", "dd"):
            self.parts.append("\n- " if tag == "li" else "\n    ")
        elif tag in ("td", "th"):
            self.parts.append("  ")
        elif tag == "tr":
            self.parts.append("\n")
        elif tag in BLOCKS:
            self.parts.append("\n\n")
        self.pre += tag == "pre"

    def handle_endtag(self, tag: str) -> None:
        """Leave the body or something skipped, or break the line."""
        if tag == "title":
            self.in_title = False
        if self.skip:
            self.skip_depth -= tag == self.skip
            if not self.skip_depth:
                self.skip = None
            return
        if self.inside is None:
            return
        if tag == "pre":
            self.pre = max(0, self.pre - 1)
        if tag in BLOCKS and tag != "tr":
            self.parts.append("\n\n")
        if tag == self.inside and self.body:
            self.depth -= 1
            if not self.depth:
                self.inside = None

    def handle_data(self, data: str) -> None:
        """Keep text; fold white space unless inside ``pre``."""
        if self.in_title:
            self.title += data
        elif self.inside is not None and not self.skip:
            # \x00 protects the line breaks of ``pre`` from being folded at the end.
            text = data.replace("\n", "\x00") if self.pre else re.sub(r"\s+", " ", data)
            self.parts.append(text)

    def text(self) -> str:
        """Return the page as paragraphs separated by one blank line."""
        text = "".join(self.parts).replace("\xa0", " ").replace("¶", "")
        text = re.sub(r"(?<=\S)  +(?=\S)", "  ", text)
        text = re.sub(r"[ \t]+(?=[\n\x00]|$)", "", text)
        text = re.sub(r"\n +(?=[^ \x00])", lambda m: m[0] if len(m[0]) == 5 else "\n", text)
        text = re.sub(r"\n-\s*\n\n", "\n- ", text)
        text = re.sub(r"\n{3,}", "\n\n", text.replace("\x00", "\n"))
        return re.sub(r"\n{3,}", "\n\n", text).strip()


@dataclass
class Document:
    """One page of one package."""

    source: str
    name: str
    text: str

    def paragraphs(self) -> list[str]:
        """Return the blocks between blank lines."""
        return self.text.split("\n\n")


def read_pages(source: Source, root: Path) -> Iterator[Document]:
    """Yield the pages of one package that hold text, sorted by name."""
    folder = root / source.folder
    for path in sorted(folder.rglob("*.html")):
        name = path.relative_to(folder).as_posix()
        if re.search(source.leave, name.removesuffix(".html")) or path.is_symlink():
            continue
        page = Page(source.body)
        page.feed(path.read_text("utf-8", errors="ignore"))
        page.close()
        text, title = page.text(), re.split(r" [—|] ", " ".join(page.title.split()))[0]
        if source.name == "sqlite" and title and not text.startswith(title):
            text = f"{title}\n\n{text}"
        if len(text) >= 300:
            yield Document(source.name, name.removesuffix(".html"), text)


def drop_repeats(documents: Iterable[Document]) -> list[Document]:
    """Drop every paragraph of 60 characters or more seen in an earlier document."""
    seen: set[str] = set()
    left = []
    for document in documents:
        fresh = []
        for paragraph in document.paragraphs():
            key = " ".join(WORD.findall(paragraph.lower()))
            if len(key) < 60 or key not in seen:
                fresh.append(paragraph)
            seen.add(key)
        document.text = "\n\n".join(fresh)
        if len(document.text) >= 300:
            left.append(document)
    return left


def order(document: Document, seed: int) -> str:
    """Return the key by which documents are split, the same on every machine."""
    return hashlib.sha256(f"{seed}/{document.source}/{document.name}".encode()).hexdigest()


def grams(paragraphs: list[str]) -> Iterator[tuple[int, int, tuple[str, ...]]]:
    """Yield ``(first paragraph, last paragraph, 13 words)`` over a whole document."""
    words = [(i, w) for i, p in enumerate(paragraphs) for w in WORD.findall(p.lower())]
    for at in range(len(words) - NGRAM + 1):
        run = words[at : at + NGRAM]
        yield run[0][0], run[-1][0], tuple(w for _, w in run)


def remove_shared(documents: list[Document], held_out: set[tuple[str, ...]]) -> tuple[int, int]:
    """Drop paragraphs that share 13 words with the held-out text; return how many, and bytes."""
    count = size = 0
    for document in documents:
        while True:
            paragraphs = document.paragraphs()
            touched = {
                i
                for first, last, gram in grams(paragraphs)
                if gram in held_out
                for i in range(first, last + 1)
            }
            if not touched:
                break
            count += len(touched)
            size += sum(len(paragraphs[i].encode()) for i in touched)
            document.text = "\n\n".join(p for i, p in enumerate(paragraphs) if i not in touched)
    return count, size


def split(
    documents: list[Document], seed: int, evaluation_bytes: int, calibration_bytes: int
) -> dict[str, list[Document]]:
    """Split the documents into evaluation, calibration and training text."""
    parts: dict[str, list[Document]] = {"evaluation": [], "calibration": [], "train": []}
    wanted = {"evaluation": evaluation_bytes, "calibration": calibration_bytes}
    for document in sorted(documents, key=lambda d: order(d, seed)):
        size = len(document.text.encode())
        fits = document.source in DATABASES and 1200 <= size <= 8000
        part = next((p for p in wanted if fits and wanted[p] > 0), "train")
        if part in wanted:
            wanted[part] -= size
        parts[part].append(document)
    return parts


def write(path: Path, documents: list[Document]) -> None:
    """Write documents as JSON lines and print one line about them."""
    lines = [json.dumps(d.__dict__, ensure_ascii=False) + "\n" for d in documents]
    path.write_text("".join(lines), "utf-8")
    size = sum(len(d.text.encode()) for d in documents)
    print(f"{path.name}: {len(documents)} documents, {size:,} bytes of text")
    for name in sorted({d.source for d in documents}):
        own = [len(d.text.encode()) for d in documents if d.source == name]
        print(f"  {name}: {len(own)} documents, {sum(own):,} bytes")


def main() -> int:
    """Gather, split and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path, help="folder to write into")
    parser.add_argument("--root", type=Path, default=Path("/usr/share/doc"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--evaluation-bytes", type=int, default=100_000)
    parser.add_argument("--calibration-bytes", type=int, default=120_000)
    args = parser.parse_args()
    absent = [s.package for s in SOURCES if not (args.root / s.folder).is_dir()]
    if absent:
        print(f"Not installed: {' '.join(absent)}. Install these packages.", file=sys.stderr)
        return 1
    documents = drop_repeats(page for source in SOURCES for page in read_pages(source, args.root))
    parts = split(documents, args.seed, args.evaluation_bytes, args.calibration_bytes)
    held_out = {gram for d in parts["evaluation"] for *_, gram in grams(d.paragraphs())}
    for part in ("calibration", "train"):
        count, size = remove_shared(parts[part], held_out)
        print(f"{part}: {count} paragraphs ({size:,} bytes) shared text with the evaluation text")
        parts[part] = [d for d in parts[part] if len(d.text) >= 300]
        if any(gram in held_out for d in parts[part] for *_, gram in grams(d.paragraphs())):
            print(f"{part} still shares {NGRAM} words with the evaluation text", file=sys.stderr)
            return 1
    args.output.mkdir(parents=True, exist_ok=True)
    for part, part_documents in parts.items():
        write(args.output / f"{part}.jsonl", part_documents)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
