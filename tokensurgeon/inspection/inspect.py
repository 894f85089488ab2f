"""Everything about a tokenizer that `tokensurgeon inspect` shows, in one object.

This module knows the order; what is measured is in `training.figures`, `reach`, `reload`,
`undertrained`, `mixture` and `spans`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokensurgeon.errors import CorpusError, UsageError
from tokensurgeon.inspection.mixture_inference import MERGES, Mixture, infer_mixture
from tokensurgeon.inspection.reach import Reach, find_unreachable
from tokensurgeon.inspection.reload import Reload, check_reload
from tokensurgeon.inspection.spans import Excerpt, excerpt
from tokensurgeon.inspection.undertrained import UnderTrained, find_undertrained
from tokensurgeon.progress import Progress
from tokensurgeon.text.corpus import find_files, read_corpus
from tokensurgeon.trainers.measures.figures import (
    Figures,
    Source,
    measure_vocabulary,
    peak_memory,
)
from tokensurgeon.vocabulary import Vocabulary, load_vocabulary

SAMPLE_BYTES = 1_000_000
SHOWN_BYTES = 240
MOST_SHOWN = 6
EXAMPLE = (
    "The unbelievable price was $1,234.56 in 2024; naïve readers didn't notice.\n"
    "def area(r):\n    return 3.14159 * r ** 2  # πr²\n"
    "Der Dampfschifffahrtskapitän grüßt. 日本語のテキスト и русский 👩‍🚀\n"
)
"""What is cut for show where no text is given."""


@dataclass(frozen=True)
class Inspected:
    """One tokenizer.

    Attributes
    ----------
    name : str
        Short, and different from the others'.
    facts : dict
        How it cuts text: see `Vocabulary.segmentation`.
    training : dict or None
        The figures of training.json, where its folder has one.
    """

    name: str
    vocabulary: Vocabulary
    facts: dict[str, Any]
    figures: Figures
    reach: Reach
    reloads: tuple[Reload, ...]
    training: dict[str, Any] | None

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "name": self.name,
            "facts": self.facts,
            **self.figures.to_dict(),
            "unreachable": self.reach.to_dict(self.vocabulary),
            "reload": [each.to_dict() for each in self.reloads],
            "training": self.training,
        }


@dataclass(frozen=True)
class Inspection:
    """A tokenizer, and those it is held against.

    Attributes
    ----------
    entries : tuple of Inspected
        The first is the one inspected.
    peak_memory : int
        Bytes that the whole process held at most.
    """

    entries: tuple[Inspected, ...]
    excerpts: tuple[Excerpt, ...]
    undertrained: UnderTrained | None
    mixture: Mixture | None
    peak_memory: int

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "schema_version": 1,
            "tokenizers": [each.to_dict() for each in self.entries],
            "excerpts": [each.to_dict() for each in self.excerpts],
            "undertrained": self.undertrained.to_dict() if self.undertrained else None,
            "mixture": self.mixture.to_dict() if self.mixture else None,
            "peak_memory_bytes": self.peak_memory,
        }


def inspect_tokenizer(
    tokenizer: str | Path,
    texts: Sequence[str | Path] = (),
    *,
    against: Sequence[str | Path] = (),
    checkpoint: str | Path | None = None,
    mixture: Mapping[str, Sequence[str | Path]] | None = None,
    merges: int = MERGES,
    sample_bytes: int = SAMPLE_BYTES,
    shown_bytes: int = SHOWN_BYTES,
    text_field: str = "text",
    trust_remote_code: bool = False,
    progress: Progress = lambda done, total, what: None,
) -> Inspection:
    """Inspect a tokenizer.

    Parameters
    ----------
    tokenizer : str or Path
        What `load_vocabulary` takes.
    texts : sequence of str or Path
        Files, folders or globs; each file is a source.
    against : sequence of str or Path
        Other tokenizers to put beside.
    checkpoint : str or Path or None
        The model that has this tokenizer: its vocabulary rows say which tokens are under-trained.
    mixture : mapping of category to files, or None
        Samples of what the tokenizer may have been trained on; see `infer_mixture`.
    merges : int
        How many merges the mixture is read off.
    sample_bytes : int
        How much is read of each file, and of each category.
    shown_bytes : int
        How much of a file is shown token by token; 0 shows nothing.

    Raises
    ------
    TokenizerError
        If a tokenizer cannot be read, or has no merge list for the mixture.
    CorpusError
        If a text cannot be read, or is no text.
    UsageError
        If there are fewer than two categories.
    """
    if mixture is not None and len(mixture) < 2:
        raise UsageError(
            f"--mixture names {len(mixture)} category, whose share is 1; give two or more"
        )
    sources = read_sources(texts, sample_bytes, text_field) if texts else []
    samples = {
        name: _documents(read_sources(patterns, sample_bytes, text_field), sample_bytes)
        for name, patterns in (mixture or {}).items()
    }
    paths = [str(path) for path in (tokenizer, *against)]
    entries: list[Inspected] = []
    for path, name in zip(paths, _short_names(paths), strict=True):
        progress(len(entries), len(paths), "loading tokenizers")
        entries.append(_inspected(name, load_vocabulary(path), sources, progress))
    first = entries[0].vocabulary
    return Inspection(
        entries=tuple(entries),
        excerpts=_excerpts(sources, [each.vocabulary for each in entries], shown_bytes),
        undertrained=None
        if checkpoint is None
        else find_undertrained(first, checkpoint, trust_remote_code=trust_remote_code),
        mixture=infer_mixture(first, samples, merges=merges, progress=progress)
        if samples
        else None,
        peak_memory=peak_memory(),
    )


def read_sources(
    patterns: Sequence[str | Path], max_bytes: int, text_field: str = "text"
) -> list[Source]:
    """Read files, folders or globs, each file a source, up to `max_bytes` of each.

    Raises
    ------
    CorpusError
        If a file is missing, empty, or binary.
    """
    files = find_files(patterns)
    sources = []
    for path, name in zip(files, _short_names([str(path) for path in files]), strict=True):
        corpus = read_corpus([path], field=text_field, max_bytes=max_bytes)
        characters = sum(map(len, corpus.texts))
        wrong = corpus.n_replaced + sum(text.count("\0") for text in corpus.texts)
        if 100 * wrong > characters:
            raise CorpusError(
                f"{path} is no text: {wrong:,} of {characters:,} characters are not UTF-8 or are "
                "NUL; give text files"
            )
        documents = _documents([Source(name, corpus.texts)], max_bytes)
        if not any(map(str.strip, documents)):
            raise CorpusError(f"{path} holds only white space; leave it out")
        sources.append(Source(name, documents))
    return sources


def _documents(sources: Sequence[Source], max_bytes: int) -> tuple[str, ...]:
    """Return the documents that fit, the last one cut."""
    kept, room = [], max_bytes
    for source in sources:
        for text in source.documents:
            data = text.encode()
            if room <= 0:
                break
            kept.append(text if len(data) <= room else data[:room].decode("utf-8", "ignore"))
            room -= len(data)
    return tuple(text for text in kept if text)


def _inspected(
    name: str, vocabulary: Vocabulary, sources: Sequence[Source], progress: Progress
) -> Inspected:
    return Inspected(
        name=name,
        vocabulary=vocabulary,
        figures=measure_vocabulary(vocabulary, sources, progress),
        facts=vocabulary.segmentation,
        reach=find_unreachable(vocabulary, progress),
        reloads=check_reload(vocabulary),
        training=_training(vocabulary),
    )


def _training(vocabulary: Vocabulary) -> dict[str, Any] | None:
    """Return the figures that training left, where they can be read."""
    if vocabulary.folder is None:
        return None
    try:
        facts = json.loads((vocabulary.folder / "training.json").read_text("utf-8"))
    except (OSError, ValueError):
        return None
    figures = facts.get("figures") if isinstance(facts, dict) else None
    return dict(figures) if isinstance(figures, dict) else None


def _excerpts(
    sources: Sequence[Source], vocabularies: Sequence[Vocabulary], size: int
) -> tuple[Excerpt, ...]:
    if not size:
        return ()
    if not sources:
        return (excerpt("example", EXAMPLE, max(size, len(EXAMPLE.encode())), vocabularies),)
    return tuple(
        excerpt(source.name, _first_text(source), size, vocabularies)
        for source in sources[:MOST_SHOWN]
    )


def _first_text(source: Source) -> str:
    return next(text for text in source.documents if text.strip())


def _short_names(paths: Sequence[str]) -> list[str]:
    """Return the last parts of paths, as many as tell them apart."""
    pure = [Path(path) for path in paths]
    short = [path.parent.name if path.name == "tokenizer.json" else path.name for path in pure]
    names = [
        one if short.count(one) == 1 and one else path
        for one, path in zip(short, paths, strict=True)
    ]
    seen: dict[str, int] = {}
    for place, name in enumerate(names):
        seen[name] = seen.get(name, 0) + 1
        if seen[name] > 1:
            names[place] = f"{name} ({seen[name]})"
    return names
