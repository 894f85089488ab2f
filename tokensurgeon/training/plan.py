"""What is to be trained: settings, and counted text weighed as they say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import regex

from tokensurgeon.training.counting import Counted
from tokensurgeon.training.merging import Ints, Positions, Sequences
from tokensurgeon.training.pretokenizers import NO_CROSS, joined_pattern, pattern

MOST_WORDS = 4
"""Of a token, counted in pieces of the pre-tokenizer; as SuperBPE published."""
LONGEST_SUPERWORD = 64
"""In bytes: rules and tables drawn with punctuation would else become tokens."""


@dataclass(frozen=True)
class Plan:
    """The settings of one training.

    Attributes
    ----------
    method : str
    size : int
        Number of ids, controls and bytes included.
    controls : tuple of str
    preset, digits : str
    encoder : {"bpe", "min-tokens"}
    transition : float or None
        Share of what is learned that is learned inside words (for `parity`, over all languages
        alike); None is the method's own choice.
    most_words : int
        Of a token.
    no_cross : tuple of str
        What a token of several words never crosses.
    max_pieces : int or None
        The most pieces in a run that superwords are learned from.
    longest : int or None
        The most bytes (for `characters`, characters) of a token; None is the method's own choice.
    terms : tuple of str
        Terms or morphemes.
    seed : int
    """

    method: str
    size: int
    controls: tuple[str, ...] = ()
    preset: str = "cl100k"
    digits: str = "left-3"
    encoder: str = "bpe"
    transition: float | None = None
    most_words: int = MOST_WORDS
    no_cross: tuple[str, ...] = NO_CROSS
    max_pieces: int | None = None
    longest: int | None = None
    terms: tuple[str, ...] = ()
    seed: int = 0

    @property
    def n_tokens(self) -> int:
        """Tokens that are not controls: the 256 bytes and what is learned."""
        return self.size - len(self.controls)

    @property
    def cut(self) -> str | None:
        """The pattern of words; None where nothing is cut."""
        return pattern(self.preset, self.digits)

    @property
    def joined(self) -> str:
        """The pattern of runs of words."""
        return joined_pattern(
            self.preset, self.digits, no_cross=self.no_cross, max_pieces=self.max_pieces
        )

    def within(self, default: float) -> int:
        """Return how many tokens there are after the first stage, the bytes included."""
        share = default if self.transition is None else self.transition
        return 256 + max(1, round(share * (self.n_tokens - 256)))


@dataclass(frozen=True)
class Weighted:
    """Distinct segments, sorted, and what each counts.

    Attributes
    ----------
    segments : list of str
    weights : int64 array of shape (n_segments,)
    groups : int32 array of shape (n_segments,)
        The part of the corpus.
    """

    segments: list[str]
    weights: Ints
    groups: Positions

    def sequences(self, *, grouped: bool = False) -> Sequences:
        """Return the segments as bytes."""
        groups = self.groups if grouped else None
        return Sequences.of_bytes(self.segments, self.weights, groups)

    def sample(self, most_bytes: int) -> Weighted:
        """Return segments spread over the whole, of about so many bytes."""
        total = sum(map(len, self.segments))
        step = max(1, -(-total // most_bytes))
        return self.take(np.arange(len(self.segments)) % step == 0)

    def take(self, kept: npt.NDArray[np.bool_]) -> Weighted:
        """Return the segments for which `kept` is true."""
        segments = [self.segments[number] for number in np.flatnonzero(kept).tolist()]
        return Weighted(segments, self.weights[kept], self.groups[kept])


@dataclass
class Text:
    """Counted tables, with each part of the corpus weighed as a mixture says.

    Attributes
    ----------
    counted : Counted
    multipliers : sequence of float
        What a count of each part is worth; at least 1.
    """

    counted: Counted
    multipliers: Sequence[float] = field(default=())

    @property
    def factors(self) -> list[float]:
        """What a count of each part is worth."""
        return list(self.multipliers) or [1.0] * len(self.counted.parts)

    def table(self, name: str, *, grouped: bool = False, keep: bool = False) -> Weighted:
        """Return a table, in the order of its segments; parts are added up unless `grouped`.

        Unless it is to be kept, a table is let go of: tables are what takes memory.
        """
        tables = self.counted.tables[name] if keep else self.counted.tables.pop(name)
        factors = self.factors
        if len(tables) == 1:
            return _weighted(tables[0], 0)
        if grouped:
            each = [
                _weighted(_times(table, factor), number)
                for number, (table, factor) in enumerate(zip(tables, factors, strict=True))
            ]
            return Weighted(
                [segment for one in each for segment in one.segments],
                np.concatenate([one.weights for one in each]),
                np.concatenate([one.groups for one in each]),
            )
        total: dict[str, int] = {}
        for table, factor in zip(tables, factors, strict=True):
            for segment, count in _times(table, factor).items():
                total[segment] = total.get(segment, 0) + count
        return _weighted(total, 0)


def _times(table: Mapping[str, int], factor: float) -> Mapping[str, int]:
    return table if factor == 1 else {key: round(n * factor) for key, n in table.items()}


def _weighted(table: Mapping[str, int], group: int) -> Weighted:
    segments = sorted(table)
    weights = np.fromiter((table[key] for key in segments), np.int64, len(segments))
    return Weighted(segments, weights, np.full(len(segments), group, np.int32))


def multipliers(n_bytes: Sequence[int], shares: Sequence[float] | None) -> list[float]:
    """Return what each part's counts are worth, so that its bytes make up its share."""
    if shares is None:
        return [1.0] * len(n_bytes)
    raw = [share / max(n, 1) for share, n in zip(shares, n_bytes, strict=True)]
    least = min(factor for factor in raw if factor > 0)
    return [factor / least for factor in raw]


def few_words(plan: Plan) -> Any:
    """Return a rule for `Merger`: a token of few words, and not too long."""
    cut = regex.compile(str(plan.cut))
    longest = plan.longest or LONGEST_SUPERWORD

    def allow(token: bytes) -> bool:
        if len(token) > longest:
            return False
        # A token may begin or end inside a character; its parts then count as any other text.
        return len(cut.findall(token.decode("utf-8", errors="replace"))) <= plan.most_words

    return allow
