"""How far two tokenizers cut a text at the same places.

A shared token keeps its row, but where the target cuts as the source never did it stands in a
context that the source has not learned. Both directions count: cuts of the source that the target
gives up, and cuts of the target that are new.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from tokensurgeon.vocabulary import Vocabulary


@dataclass(frozen=True)
class Boundaries:
    """Counts of token boundaries inside texts; a text's two ends do not count.

    Attributes
    ----------
    source, target, both : int
        Boundaries of either tokenizer, and those that they have in common.
    """

    source: int
    target: int
    both: int

    @property
    def kept(self) -> float:
        """Share of the source's boundaries that the target keeps; 1 where there is none."""
        return self.both / self.source if self.source else 1.0

    @property
    def known(self) -> float:
        """Share of the target's boundaries that the source has; 1 where there is none."""
        return self.both / self.target if self.target else 1.0

    @property
    def agreement(self) -> float:
        """Boundaries in common over the boundaries of either; 1 where there is none."""
        either = self.source + self.target - self.both
        return self.both / either if either else 1.0


def boundaries(source: Vocabulary, target: Vocabulary, texts: Iterable[str]) -> Boundaries:
    """Count the boundaries of two tokenizers on the same texts."""
    documents = list(texts)
    counts = np.zeros(3, dtype=np.int64)
    for encodings in zip(source.encode_many(documents), target.encode_many(documents), strict=True):
        inner = [
            ends[(ends > 0) & (ends < encoding.n_bytes)]
            for encoding, ends in ((own, np.unique(own.ends)) for own in encodings)
        ]
        both = np.intersect1d(inner[0], inner[1], assume_unique=True)
        counts += [inner[0].size, inner[1].size, both.size]
    return Boundaries(*counts.tolist())
