"""Gather a large technical corpus from what is installed: documentation, manuals, source code.

    python scripts/gather_technical.py FOLDER [--megabytes 100]

Reads, under ``/usr``, the pages of documentation packages (HTML, plain text), manual pages, C
headers and Python modules, and writes ``train.jsonl`` and ``held-out-KIND.jsonl``, one document a
line with ``source``, ``name`` and ``text``. One package in thirty is held out, so held-out text is
never of a package trained on. At most a few megabytes are taken of each package. Of equal documents
one is kept.

It installs nothing. On Debian, documentation packages (``…-doc``) give the most text; with few of
them less is gathered, and the script says how much. The text has many licences: it is for
measuring, not for publishing.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import html
import json
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from gather_corpus import Page
from joblib import Parallel, delayed

HELD_OUT_OF = 30  # one package in so many is held out
HELD_OUT_BYTES = 200_000  # of each
LEAST, MOST = 400, 400_000  # characters of a document
KINDS = {
    "doc": (Path("/usr/share/doc"), {".html", ".htm", ".txt", ".rst", ".md", ".gz"}),
    "man": (Path("/usr/share/man"), {".gz"}),
    "include": (Path("/usr/include"), {".h", ".hpp"}),
    "python": (Path("/usr/lib"), {".py"}),
}
SKIPPED = re.compile(
    r"genindex|search|_modules|py-modindex|changelog|NEWS|copyright|_static|bookindex|releas",
    re.IGNORECASE,
)
FONT = re.compile(r"\\f(?:\[[^]]*\]|\(..|.)")


def groups(kind: str) -> Iterator[tuple[str, list[Path]]]:
    """Yield each package's name and its files, sorted."""
    root, suffixes = KINDS[kind]
    paths_of: defaultdict[str, list[Path]] = defaultdict(list)
    for path in sorted(root.rglob("*")):
        relative = path.relative_to(root)
        if path.suffix not in suffixes or SKIPPED.search(str(relative)) or path.is_symlink():
            continue
        if kind == "man":
            if not re.match(r"man\d/", str(relative)):
                continue  # translations
            # Pages of one program begin alike: git-add, git-am.
            name = re.split(r"[-._0-9:]", path.name)[0]
        else:
            name = "/".join(relative.parts[: 3 if kind == "python" else 1])
        if path.is_file():
            paths_of[f"{kind}/{name}"].append(path)
    yield from paths_of.items()


def text_of(path: Path) -> str:
    """Return the plain text of a file."""
    data = path.read_bytes()
    if path.suffix == ".gz":
        data = gzip.decompress(data)
    text = data.decode("utf-8", errors="ignore")
    if path.suffix in (".html", ".htm"):
        page = Page(frozenset())
        page.feed(text)
        page.close()
        return page.text()
    if "/man/" in str(path):
        return plain_manual(text)
    return text


def plain_manual(text: str) -> str:
    """Return a manual page without its macros; a rough rendering, which keeps the words."""
    lines = []
    for line in text.split("\n"):
        if line.startswith((".\\", "'\\", "..")):
            continue
        if line.startswith("."):
            macro, _, rest = line.partition(" ")
            if macro in (".SH", ".SS", ".Sh", ".Ss"):
                lines += ["", rest.strip('"'), ""]
            elif macro in (".PP", ".P", ".LP", ".Pp", ".sp"):
                lines.append("")
            elif macro in (".B", ".I", ".BR", ".IR", ".BI", ".RB", ".TP", ".IP", ".Fl", ".Nm"):
                lines.append(rest.replace('" "', "").replace('"', ""))
            continue
        lines.append(line)
    text = FONT.sub("", "\n".join(lines))
    text = text.replace("\\-", "-").replace("\\(aq", "'").replace("\\&", "").replace("\\e", "\\")
    text = re.sub(r"\\\((?:lq|rq)", '"', text)
    return html.unescape(re.sub(r"\n{3,}", "\n\n", text)).strip()


def is_held_out(name: str) -> bool:
    """Return whether a package is held out, which depends on its name alone."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[-4:], "big") % HELD_OUT_OF == 0


def documents(name: str, paths: list[Path], most: int) -> list[dict[str, str]]:
    """Return the documents of one package, up to so many bytes."""
    texts, total = [], 0
    # In the order of hashes, so that a limit takes pages of the whole package.
    for path in sorted(paths, key=lambda p: hashlib.sha256(str(p).encode()).digest()):
        try:
            text = text_of(path)
        except (OSError, ValueError, EOFError, AssertionError):
            continue
        if not LEAST <= len(text) <= MOST:
            continue
        texts.append({"source": name, "name": path.name, "text": text})
        total += len(text.encode())
        if total >= most:
            break
    return texts


def main() -> int:
    """Gather, hold out, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path, help="folder to write into")
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--package-megabytes", type=float, default=5, help="at most, of each")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    every = [group for kind in KINDS for group in groups(kind)]
    every.sort(key=lambda group: hashlib.sha256(group[0].encode()).digest())
    wanted = args.megabytes * 1_000_000
    seen: set[bytes] = set()
    kinds: defaultdict[str, int] = defaultdict(int)
    names = ["train", *(f"held-out-{kind}" for kind in KINDS)]
    files = {name: (args.output / f"{name}.jsonl").open("w", encoding="utf-8") for name in names}

    def tasks() -> Iterator[object]:
        for name, paths in every:
            if kinds["train"] >= wanted:
                return
            most = HELD_OUT_BYTES if is_held_out(name) else int(1e6 * args.package_megabytes)
            yield delayed(documents)(name, paths, most)

    read = Parallel(n_jobs=-1, return_as="generator", pre_dispatch="4*n_jobs")(tasks())
    for (name, _), texts in zip(every, read, strict=False):
        kind = name.split("/")[0]
        part = f"held-out-{kind}" if is_held_out(name) else "train"
        for document in texts:
            key = hashlib.sha256(document["text"].encode()).digest()
            if key in seen or kinds["train"] >= wanted:
                continue
            seen.add(key)
            size = len(document["text"].encode())
            kinds[part] += size
            if part == "train":
                kinds[f"train, of it {kind}"] += size
            files[part].write(json.dumps(document, ensure_ascii=False) + "\n")
        if sys.stderr.isatty():
            print(f"\r{sum(kinds.values()):,} bytes", end="", file=sys.stderr)
    for file in files.values():
        file.close()
    for name, size in sorted(kinds.items()):
        print(f"{name}: {size:,} bytes")
    if kinds["train"] < wanted:
        print(f"only {kinds['train']:,} bytes are there; install more documentation packages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
