"""Texts of several files or languages, each with as much of the bytes as the others.

A document's language is what an object of a JSON file says under a key, else what the name of the
file says: a code as FLORES has it (``deu_Latn.devtest``), or one of two or three letters at the
start or the end of the name (``flores-de.txt``, ``de.jsonl``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tokensurgeon.errors import CorpusError
from tokensurgeon.text.chunks import chunk_documents
from tokensurgeon.text.corpus import (
    Corpus,
    Document,
    corpus_of_documents,
    find_files,
    iter_documents,
)
from tokensurgeon.text.formats import json_values, suffix_of, text_of_value
from tokensurgeon.vocabulary.scripts import LANGUAGES

By = Literal["file", "language"]
"""What documents are grouped by."""
JSON = (".jsonl", ".ndjson", ".json")
"""Files whose objects may name the language of each document."""
_FLORES = re.compile(r"(?<![A-Za-z])[a-z]{3}_[A-Z][a-z]{3}(?![A-Za-z])")
"""A language and its script, as in the names of FLORES-200."""
LEAST_SHARE = 1_000
"""Bytes of a group that say anything at all."""


@dataclass(frozen=True)
class Grouped:
    """Documents, and the group of each.

    Attributes
    ----------
    corpus : Corpus
    groups : tuple of str
        One for each document of `corpus`.
    """

    corpus: Corpus
    groups: tuple[str, ...]


def read_grouped(
    patterns: Sequence[str | Path],
    by: By,
    *,
    max_bytes: int | None,
    field: str = "text",
    language_field: str = "language",
    allow_invalid: bool = False,
) -> Grouped:
    """Read texts to measure on, in groups of which each has an equal part of the bytes.

    Parameters
    ----------
    patterns : sequence of path
        As for `read_corpus`.
    by : 'file' or 'language'
    max_bytes : int or None
        Of all groups together. Of each the first documents are taken that fit into its part; of a
        first document that does not fit, the start.
    field, language_field : str
        The keys that hold the text and its language in JSON objects.
    allow_invalid : bool
        As for `read_corpus`.

    Raises
    ------
    CorpusError
        As `read_corpus`, if a document has no language, or there are more groups than bytes for
        them.
    """
    files = find_files(patterns)
    kept: dict[str, list[tuple[Document, int]]] = {}
    sizes: dict[str, int] = {}
    for path in files:
        label = _label(path, files) if by == "file" else None
        for document, n_replaced, group in _tagged(
            path, label, max_bytes, field, language_field, allow_invalid
        ):
            if max_bytes is None or sizes.get(group, 0) < max_bytes:
                kept.setdefault(group, []).append((document, n_replaced))
                sizes[group] = sizes.get(group, 0) + document.n_bytes
    share = None if max_bytes is None else max_bytes // len(kept)
    if share is not None and share < LEAST_SHARE:
        raise CorpusError(
            f"{len(kept):,} groups have {share:,} bytes each of the {max_bytes:,} to measure on; "
            f"allow {LEAST_SHARE * len(kept):,} with --max-bytes, or give fewer"
        )
    documents, groups, replaced = [], [], 0
    for group, own in kept.items():
        for document, n_replaced in _fitting(own, share):
            documents.append(document)
            groups.append(group)
            replaced += n_replaced
    return Grouped(corpus_of_documents(documents, replaced), tuple(groups))


def language_of_name(name: str) -> str | None:
    """Return the language that the name of a file says, None where it says none.

    Examples
    --------
    >>> [language_of_name(name) for name in ("deu_Latn.devtest", "flores-de.txt", "notes.txt")]
    ['deu_Latn', 'de', None]
    """
    found = _FLORES.search(name)
    if found:
        return found[0]
    parts = re.split(r"[-_.]", name.partition(".")[0])
    return next((part for part in (parts[-1], parts[0]) if part in LANGUAGES), None)


def _label(path: Path, files: Sequence[Path]) -> str:
    """Return the name of a file, with its folder where another file has that name too."""
    return str(path) if [one.name for one in files].count(path.name) > 1 else path.name


def _tagged(
    path: Path,
    label: str | None,
    max_bytes: int | None,
    field: str,
    language_field: str,
    allow_invalid: bool,
) -> Iterator[tuple[Document, int, str]]:
    """Yield the documents of a file with what was replaced in each, and its group."""
    languages: Iterator[str | None] | None = None
    if label is None and suffix_of(path) in JSON:
        languages = _languages(path, field, language_field)
        max_bytes = None  # the last language may begin anywhere
    named = label or language_of_name(path.name)
    for document, n_replaced in iter_documents(
        [path], field=field, max_bytes=max_bytes, allow_invalid=allow_invalid
    ):
        group = (next(languages) if languages else None) or named
        if group is None:
            raise CorpusError(
                f"{document.source} has no language: give each object the key '{language_field}' "
                "(--language-field names another), or the file's name a code (deu_Latn, or de)"
            )
        yield document, n_replaced, group


def _languages(path: Path, field: str, language_field: str) -> Iterator[str | None]:
    """Yield the language that each document of a JSON file names; empty ones are no documents."""
    for value, where, _ in json_values(path):
        if not text_of_value(value, field, where, 0)[0]:
            continue
        language = value.get(language_field) if isinstance(value, dict) else None
        if language is not None and not isinstance(language, str):
            raise CorpusError(
                f"{where}: the key '{language_field}' holds no name of a language but "
                f"{type(language).__name__}; name another with --language-field"
            )
        yield language or None


def _fitting(
    documents: Sequence[tuple[Document, int]], share: int | None
) -> Iterator[tuple[Document, int]]:
    """Yield the first documents that fit; of a first one that does not, the start."""
    left = share
    for i, (document, n_replaced) in enumerate(documents):
        if left is not None and document.n_bytes > left:
            if i == 0:
                start = chunk_documents([document.text], max_bytes_per_chunk=left)[0]
                yield Document(start.text, document.source, document.file), n_replaced
            return
        yield document, n_replaced
        left = None if left is None else left - document.n_bytes
