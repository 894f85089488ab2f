"""Tasks made of any text, for lm-evaluation-harness: so that a domain can be measured offline.

Four tasks, each a ``.yaml`` file with its items in a ``.jsonl`` file beside it:

* ``cloze``: the last word of a sentence, given the text before it;
* ``choice``: the second half of a sentence, among three of other documents;
* ``arithmetic``: sums and differences after four examples, of numbers drawn by the seed;
* ``bits``: the bits per byte of the text in the chunks of `tokensurgeon.evaluation`, so that the
  harness' figure can be held against ours.

Which sentences are taken depends on the text and the seed alone.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tokensurgeon.errors import CorpusError, UsageError
from tokensurgeon.outputs import check_folder, staged
from tokensurgeon.outputs.ownership import TASKS, list_files
from tokensurgeon.text.chunks import CHUNK_SIZES, chunk_documents
from tokensurgeon.text.corpus import Corpus, read_corpus
from tokensurgeon.version import __version__

CONTEXT = 400
"""Characters of text before a sentence that an item shows at most: some sentences."""
FEWEST_WORDS, MOST_WORDS = 8, 40
"""Of a sentence: shorter ones leave a word open, longer ones are mostly lists."""
CHOICES = 4
"""Of an item of `choice`; the harness' own tasks of this kind have as many."""
ALIKE = 12
"""Halves nearest in length from which the wrong ones are drawn, so that length tells nothing."""
SHOTS = 4
"""Sums that stand before each of `arithmetic`, to show what is asked for."""
FEWEST_ITEMS = 10
"""Of a task made of text; with fewer its figure says nothing."""

_SENTENCE = re.compile(r"(?<![^\s])[^\s.!?][^\n.!?]*[.!?](?=\s|$)")
_LAST_WORD = re.compile(r"(?P<before>.*\S)(?P<word> [^\W\d_]{3,})[.!?]$", re.S)


@dataclass(frozen=True)
class Sentence:
    """A sentence, the text of its paragraph before it, and the number of its document."""

    before: str
    text: str
    document: int


def make_tasks(
    output: str | Path,
    texts: Sequence[str | Path] | Corpus,
    *,
    n: int = 200,
    seed: int = 0,
    prefix: str = "local",
    max_bytes: int = 50_000,
    chunk_bytes: int = CHUNK_SIZES[0],
    field: str = "text",
    force: bool = False,
) -> Path:
    """Write tasks of a text into a folder, for ``tokensurgeon evaluate --tasks FOLDER``.

    The task files name their items by an absolute path: a folder that is moved is made again.

    Parameters
    ----------
    output : str or Path
        The folder.
    texts : sequence of str or Path, or Corpus
        Files, folders or globs; see `tokensurgeon.text.read_corpus`.
    n : int
        Items of each task at most; `bits` takes `max_bytes` of text.
    seed : int
        Of what is drawn: the same text and seed give the same bytes.
    prefix : str
        What the names of the tasks begin with.
    max_bytes, chunk_bytes : int
        Of `bits`: how much text it scores, and the longest chunk.
    field : str
        The key that holds the text in JSON objects.
    force : bool
        Replace a folder of tasks that was made so.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    CorpusError
        If the text cannot be read, or has too few sentences.
    UsageError
        If `n` or `prefix` make no sense.
    OutputExistsError
        If the folder holds anything and `force` is not given, or it holds something else.
    """
    if n < FEWEST_ITEMS:
        raise UsageError(f"{n} items of a task say nothing; take {FEWEST_ITEMS} or more")
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", prefix):
        raise UsageError(f"tasks cannot be named {prefix!r}; take letters, digits and underscores")
    corpus = texts if isinstance(texts, Corpus) else read_corpus(texts, field=field)
    keep = [] if isinstance(texts, Corpus) else list(corpus.files)
    folder = check_folder(output, force=force, keep=keep, kind=TASKS).absolute()
    sentences = sentences_of(corpus.texts)
    items = {
        "cloze": cloze_items(sentences, n, random.Random(f"{seed} cloze")),
        "choice": choice_items(sentences, n, random.Random(f"{seed} choice")),
        "arithmetic": _arithmetic(n, random.Random(f"{seed} arithmetic")),
        "bits": [
            {"text": chunk.text}
            for chunk in chunk_documents(
                corpus.texts, max_bytes_per_chunk=chunk_bytes, max_bytes_total=max_bytes
            )
        ],
    }
    with staged(folder, force=force) as staging:
        for name, own in items.items():
            lines = "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in own)
            (staging / f"{name}.jsonl").write_text(lines, "utf-8")
            document = {"task": f"{prefix}_{name}"} | _DATA | _TASKS[name]
            document["dataset_kwargs"] = {"data_files": {"test": str(folder / f"{name}.jsonl")}}
            text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
            (staging / f"{name}.yaml").write_text(text, "utf-8")
        facts = {
            "versions": {"tokensurgeon": __version__},
            "seed": seed,
            "n": n,
            "text": corpus.to_dict(),
            "items": {name: len(own) for name, own in items.items()},
            "files": list_files(staging),
        }
        (staging / TASKS).write_text(json.dumps(facts, ensure_ascii=False, indent=2), "utf-8")
    return folder


