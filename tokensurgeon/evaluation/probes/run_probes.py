"""A fixed suite of probes on one model, or on a patched one beside its source."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokensurgeon.alignment import Alignment, align
from tokensurgeon.checkpoint import Checkpoint
from tokensurgeon.checkpoint.embeddings import CAUSAL, KIND_WORDS
from tokensurgeon.errors import EvaluationError, UnknownNameError, UsageError
from tokensurgeon.evaluation.probes.cuts import consistency
from tokensurgeon.evaluation.probes.estimates import Figure
from tokensurgeon.evaluation.probes.known_text import refuse_known
from tokensurgeon.evaluation.probes.new_tokens import definitions, emission
from tokensurgeon.evaluation.probes.number_tasks import numbers
from tokensurgeon.evaluation.probes.probe_text import ProbeText
from tokensurgeon.evaluation.probes.subject import Subject
from tokensurgeon.evaluation.probes.telling_apart import discrimination
from tokensurgeon.evaluation.probes.written_text import Sample, generation
from tokensurgeon.models import load_model
from tokensurgeon.progress import Progress, no_progress
from tokensurgeon.vocabulary import load_vocabulary

PROBES = ("discrimination", "generation", "emission", "definitions", "consistency", "numbers")
"""Every probe, in the order of the table."""
OF_NEW_TOKENS = ("emission", "definitions")
"""Those about tokens that the source lacks."""
DEFAULT_ITEMS = 32
"""Of each figure: a share is then known within 17 points, in some minutes on two cores."""
MOST_TEXT = 2_000_000
"""Bytes of text that are read: far more items than anybody waits for."""


@dataclass(frozen=True)
class ProbeTable:
    """What the probes found.

    Attributes
    ----------
    models : tuple of str
        Names; of two, the source first.
    digits : tuple of str
        How each tokenizer cuts runs of digits; see `Vocabulary.number_scheme`.
    figures : tuple of Figure
    samples : tuple of Sample
        Continuations of both models, side by side.
    items : int
        Of each figure at most.
    seed : int
        Of what is drawn, and of the bootstrap.
    text : dict
        Facts on the text that items are drawn from, without it.
    notes : tuple of str
        What could not be asked, and why.
    """

    models: tuple[str, ...]
    digits: tuple[str, ...]
    figures: tuple[Figure, ...]
    samples: tuple[Sample, ...]
    items: int
    seed: int
    text: dict[str, Any]
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the table as plain values, ready for JSON."""
        return {
            "models": list(self.models),
            "digits": list(self.digits),
            "figures": [one.to_dict() for one in self.figures],
            "samples": [one.to_dict() for one in self.samples],
            "items": self.items,
            "seed": self.seed,
            "text": self.text,
            "notes": list(self.notes),
        }

    def figure(self, probe: str, name: str) -> Figure:
        """Return a figure by its names.

        Raises
        ------
        UnknownNameError
            If the table has none such.
        """
        for one in self.figures:
            if (one.probe, one.name) == (probe, name):
                return one
        raise UnknownNameError(
            f"the table has no figure '{name}' of {probe}; take one of its figures"
        )


def probe(
    subjects: Sequence[Subject],
    text: ProbeText,
    *,
    items: int = DEFAULT_ITEMS,
    only: Sequence[str] = (),
    progress: Progress = no_progress,
) -> ProbeTable:
    """Ask models in memory.

    Parameters
    ----------
    subjects : sequence of Subject
        One, or the source and a patched model.
    text : ProbeText
        What items are drawn from; its seed is that of the suite.
    items : int
        Of each figure at most.
    only : sequence of str
        Probes to run; all of `PROBES` if empty.
    progress : callable(done, total, what)
        Between probes; the subjects report on their own work.

    Raises
    ------
    UnknownNameError
        If there is no such probe.
    EvaluationError
        If no figure can be measured on this text with these models.
    """
    chosen = chosen_probes(only)
    notes: list[str] = []
    figures: list[Figure | None] = []
    samples: list[Sample] = []
    alignment = _alignment(subjects, chosen, notes)
    for done, name in enumerate(chosen):
        progress(done, len(chosen), f"probing {name}")
        found: list[Figure | None] = []
        if name == "discrimination":
            found = discrimination(subjects, text, items)
        elif name == "generation":
            found, samples = generation(subjects, text, items)
        elif name == "consistency":
            found = consistency(subjects, text, items)
        elif name == "numbers":
            found = numbers(subjects, text, items)
        elif alignment is not None:
            about = emission if name == "emission" else definitions
            found = about(subjects[0], subjects[-1], alignment, text, items)
        else:
            continue
        if not any(found):
            notes.append(f"{name}: no item fits all models")
        figures += found
    measured = tuple(one for one in figures if one is not None)
    if not measured:
        raise EvaluationError(
            f"nothing could be probed: {'; '.join(notes)}; give other text, or other probes"
        )
    return ProbeTable(
        models=tuple(one.name for one in subjects),
        digits=tuple(one.vocabulary.number_scheme for one in subjects),
        figures=measured,
        samples=tuple(samples),
        items=items,
        seed=text.seed,
        text=text.corpus.to_dict(),
        notes=tuple(notes),
    )


