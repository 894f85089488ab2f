"""How one vocabulary spells another's tokens, and what the other cannot tell apart at once."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from tokensurgeon.arrays import Ids, Mask
from tokensurgeon.vocabulary.prefix_table import Continuations, PrefixTable
from tokensurgeon.vocabulary.vocabulary import Vocabulary

Spelling = tuple[int, ...]

MOST_LINKS = 8
"""Tokens that lead from a long target token to the one that its first piece begins with: a longer
chain would need tokens whose first pieces are cut again and again."""


class Spellings:
    """The tokens of the source, spelled with the target's.

    Parameters
    ----------
    source, target : Vocabulary

    Attributes
    ----------
    spelled : list of tuples of int, by source id
        Target ids; empty for a control and where the target cannot spell a token.
    first : int64 (n_source,)
        The first of them, -1 where there is none.
    """

    def __init__(self, source: Vocabulary, target: Vocabulary) -> None:
        self.source, self.target = source, target
        self.spelled = [_spelled(target, data) for data in source.token_bytes]
        self.first = np.array([one[0] if one else -1 for one in self.spelled], dtype=np.int64)
        self._table: PrefixTable[Spelling] = PrefixTable(self.spelled)
        self._runs: dict[tuple[int, ...], Spelling] = {}

    def continued(self, begun: Spelling) -> Continuations:
        """Return the source tokens that begin with these target tokens and go on."""
        return self._table.after(begun)

    def run(self, tokens: tuple[int, ...]) -> Spelling:
        """Return how the target spells several source tokens on end; empty where it cannot."""
        known = self._runs.get(tokens)
        if known is None:
            known = self._runs[tokens] = _spelled(self.target, self.source.bytes_of(tokens))
        return known

    @cached_property
    def parted(self) -> Mask:
        """Which source tokens the target has no one token for, but several, bool (n_source,)."""
        return np.array([len(one) > 1 for one in self.spelled], dtype=np.bool_)

    @cached_property
    def group(self) -> Ids:
        """The target token for which each target token counts at a border, int64 (n_target,).

        A token of several source pieces counts for the token that its first piece begins with: the
        source says how likely the piece is, and only after it what follows.
        """
        group = np.arange(self.target.n_rows)
        for token, data in enumerate(self.target.token_bytes):
            pieces = self.source.pieces_of(data) if data else None
            if pieces is not None and len(pieces) > 1 and self.first[pieces[0]] >= 0:
                group[token] = self.first[pieces[0]]
        for _ in range(MOST_LINKS):
            group = group[group]
        return group

    @cached_property
    def n_in_group(self) -> Ids:
        """How many target tokens count for each, int64 (n_target,)."""
        return np.bincount(self.group, minlength=len(self.group))


def _spelled(target: Vocabulary, data: bytes | None) -> Spelling:
    return (target.pieces_of(data) or ()) if data else ()
