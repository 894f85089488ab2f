"""Figures of one model on groups of the documents, such as files or languages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tokensurgeon.evaluation.metrics import (
    Interval,
    bits_per_byte,
    bootstrap_ratio,
    bytes_per_token,
    totals,
)
from tokensurgeon.evaluation.scoring import Scores


@dataclass(frozen=True)
class GroupResult:
    """Figures of one model on one group, as `EntryResult` has them of all.

    `documents`, `bytes` and `tokens` are what the figures are over; `difference` and `tokens_saved`
    are against the first model of the table, None for it.
    """

    bits_per_byte: float | None
    bytes_per_token: float | None
    documents: int
    bytes: int
    tokens: int
    difference: Interval | None = None
    tokens_saved: float | None = None

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> GroupResult:
        """Read what `asdict` gives, and JSON makes of it."""
        gap = data["difference"]
        return cls(**{**data, "difference": None if gap is None else Interval(**gap)})


def group_results(
    own: Scores, first: Scores | None, groups: Sequence[str], seed: int
) -> dict[str, GroupResult]:
    """Return the figures of each group, in the order in which they come first.

    Parameters
    ----------
    own : Scores
    first : Scores or None
        Of the first model, on the same chunks.
    groups : sequence of str
        By number of the document.
    seed : int
        Of the bootstrap, the same for each group.
    """
    of_chunk = np.array([groups[i] for i in own.document.tolist()])
    results = {}
    for name in dict.fromkeys(of_chunk.tolist()):
        mask = own.comparable & (of_chunk == name)
        nll, n_bytes, n_tokens = totals(own, mask)
        difference = saved = None
        if first is not None and (mask & first.comparable).any():
            both = mask & first.comparable
            difference = bootstrap_ratio(replace(own, comparable=both), first, seed)
            theirs = totals(first, both)[2]
            saved = 1 - totals(own, both)[2] / theirs if theirs else None
        results[name] = GroupResult(
            bits_per_byte(nll, n_bytes) if n_bytes else None,
            bytes_per_token(n_bytes, n_tokens) if n_tokens else None,
            len(set(own.document[mask].tolist())),
            n_bytes,
            n_tokens,
            difference,
            saved,
        )
    return results