def chosen_probes(only: Sequence[str]) -> tuple[str, ...]:
    """Return the probes to run in the order of the table.

    Raises
    ------
    UnknownNameError
        If one is not known.
    """
    for name in only:
        if name not in PROBES:
            near = difflib.get_close_matches(name, PROBES, n=1)
            advice = f"take '{near[0]}'" if near else f"take some of {', '.join(PROBES)}"
            raise UnknownNameError(f"there is no probe '{name}'; {advice}")
    return tuple(name for name in PROBES if not only or name in only)


def _alignment(
    subjects: Sequence[Subject], chosen: Sequence[str], notes: list[str]
) -> Alignment | None:
    """Return which tokens are new; None, with a note, where no probe needs it or there are none."""
    asked = [name for name in chosen if name in OF_NEW_TOKENS]
    if not asked:
        return None
    what = " and ".join(asked)
    if len(subjects) < 2:
        notes.append(f"{what}: new tokens are those that a source lacks; give it with --against")
        return None
    alignment = align(subjects[0].vocabulary, subjects[-1].vocabulary)
    if not alignment.missing.size:
        notes.append(f"{what}: the source has every token")
        return None
    return alignment


def probe_checkpoint(
    path: str | Path,
    against: str | Path | None = None,
    *,
    texts: Sequence[str | Path] = (),
    field: str = "text",
    items: int = DEFAULT_ITEMS,
    only: Sequence[str] = (),
    seed: int = 0,
    device: str = "cpu",
    dtype: str = "float32",
    trust_remote_code: bool = False,
    allow_seen_text: bool = False,
    progress: Progress = no_progress,
) -> ProbeTable:
    """Load a checkpoint, and its source, and ask both.

    Parameters
    ----------
    path : str or Path
        A causal language model with its own tokenizer.
    against : str, Path or None
        Another checkpoint, mostly the source of `path`; it comes first in the table.
    texts : sequence of str or Path
        Files, folders or globs that items are drawn from; what ships if none.
    field : str
        The key that holds the text in JSON objects.
    items, only
        As in `probe`.
    seed : int
        Of what is drawn, and of the bootstrap. Nothing else is random: models write greedily.
    device, dtype : str
        Of the forward passes.
    trust_remote_code : bool
    allow_seen_text : bool
        Take a text that a vocabulary was trained on, or a checkpoint calibrated, by its folder.
    progress : callable(done, total, what)

    Raises
    ------
    UnknownNameError
        If there is no such probe.
    UsageError
        If a checkpoint knows the text.
    CheckpointError
        If there is no such checkpoint.
    EvaluationError
        If one of them is no causal language model.
    CorpusError
        If the text cannot be read, or is too little.
    """
    if items < 1:
        raise UsageError(f"{items} items say nothing; take 1 or more")
    chosen_probes(only)
    folders = (path,) if against is None else (against, path)
    for folder in folders:
        kind = Checkpoint.open(folder, trust_remote_code=trust_remote_code).layout.kind
        if kind != CAUSAL:
            raise EvaluationError(
                f"probe reads causal language models, and {folder} is {KIND_WORDS[kind]}; "
                "measure it with 'evaluate'"
            )
    text = ProbeText.read(texts, seed=seed, field=field, max_bytes=MOST_TEXT)
    vocabularies = [load_vocabulary(folder) for folder in folders]
    for vocabulary in vocabularies:
        refuse_known(vocabulary.folder, text.corpus, allow_seen_text)
    subjects: list[Subject] = []
    for folder, vocabulary in zip(folders, vocabularies, strict=True):
        model = load_model(folder, device=device, dtype=dtype, trust_remote_code=trust_remote_code)
        again = " (again)" if subjects and subjects[0].name == str(folder) else ""
        subjects.append(Subject(f"{folder}{again}", model, vocabulary, progress))
    return probe(subjects, text, items=items, only=only, progress=progress)
