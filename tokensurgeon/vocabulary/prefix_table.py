"""Which tokens go on after a beginning, and with what: the algebra of prefixes.

Each token is a sequence of symbols: its bytes, or the tokens of another tokenizer that spell it.
The mass of all tokens that begin alike, summed by the symbol that comes next, is what a model of
tokens says of the next symbol. Byte views (`tokensurgeon.models.covers`) take it over bytes,
the source as teacher (`tokensurgeon.calibration.teacher`) over the target's tokens.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from functools import cached_property
from typing import Generic, TypeVar

import numpy as np

from tokensurgeon.arrays import Float32, Float64, Ids

Symbols = TypeVar("Symbols", bytes, tuple[int, ...])
"""How a token is written: bytes, or a tuple of ids."""
MOST_KEPT = 4096
"""Beginnings whose continuations are kept: those of many texts; the shortest are the largest."""


class Continuations:
    """Tokens that go on after a beginning, and the symbol that comes next in each.

    Attributes
    ----------
    tokens : int64 (n,)
    symbols : int64 (n,)
        What comes next in each of them.
    """

    def __init__(self, tokens: Ids, symbols: Ids) -> None:
        self.tokens, self.symbols = tokens, symbols

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def next_symbols(self) -> Ids:
        """The symbols that may come next, each once, ascending, int64 (n_symbols,)."""
        return self._distinct[0]

    def sums(self, masses: Float32 | Float64) -> Float64:
        """Return the masses of the tokens, summed by next symbol.

        Parameters
        ----------
        masses : float (n,)
            Of `tokens`, in their order.

        Returns
        -------
        float64 (n_symbols,)
            In the order of `next_symbols`.
        """
        distinct, which = self._distinct
        found: Float64 = np.bincount(which, masses, minlength=len(distinct)).astype(np.float64)
        return found

    @cached_property
    def _distinct(self) -> tuple[Ids, Ids]:
        distinct, which = np.unique(self.symbols, return_inverse=True)
        return distinct, which


class PrefixTable(Generic[Symbols]):
    """The tokens of a vocabulary in the order of their symbols.

    Parameters
    ----------
    written : sequence of bytes or of tuples of int, by id
        None or nothing where a token is not written: it is never found.

    Examples
    --------
    >>> table = PrefixTable([b"", b"a", b"ab", b"abc", b"b"])
    >>> table.after(b"a").tokens.tolist(), bytes(table.after(b"a").symbols.tolist())
    ([2, 3], b'bb')
    >>> table.exactly(b"a").tolist()
    [1]
    """

    def __init__(self, written: Sequence[Symbols | None]) -> None:
        pairs = sorted((symbols, token) for token, symbols in enumerate(written) if symbols)
        self._written: list[Symbols] = [symbols for symbols, _ in pairs]
        self._tokens = np.array([token for _, token in pairs], dtype=np.int64)
        self._kept: dict[Symbols, Continuations] = {}
        self.longest = max(map(len, self._written), default=0)
        """Symbols of the longest token."""

    def exactly(self, begun: Symbols) -> Ids:
        """Return the tokens that are written exactly so, int64, ascending."""
        first = bisect_left(self._written, begun)
        return self._tokens[first : bisect_right(self._written, begun, first)]

    def goes_on(self, begun: Symbols) -> bool:
        """Return whether any token begins so and goes on."""
        first = bisect_right(self._written, begun)
        return first < len(self._written) and self._written[first][: len(begun)] == begun

    def after(self, begun: Symbols) -> Continuations:
        """Return the tokens that begin so and go on, ascending by id."""
        known = self._kept.get(begun)
        if known is not None:
            return known
        n = len(begun)
        first = bisect_right(self._written, begun)
        last = bisect_right(self._written, begun, first, key=lambda symbols: symbols[:n])
        order = np.argsort(self._tokens[first:last])
        symbols = np.array([one[n] for one in self._written[first:last]], dtype=np.int64)
        found = Continuations(self._tokens[first:last][order], symbols[order])
        if len(self._kept) < MOST_KEPT:
            self._kept[begun] = found
        return found
