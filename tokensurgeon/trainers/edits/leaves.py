"""Which of the tokens that were learned stay: leaves of the merge tree are dropped, rarest first.

A token that no other new token is merged from is a leaf. A leaf can be dropped without any other
token becoming unreachable; where it stood, the text has its two parts again, which then count as
used there.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np

from tokensurgeon.arrays import Ids, Int32


def kept_after_pruning(
    pairs: Sequence[tuple[int, int]], uses: Sequence[int], first: int, n: int
) -> list[int]:
    """Return which new tokens stay.

    Parameters
    ----------
    pairs : sequence of (int, int)
        Ids of the two parts of each new token, in the order learned; those from `first` on are new.
    uses : sequence of int
        How widely each new token is used, where all of them are there.
    first : int
        Id of the first new token.
    n : int
        How many stay, at most.

    Returns
    -------
    list of int
        Their numbers, ascending, counted from 0. A leaf that is not used never stays, even where
        fewer than `n` are left. Of equally used leaves the one that was learned last is dropped.

    Examples
    --------
    Two old tokens a and b; new are 2 = ab, 3 = ab·a, 4 = b·b. The text has 3 nine times, 4 once,
    and 2 only inside of 3.

    >>> kept_after_pruning([(0, 1), (2, 0), (1, 1)], [0, 9, 1], first=2, n=2)
    [0, 1]
    """
    left = list(uses)
    children = [0] * len(pairs)
    for pair in pairs:
        for part in pair:
            if part >= first:
                children[part - first] += 1
    leaves = [(left[i], -i) for i, count in enumerate(children) if not count]
    heapq.heapify(leaves)
    kept = set(range(len(pairs)))
    while leaves and (len(kept) > n or not leaves[0][0]):
        used, negative = heapq.heappop(leaves)
        kept.remove(-negative)
        for part in pairs[-negative]:
            number = part - first
            if number >= 0:
                left[number] += used
                children[number] -= 1
                if not children[number]:
                    heapq.heappush(leaves, (left[number], -number))
    return sorted(kept)


def uses_of(tokens: Int32, weights: Ids, first: int, n: int) -> list[int]:
    """Return the total weight of each of the `n` new tokens among the tokens of a text.

    Parameters
    ----------
    tokens : int32 (n_tokens,)
    weights : int64 (n_tokens,)
        Of the segment that each token stands in.
    first : int
        Id of the first new token.
    n : int
    """
    new = tokens >= first
    counts = np.bincount(tokens[new] - first, weights[new].astype(np.float64), minlength=n)
    return [int(count) for count in np.rint(counts)]
