"""What added tokens do to a text: how many fewer tokens it takes, and how many of them occur."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tokensurgeon.alignment import Alignment
from tokensurgeon.inspection.reach import find_unreachable
from tokensurgeon.progress import Progress, no_progress
from tokensurgeon.vocabulary import Kind, Vocabulary


@dataclass(frozen=True)
class Extension:
    """A vocabulary that keeps all ids of another and has more, on a text.

    Attributes
    ----------
    added : int
        Number of new tokens that are text.
    unreachable : int
        How many of them no text was found to be encoded into: of those that the text does not
        have, each was tried alone and between others (see `find_unreachable`).
    bytes, documents : int
        Of the text; 0 where none was given.
    tokens_before, tokens : int
        That it takes.
    longer : int
        Documents that take more tokens than before.
    used : int
        How many of the new tokens occur in it.
    new : int
        How often they do, all together.
    """

    added: int
    unreachable: int
    bytes: int = 0
    documents: int = 0
    tokens_before: int = 0
    tokens: int = 0
    longer: int = 0
    used: int = 0
    new: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return the figures, and the shares that follow from them."""
        shares: dict[str, float | None] = {
            "bytes_per_token_before": _ratio(self.bytes, self.tokens_before),
            "bytes_per_token": _ratio(self.bytes, self.tokens),
            "tokens_saved": _ratio(self.tokens_before - self.tokens, self.tokens_before),
            "used_share": _ratio(self.used, self.added) if self.bytes else None,
            "share_of_tokens": _ratio(self.new, self.tokens),
        }
        return {**vars(self), **shares}


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def is_extension(alignment: Alignment) -> bool:
    """Whether the target has every id of the source, and tokens of text beyond."""
    n = alignment.source.n_rows
    kept = alignment.source_ids[:n]
    texts = alignment.source.kinds == Kind.ORDINARY
    same = len(kept) == n and bool((kept[texts] == np.flatnonzero(texts)).all())
    return same and bool((alignment.target.kinds[n:] == Kind.ORDINARY).any())


def measure_extension(
    before: Vocabulary,
    after: Vocabulary,
    texts: Sequence[str] = (),
    progress: Progress = no_progress,
) -> Extension:
    """Measure an extended vocabulary beside the one that it extends.

    Parameters
    ----------
    before, after : Vocabulary
        `after` has all ids of `before`.
    texts : sequence of str
        Documents that the tokens were not learned from.
    progress : callable(done, total, what)
    """
    first = before.n_rows
    added = {first + int(i) for i in np.flatnonzero(after.kinds[first:] == Kind.ORDINARY)}
    n_before: list[int] = []
    n_after: list[int] = []
    counts: Counter[int] = Counter()
    for number, (old, new) in enumerate(
        zip(before.encode_many(texts), after.encode_many(texts), strict=True)
    ):
        progress(number, len(texts), "counting tokens")
        n_before.append(len(old.ids))
        n_after.append(len(new.ids))
        counts.update(i for i in new.ids if i in added)
    unused = added - counts.keys()
    reach = find_unreachable(after, progress, unused)
    return Extension(
        added=len(added),
        unreachable=len(reach.never) + len(reach.suspects),
        bytes=sum(len(text.encode("utf-8")) for text in texts),
        documents=len(texts),
        tokens_before=sum(n_before),
        tokens=sum(n_after),
        longer=sum(new > old for old, new in zip(n_before, n_after, strict=True)),
        used=len(counts),
        new=sum(counts.values()),
    )
