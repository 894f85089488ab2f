"""LZW over token ids: a sequence becomes shorter by codes for runs of ids that it has shown before.

Codes below `Limits.n_ids` are ids; those above are *hypertokens*, which stand for two ids or more.
The codebook begins empty and is a function of the codes read so far, so whoever reads the codes
has it too, at any point. zip2zip (Geng et al., 2025, arXiv 2506.01084) uses LZW in this way.

Each code that is read adds at most one hypertoken: the phrase of the code before it, and the first
id of its own. It can be used from the next code on. LZW as published (Welch, 1984) lets the writer
use it one code earlier, when the reader has to guess what it stands for; a language model could
give no row to such a guess. The price is small: only a phrase that follows itself at once is
written one code longer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tokensurgeon.errors import SettingError, TokenizerError

MAX_HYPERTOKENS, MAX_IDS = 2048, 4
"""Of a sequence, and of one hypertoken. So many are more than 2,048 tokens of English or Python
make; past four ids, sequences of that length are hardly shorter, and rows are harder to compose."""

Phrase = tuple[int, ...]


@dataclass(frozen=True)
class Limits:
    """What hypertokens there may be.

    Attributes
    ----------
    n_ids : int
        Ids of the vocabulary, and the code of the first hypertoken.
    max_hypertokens : int
        Of a sequence; when there are so many, the codebook stays as it is.
    max_ids : int
        That one hypertoken stands for.
    disabled : frozenset of int
        Ids that no hypertoken holds: control tokens.

    Raises
    ------
    SettingError
        If a limit is out of its range.
    """

    n_ids: int
    max_hypertokens: int = MAX_HYPERTOKENS
    max_ids: int = MAX_IDS
    disabled: frozenset[int] = field(default_factory=frozenset)

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.n_ids < 1:
            raise SettingError(
                f"a vocabulary of {self.n_ids} ids has none to merge; give 1 or more"
            )
        if self.max_hypertokens < 0:
            raise SettingError(f"{self.max_hypertokens} hypertokens cannot be made; give 0 or more")
        if self.max_ids < 2:
            raise SettingError(
                f"a hypertoken of {self.max_ids} ids would be no shorter way; give 2 or more"
            )


class Codebook:
    """The hypertokens of one sequence, as they stand after the codes that were read.

    Parameters
    ----------
    limits : Limits

    Attributes
    ----------
    phrases : list of tuples of int
        The ids that each hypertoken stands for; the first has the code `limits.n_ids`.
    born : list of int
        After how many codes each was there: it may be used for the code of that number, counted
        from 0, and later ones.
    n_read : int
        Codes read.

    Examples
    --------
    >>> book = Codebook(Limits(n_ids=10))
    >>> [book.read(code) for code in (1, 2, 1, 10)]
    [None, 10, 11, 12]
    >>> book.phrases
    [(1, 2), (2, 1), (1, 1)]
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.phrases: list[Phrase] = []
        self.born: list[int] = []
        self.n_read = 0
        self._following: dict[tuple[int, int], int] = {}
        self._last: int | None = None

    def phrase(self, code: int) -> Phrase:
        """Return the ids that a code stands for.

        Raises
        ------
        TokenizerError
            If there is no such code yet.
        """
        number = code - self.limits.n_ids
        if code >= 0 and number < len(self.phrases):
            return self.phrases[number] if number >= 0 else (code,)
        raise TokenizerError(
            f"code {code} is neither one of {self.limits.n_ids:,} ids nor one of "
            f"{len(self.phrases):,} hypertokens; give all codes of the sequence, in their order, "
            "with the limits that they were written with"
        )

    def read(self, code: int) -> int | None:
        """Take the next code of the sequence; return the code of the hypertoken that it makes.

        Raises
        ------
        TokenizerError
            If there is no such code yet; nothing is changed then.
        """
        first, last, limits = self.phrase(code)[0], self._last, self.limits
        self.n_read += 1
        self._last = None if first in limits.disabled else code
        if last is None or self._last is None or len(self.phrases) >= limits.max_hypertokens:
            return None
        before = self.phrase(last)
        # What a model writes may spell a phrase that has a code with other codes.
        if len(before) >= limits.max_ids or (last, first) in self._following:
            return None
        new = limits.n_ids + len(self.phrases)
        self.phrases.append((*before, first))
        self.born.append(self.n_read)
        self._following[last, first] = new
        return new

    def encode(self, ids: Sequence[int]) -> list[int]:
        """Read a sequence of ids and return its codes: at each place the longest phrase there is.

        The codes that were read before are its context, and are not repeated.

        Raises
        ------
        TokenizerError
            If an id is none of the vocabulary.
        """
        n_ids, following = self.limits.n_ids, self._following
        for token in ids:
            if not 0 <= token < n_ids:
                raise TokenizerError(
                    f"id {token} is none of {n_ids:,}; give ids of the model's own tokenizer"
                )
        codes: list[int] = []
        at, n = 0, len(ids)
        while at < n:
            code = ids[at]
            at += 1
            # Every phrase but for its last id has a code, so the longest is found step by step.
            while at < n and (longer := following.get((code, ids[at]))) is not None:
                code = longer
                at += 1
            codes.append(code)
            self.read(code)
        return codes

    def decode(self, codes: Iterable[int]) -> list[int]:
        """Read codes and return the ids that they stand for.

        Raises
        ------
        TokenizerError
            At the first code that there is not yet.
        """
        ids: list[int] = []
        for code in codes:
            ids.extend(self.phrase(code))
            self.read(code)
        return ids


def encode(ids: Sequence[int], limits: Limits) -> list[int]:
    """Return the codes of a sequence of ids.

    Examples
    --------
    >>> encode([1, 2, 1, 2, 1, 2, 1, 2], Limits(n_ids=10))
    [1, 2, 10, 10, 10]
    """
    return Codebook(limits).encode(ids)


def decode(codes: Iterable[int], limits: Limits) -> list[int]:
    """Return the ids of a sequence of codes.

    Examples
    --------
    >>> decode([1, 2, 10, 10, 10], Limits(n_ids=10))
    [1, 2, 1, 2, 1, 2, 1, 2]
    """
    return Codebook(limits).decode(codes)


def encode_many(
    sequences: Iterable[Sequence[int]], limits: Limits
) -> tuple[list[list[int]], list[Codebook]]:
    """Return the codes of several sequences, and the codebook of each as it stands at its end."""
    codes, books = [], []
    for ids in sequences:
        book = Codebook(limits)
        codes.append(book.encode(ids))
        books.append(book)
    return codes, books
