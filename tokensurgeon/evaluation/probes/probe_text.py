"""The text that probes are made of, and what is drawn of it: sentences, words, chunks.

Items depend on the text and the seed alone, never on a tokenizer, so every model of a table answers
the same. Those that one of the models cannot read are left out for all.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from tokensurgeon.errors import CorpusError
from tokensurgeon.evaluation.tasks.make_tasks import Sentence, sentences_of
from tokensurgeon.text.corpus import Corpus, read_corpus

T = TypeVar("T")

FEWEST_WORDS = 50
"""Of a text's distinct words: with fewer, items would repeat each other."""
SPARE = 3
"""Items drawn for each one asked: those that a model cannot read are left out."""
WORD = re.compile(r"(?<![^\s(\"'])[^\W\d_]{4,}(?=[\s.,;:!?)\"']|$)")
"""A word of four letters or more, alone between spaces and punctuation."""
LETTERS = re.compile(r"[^\W\d_]{3,}")
"""What counts as a word where it is asked whether words exist: shorter ones nearly always do."""


@dataclass(frozen=True)
class ProbeText:
    """A text that items are drawn from.

    Attributes
    ----------
    corpus : Corpus
        The documents that items are drawn from.
    seed : int
    others : tuple of str
        Further documents, of which only the words count, as known ones.
    """

    corpus: Corpus
    seed: int = 0
    others: tuple[str, ...] = ()

    @classmethod
    def read(cls, files: Sequence[str | Path] = (), *, seed: int = 0, **options: Any) -> ProbeText:
        """Read files, or the manual pages that ship with the package.

        Of what ships, items are made of the pages that are kept for measuring; the words that are
        known are those of all pages. `options` are those of `read_corpus`.

        Raises
        ------
        CorpusError
            If the text cannot be read, or has too few words.
        """
        if files:
            own = cls(read_corpus(files, **options), seed)
        else:
            with resources.as_file(resources.files("tokensurgeon") / "data" / "text") as folder:
                pages = read_corpus([folder / "evaluation.jsonl"])
                others = read_corpus([folder / "calibration.jsonl"])
            own = cls(pages, seed, others.texts)
        if len(own.words) < FEWEST_WORDS:
            raise CorpusError(
                f"the text has {len(own.words)} words of four letters or more, and probes need "
                f"{FEWEST_WORDS}; give more text"
            )
        return own

    @property
    def texts(self) -> tuple[str, ...]:
        """The documents that items are drawn from."""
        return self.corpus.texts

    @cached_property
    def sentences(self) -> list[Sentence]:
        """The sentences of 8 to 40 words."""
        return sentences_of(self.texts)

    @cached_property
    def words(self) -> list[str]:
        """The distinct words as they are written, in the order of the text."""
        return list(dict.fromkeys(word for text in self.texts for word in WORD.findall(text)))

    @cached_property
    def known(self) -> frozenset[str]:
        """The words of all documents, without regard to case."""
        texts = (*self.texts, *self.others)
        words = (word for text in texts for word in LETTERS.findall(text))
        return frozenset(map(str.casefold, words))

    def generator(self, what: str) -> random.Random:
        """Return a generator that depends on the seed and on what it is for."""
        return random.Random(f"{self.seed} {what}")

    def drawn(
        self, possible: Sequence[T], n: int, what: str, fits: Callable[[T], bool] = lambda one: True
    ) -> list[T]:
        """Draw up to `n` of the possible items that fit, the same ones for the same text and seed.

        Three candidates are tried for each item asked; where more are unfit, there are fewer.
        """
        order = list(range(len(possible)))
        self.generator(what).shuffle(order)
        chosen: list[int] = []
        for i in order[: SPARE * n]:
            if len(chosen) == n:
                break
            if fits(possible[i]):
                chosen.append(i)
        return [possible[i] for i in sorted(chosen)]


def tail(text: str, most: int) -> str:
    """Return the end of a text from a word on, at most so many characters.

    >>> tail("one two three", 9)
    'two three'
    """
    if len(text) <= most:
        return text
    cut = text[-most:]
    if not text[-most - 1].isspace():
        cut = cut[cut.find(" ") + 1 :] if " " in cut else cut
    return cut.lstrip()
