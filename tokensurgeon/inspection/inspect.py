"""Everything about a tokenizer that `tokensurgeon inspect` shows, in one object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tokensurgeon.errors import CorpusError, TokenizerError, UsageError
from tokensurgeon.inspection.mixture_inference import MERGES, Mixture, infer_mixture
from tokensurgeon.inspection.reach import Reach, find_unreachable
from tokensurgeon.inspection.reload import Reload, check_reload
from tokensurgeon.inspection.spans import Excerpt, excerpt
from tokensurgeon.inspection.undertrained import UnderTrained, find_undertrained
from tokensurgeon.progress import Progress, no_progress, peak_memory
from tokensurgeon.text.corpus import find_files, read_corpus, start_of_texts
from tokensurgeon.trainers.measures.figures import Figures, measure_vocabulary
from tokensurgeon.trainers.measures.sources import Source
from tokensurgeon.vocabulary import Vocabulary, load_vocabulary
from tokensurgeon.vocabulary.reading import read_json

SAMPLE_BYTES = 1_000_000
"""Bytes read of each file, by default: enough for stable figures, encoded in seconds."""
SHOWN_BYTES = 240
"""Bytes of a file shown token by token, by default: three lines of a terminal."""
MOST_SHOWN = 6
"""Files shown so, in one screen of a terminal."""
EXAMPLE = (
    "The unbelievable price was $1,234.56 in 2024; naïve readers didn't notice.\n"
    "def area(r):\n    return 3.14159 * r ** 2  # πr²\n"
    "Der Dampfschifffahrtskapitän grüßt. 日本語のテキスト и русский 👩‍🚀\n"
)
"""The text shown token by token if none is given."""


@dataclass(frozen=True)
class Inspected:
    """One tokenizer.

    Attributes
    ----------
    name : str
        A short name, unique among the entries.
    facts : dict
        How it cuts text: see `Vocabulary.segmentation`.
    training : dict or None
        The figures of training.json, if its folder has one.
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
            "reload": [asdict(reload) for reload in self.reloads],
            "training": self.training,
            "notes": list(self.vocabulary.notes),
        }


@dataclass(frozen=True)
class Inspection:
    """A tokenizer, and those it is compared with.

    Attributes
    ----------
    entries : tuple of Inspected
        The first is the one inspected.
    peak_memory : int
        Largest resident size of the whole process, in bytes.
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
            "tokenizers": [entry.to_dict() for entry in self.entries],
            "excerpts": [excerpt.to_dict() for excerpt in self.excerpts],
            "undertrained": asdict(self.undertrained) if self.undertrained else None,
            "mixture": asdict(self.mixture) if self.mixture else None,
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
    progress: Progress = no_progress,
) -> Inspection:
    """Inspect a tokenizer.

    Parameters
    ----------
    tokenizer : str or Path
        What `load_vocabulary` takes.
    texts : sequence of str or Path
        Files, folders or globs; each file is a source.
    against : sequence of str or Path
        Other tokenizers to compare with.
    checkpoint : str or Path or None
        The model that has this tokenizer: its vocabulary rows show which tokens are under-trained.
    mixture : mapping of category to files, or None
        Samples of the text that the tokenizer may have been trained on; see `infer_mixture`.
    merges : int
        Number of merges from which the mixture is inferred.
    sample_bytes : int
        Bytes to read of each file, and of each category.
    shown_bytes : int
        Bytes of a file to show token by token; 0 shows nothing.
    text_field : str
        The key that holds the text in JSON objects.
    trust_remote_code : bool
    progress : callable(done, total, what)

    Raises
    ------
    TokenizerError
        If a tokenizer cannot be read, or has no merge list for the mixture.
    CorpusError
        If a file cannot be read, or holds no text.
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
        vocabulary = load_vocabulary(path)
        entry = Inspected(
            name=name,
            vocabulary=vocabulary,
            figures=measure_vocabulary(vocabulary, sources, progress),
            facts=vocabulary.segmentation,
            reach=find_unreachable(vocabulary, progress),
            reloads=check_reload(vocabulary),
            training=_training(vocabulary),
        )
        entries.append(entry)
    first = entries[0].vocabulary
    return Inspection(
        entries=tuple(entries),
        excerpts=_excerpts(sources, [entry.vocabulary for entry in entries], shown_bytes),
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
    """Read files, folders or globs; each file is a source, cut to `max_bytes`.

    Raises
    ------
    CorpusError
        If a file is missing, empty, or binary.
    """
    files = find_files(patterns)
    sources = []
    for path, name in zip(files, _short_names([str(path) for path in files]), strict=True):
        corpus = read_corpus([path], field=text_field, max_bytes=max_bytes)
        documents = _documents([Source(name, corpus.texts)], max_bytes)
        if not any(map(str.strip, documents)):
            raise CorpusError(f"{path} holds only white space; leave it out")
        sources.append(Source(name, documents))
    return sources


def _documents(sources: Sequence[Source], max_bytes: int) -> tuple[str, ...]:
    """Return the first `max_bytes` of the documents; the last one is cut."""
    return tuple(start_of_texts((text for own in sources for text in own.documents), max_bytes))


def _training(vocabulary: Vocabulary) -> dict[str, Any] | None:
    """Return the figures in training.json, or None if there are none to read."""
    if vocabulary.folder is None:
        return None
    try:
        facts = read_json(vocabulary.folder / "training.json")
    except TokenizerError:
        return None
    figures = facts.get("figures")
    return dict(figures) if isinstance(figures, dict) else None


def _excerpts(
    sources: Sequence[Source], vocabularies: Sequence[Vocabulary], size: int
) -> tuple[Excerpt, ...]:
    if not size:
        return ()
    if not sources:
        return (excerpt("example", EXAMPLE, max(size, len(EXAMPLE.encode())), vocabularies),)
    return tuple(
        excerpt(source.name, next(filter(str.strip, source.documents)), size, vocabularies)
        for source in sources[:MOST_SHOWN]
    )


def _short_names(paths: Sequence[str]) -> list[str]:
    """Return a short, unique name for each path: its last part if that is unique."""
    pure = [Path(path) for path in paths]
    short = [path.parent.name if path.name == "tokenizer.json" else path.name for path in pure]
    names = [
        name if name and short.count(name) == 1 else path
        for name, path in zip(short, paths, strict=True)
    ]
    return [
        f"{name} ({n})" if (n := names[: i + 1].count(name)) > 1 else name
        for i, name in enumerate(names)
    ]
