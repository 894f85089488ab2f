"""What a method learns: merges, or tokens alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tokensurgeon.vocabulary.token_bytes import byte_order


@dataclass
class Merges:
    """Tokens and how each was made.

    Attributes
    ----------
    tokens : list of bytes
        The 256 bytes in `byte_order`, then the learned tokens. All distinct.
    pairs : list of (int, int)
        Ids of the two parts of each merge, in the order learned.
    made : list of int
        Id that each merge makes. Two merges can make the same bytes, and so the same id.
    counts : list of int
        How often each pair occurred in the text when it was merged.
    """

    tokens: list[bytes] = field(default_factory=lambda: [bytes([b]) for b in byte_order()])
    pairs: list[tuple[int, int]] = field(default_factory=list)
    made: list[int] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)

    @property
    def ids(self) -> dict[bytes, int]:
        """Id of each token, in a new dictionary."""
        return {token: number for number, token in enumerate(self.tokens)}

    def copy(self, n_tokens: int | None = None) -> Merges:
        """Return a copy, cut to the first `n_tokens` tokens and the merges that make them."""
        end = len(self.pairs)
        if n_tokens is not None:
            end = next((i for i, made in enumerate(self.made) if made >= n_tokens), end)
        return Merges(self.tokens[:n_tokens], self.pairs[:end], self.made[:end], self.counts[:end])

    def add(self, left: int, right: int, count: int, ids: dict[bytes, int]) -> int:
        """Append a merge and return the id that it makes; `ids` gets it too."""
        token = self.tokens[left] + self.tokens[right]
        made = ids.get(token)
        if made is None:
            made = ids[token] = len(self.tokens)
            self.tokens.append(token)
        self.pairs.append((left, right))
        self.made.append(made)
        self.counts.append(count)
        return made

    def fill(self, others: Merges, n_tokens: int) -> None:
        """Append merges of `others`, in their order, whose parts exist, up to `n_tokens` tokens."""
        ids = self.ids
        for (left, right), count in zip(others.pairs, others.counts, strict=True):
            if len(self.tokens) >= n_tokens:
                break
            first, second = others.tokens[left], others.tokens[right]
            if first in ids and second in ids and first + second not in ids:
                self.add(ids[first], ids[second], count, ids)


@dataclass(frozen=True)
class Learned:
    """What a method learned.

    Attributes
    ----------
    tokens : sequence of bytes
        The 256 bytes in `byte_order`, then the others.
    cut : str or None
        Pattern of the pre-tokenizer.
    merges : Merges or None
        Merges that make the tokens; None for a method that learns tokens alone, which only the
        encoder `min-tokens` can use.
    """

    tokens: Sequence[bytes]
    cut: str | None
    merges: Merges | None = None

    @classmethod
    def of(cls, merges: Merges, cut: str | None) -> Learned:
        """Return what merges make."""
        return cls(merges.tokens, cut, merges)
