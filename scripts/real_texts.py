"""The texts that surgeries of real models are fitted to and measured on.

`scripts/measure_real_pairs.py` uses them; `corpora/` of third parties holds the originals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from measuring import documents_file

from tokensurgeon.text.corpus import read_documents

EACH_HELD_OUT = 6
"""One article of so many is held out: enough for 24 kB of whole articles, and 0.86 MB remain."""
HELD_BYTES = 24_000
"""Four whole articles; one thread runs Gemma-3-270M over them in half a minute."""
OTHER_BYTES = 6_000
"""Of each text of another kind: together less than is held out, so that it costs less."""
OTHER = ("tiny-shakespeare", "code-python-attrs", "flores-en")


class TextsError(Exception):
    """There is nothing to measure on; the message says why, and what to do."""


@dataclass(frozen=True)
class Texts:
    """Files: to fit to, to measure on, and of other kinds by their names."""

    fit: Path
    held: Path
    other: dict[str, Path]


def split(articles: Sequence[str], n_bytes: int) -> tuple[list[str], list[str]]:
    """Divide articles into those to fit to and those to measure on.

    Every sixth is held out, the first too; of these, in order, each that still fits into `n_bytes`
    is measured on, and the rest is not used.

    Returns
    -------
    fit, held : list of str
        They share no article.

    Examples
    --------
    >>> split(["one", *"abcde", "two", "f", "g"], 4)
    (['a', 'b', 'c', 'd', 'e', 'f', 'g'], ['one'])
    """
    held: list[str] = []
    size = 0
    for article in articles[::EACH_HELD_OUT]:
        n = len(article.encode())
        if size + n <= n_bytes:
            held.append(article)
            size += n
    return [article for i, article in enumerate(articles) if i % EACH_HELD_OUT], held


def first_lines(text: str, n_bytes: int) -> str:
    """Return the whole lines in the first `n_bytes` bytes of a text; the bytes if there is none."""
    start = text.encode()[:n_bytes].decode(errors="ignore")
    return start if len(start) == len(text) else start.rpartition("\n")[0] or start


def write_texts(assets: Path, state: Path, n_bytes: int) -> Texts:
    """Write the texts into the state folder; they must be those of the runs that it holds."""
    corpora = assets / "corpora"
    articles = [one.text for one in read_documents([corpora / "wiki-articles.jsonl"])]
    parts = dict(zip(("fit", "held"), split(articles, n_bytes), strict=True))
    if not parts["held"]:
        raise TextsError(f"no held-out article fits into {n_bytes:,} bytes; give more --bytes")
    for name in OTHER:
        (document,) = read_documents([corpora / f"{name}.txt"])
        parts[name] = [first_lines(document.text, OTHER_BYTES)]
    files = {}
    for name, texts in parts.items():
        file = state / "texts" / f"{name}.jsonl"
        if file.exists() and [one.text for one in read_documents([file])] != texts:
            raise TextsError(f"{file} holds another text; give another folder to --state")
        files[name] = documents_file(file, texts)
    return Texts(files["fit"], files["held"], {name: files[name] for name in OTHER})
