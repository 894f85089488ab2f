"""Corpora of several parts, each with a share of the text that a vocabulary is trained on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokensurgeon.errors import SettingError
from tokensurgeon.text.borders import Borders
from tokensurgeon.text.corpus import Corpus, Document, iter_documents

PART_BYTES = 1_000_000
"""Plain text is cut into documents of about this size, so that a large file is never held whole."""
ALL = "all"


@dataclass(frozen=True)
class Part:
    """Some files of a corpus.

    Attributes
    ----------
    patterns : tuple of str
        Files, folders, globs, ``hf:`` datasets.
    share : float or None
        Weight of its bytes relative to the other parts; None leaves all parts unweighted.
    """

    patterns: tuple[str, ...]
    share: float | None = None


@dataclass(frozen=True)
class Streamed:
    """Texts that something else reads, and that can be gone through once.

    Attributes
    ----------
    texts : iterable of str
    """

    texts: Iterable[str]


AnyPart = Part | Corpus | Streamed


def parse_mixture(entries: Sequence[str]) -> dict[str, Part]:
    """Parse ``NAME=SHARE:PATTERN`` or ``NAME:PATTERN``; entries of one name make one part.

    Raises
    ------
    SettingError
        If an entry is not of this form, or only some of the parts have a share.

    Examples
    --------
    >>> parse_mixture(["de=0.5:de/*.txt", "en=0.5:a.txt", "en=0.5:b.txt"])["en"].patterns
    ('a.txt', 'b.txt')
    """
    parts: dict[str, Part] = {}
    for entry in entries:
        head, colon, pattern = entry.partition(":")
        name, equals, number = head.partition("=")
        try:
            share = float(number) if equals else None
        except ValueError:
            share = -1.0
        if not (colon and name and pattern) or (share is not None and not 0 < share < 1e9):
            raise SettingError(f"'{entry}' is no part of a mixture; write de=0.5:de/*.txt")
        part = parts.setdefault(name, Part((), share))
        if part.share != share:
            raise SettingError(f"part '{name}' has two shares, {part.share} and {share}; give one")
        parts[name] = Part((*part.patterns, pattern), share)
    if len({part.share is None for part in parts.values()}) > 1:
        raise SettingError(
            "some parts of the mixture have a share and others none; give all or none"
        )
    return parts


def shares(parts: Mapping[str, AnyPart]) -> list[float] | None:
    """Return the share of each part, or None if none is given."""
    named = [part.share for part in parts.values() if isinstance(part, Part)]
    given = [share for share in named if share is not None]
    return given if len(given) == len(parts) else None


def documents_of(
    part: AnyPart, field: str, borders: Borders | None = None
) -> Iterator[tuple[Document, int]]:
    """Yield a part's documents, with the number of characters replaced in each.

    Where one of the `borders` stands in a text, a document ends; they count what they cut.
    """
    borders = Borders() if borders is None else borders
    for document, n_replaced in _as_read(part, field, borders):
        for number, text in enumerate(borders.split(document)):
            yield text, 0 if number else n_replaced


def _as_read(part: AnyPart, field: str, borders: Borders) -> Iterator[tuple[Document, int]]:
    if isinstance(part, Streamed):
        for number, text in enumerate(part.texts):
            yield Document(text, str(number)), 0
    elif isinstance(part, Corpus):
        for number, document in enumerate(part.documents):
            yield document, 0 if number else part.n_replaced
    else:
        yield from iter_documents(
            part.patterns, field=field, part_bytes=PART_BYTES, ends=borders.counts
        )


CorpusLike = Sequence[str | Path] | str | Path | Corpus | Streamed | Mapping[str, AnyPart]
"""Files, folders or globs; a corpus in memory; or the parts of a mixture."""


def as_parts(corpus: CorpusLike) -> dict[str, AnyPart]:
    """Return the parts of a corpus, however it is given."""
    if isinstance(corpus, Corpus | Streamed):
        return {ALL: corpus}
    if isinstance(corpus, Mapping):
        return dict(corpus)
    names = [corpus] if isinstance(corpus, str | Path) else corpus
    return {ALL: Part(tuple(str(name) for name in names))}