_DATA: dict[str, Any] = {"dataset_path": "json", "dataset_kwargs": {}, "test_split": "test"}
_ACC: dict[str, Any] = {"metric": "acc", "aggregation": "mean", "higher_is_better": True}
_AFTER: dict[str, Any] = {
    "output_type": "loglikelihood",
    "doc_to_text": "context",
    "doc_to_target": "target",
    "target_delimiter": "",
    "metadata": {"version": 1.0},
}
_PERPLEXITY = {"metric": "perplexity", "aggregation": "perplexity", "higher_is_better": False}
_BITS = {"metric": "bits_per_byte", "aggregation": "bits_per_byte", "higher_is_better": False}
_TASKS: dict[str, dict[str, Any]] = {
    "cloze": _AFTER | {"metric_list": [_ACC, _PERPLEXITY]},
    "arithmetic": _AFTER | {"metric_list": [_ACC, _PERPLEXITY]},
    "choice": _AFTER
    | {
        "output_type": "multiple_choice",
        "doc_to_target": "answer",
        "doc_to_choice": "choices",
        "metric_list": [_ACC, _ACC | {"metric": "acc_norm"}],
    },
    "bits": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "text",
        "metric_list": [_BITS],
        "metadata": {"version": 1.0},
    },
}
"""What each task file says besides its name and its data."""


def sentences_of(texts: Sequence[str]) -> list[Sentence]:
    """Return the sentences of texts that are neither too short nor too long, in their order."""
    found = []
    for number, text in enumerate(texts):
        for paragraph in text.splitlines():
            for match in _SENTENCE.finditer(paragraph):
                words = match.group().split()
                if FEWEST_WORDS <= len(words) <= MOST_WORDS:
                    before = paragraph[: match.start()][-CONTEXT:]
                    # From a word on, where the paragraph was cut.
                    start = 0 if match.start() <= CONTEXT else before.find(" ") + 1
                    found.append(Sentence(before[start:], match.group(), number))
    return found


def _drawn(possible: Sequence[Any], n: int, generator: random.Random, what: str) -> list[Any]:
    """Draw items, in the order of the text."""
    if len(possible) < FEWEST_ITEMS:
        raise CorpusError(
            f"the text has {len(possible)} sentences for {what}, and {FEWEST_ITEMS} are needed; "
            "give more text"
        )
    chosen = generator.sample(range(len(possible)), min(n, len(possible)))
    return [possible[i] for i in sorted(chosen)]


def cloze_items(
    sentences: Sequence[Sentence], n: int, generator: random.Random
) -> list[dict[str, Any]]:
    """Return items whose answer is the last word of a sentence."""
    possible = []
    for sentence in sentences:
        match = _LAST_WORD.match(sentence.text)
        if match:
            context = sentence.before + match["before"]
            possible.append({"context": context, "target": match["word"]})
    return _drawn(possible, n, generator, "the last word")


def choice_items(
    sentences: Sequence[Sentence], n: int, generator: random.Random
) -> list[dict[str, Any]]:
    """Return items whose answer is the second half of a sentence, among those of others."""
    halves = []
    for sentence in sentences:
        middle = sentence.text.find(" ", len(sentence.text) // 2)
        if 0 < middle < len(sentence.text) - 1:
            halves.append((sentence, sentence.text[:middle], sentence.text[middle:]))
    items = []
    for sentence, first, second in _drawn(halves, n, generator, "a choice"):
        others = [half for one, _, half in halves if one.document != sentence.document]
        if len(set(others)) < ALIKE:  # a single document
            others = [half for one, _, half in halves if one is not sentence]
        # Not the half itself, which a text may repeat.
        distinct = sorted(
            set(others) - {second}, key=lambda half: (abs(len(half) - len(second)), half)
        )
        if len(distinct) < CHOICES - 1:
            raise CorpusError("the text repeats a few sentences; give more text")
        choices = generator.sample(distinct[:ALIKE], CHOICES - 1)
        answer = generator.randrange(CHOICES)
        choices.insert(answer, second)
        context = sentence.before + first
        items.append({"context": context, "choices": choices, "answer": answer})
    return items


def _arithmetic(n: int, generator: random.Random) -> list[dict[str, Any]]:
    """Return sums and differences of two numbers of one or two digits, which small models know."""

    def drawn() -> tuple[str, str]:
        digits = generator.choice((1, 2))
        a, b = (generator.randrange(10 ** (digits - 1), 10**digits) for _ in range(2))
        if generator.random() < 0.5:
            return f"{a} + {b} =", f" {a + b}\n"
        return f"{max(a, b)} - {min(a, b)} =", f" {abs(a - b)}\n"

    items = []
    for _ in range(n):
        shots = "".join("".join(drawn()) for _ in range(SHOTS))
        question, target = drawn()
        items.append({"context": shots + question, "target": target})
    return items
