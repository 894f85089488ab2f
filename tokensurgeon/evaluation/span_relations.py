"""The loss, split by how each token stands to the source's tokens on the same text.

Where both tokenizers cut alike, a copied row does what it did in the source. Where they cut
differently, even a shared token is asked for in places where the source never wrote it. So the
losses of four kinds of places are told apart; they add up to the whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tokensurgeon.arrays import Float64, Ids
from tokensurgeon.evaluation.metrics import LN2
from tokensurgeon.evaluation.scoring import Scores

ONE, FIRST_PART, INSIDE, LONGER = RELATIONS = ("one source token", "first part", "inside", "longer")
"""How a token stands to the source's, in the order of tables.

``one source token``: it spans exactly the bytes of one. ``first part``: it starts where one starts
and ends inside it. ``inside``: it starts inside a source token, wherever it ends. ``longer``: it
starts where a source token starts and passes the end of that, wherever it ends.
"""


@dataclass(frozen=True)
class SpanPart:
    """The tokens that stand to the source's in one way, and their loss.

    All bits are over the bytes of the *whole* text, so that parts add up.

    Attributes
    ----------
    relation : str
        One of `RELATIONS`.
    tokens, bytes : int
        How many such tokens were scored, and the bytes they stand for.
    share : float
        Of all bytes.
    bits_per_byte : float
        Their loss.
    source_bits_per_byte : float
        Loss of the source's tokens that start on their bytes. So the loss of a source token that
        is written in parts stands whole at ``first part``, and none of it at ``inside``: take the
        two together.
    on_source_states : float or None
        Loss of these tokens when the model's output rows are given the *source's* final states at
        the same places: what is lost there is lost by rows, what more is lost in the model itself
        by states. None ``inside``, where the source has no state, and where the rows do not fit.
    """

    relation: str
    tokens: int
    bytes: int
    share: float
    bits_per_byte: float
    source_bits_per_byte: float
    on_source_states: float | None = None


def relations(source_ends: Ids, start: int, ends: Ids) -> Ids:
    """Return how each token stands to the source's, int64 (n_tokens,), indices of `RELATIONS`.

    Parameters
    ----------
    source_ends : int64 (n_source_tokens,)
        Where the source's tokens end, ascending.
    start : int
        Where the first token of either begins.
    ends : int64 (n_tokens,)
        Where the tokens end; the last ends where the source's last does.

    Notes
    -----
    A token without bytes, such as a lone word marker, goes with the next one that has some, or with
    the last.

    Examples
    --------
    >>> found = relations(np.array([2, 5, 9]), 0, np.array([2, 4, 5, 6, 9]))
    >>> [RELATIONS[i] for i in found]
    ['one source token', 'first part', 'inside', 'first part', 'inside']
    """
    borders = np.unique(np.append(source_ends, start))
    begins = begins_of(ends, start)
    wide = np.flatnonzero(ends > begins)
    if not wide.size:
        return np.full(len(ends), RELATIONS.index(ONE), dtype=np.int64)
    first, last = begins[wide], ends[wide]
    passed = np.searchsorted(borders, last, "left") - np.searchsorted(borders, first, "right")
    found = np.select(
        [~np.isin(first, borders), passed > 0, np.isin(last, borders)],
        [RELATIONS.index(INSIDE), RELATIONS.index(LONGER), RELATIONS.index(ONE)],
        RELATIONS.index(FIRST_PART),
    )
    following = np.searchsorted(wide, np.arange(len(ends)))
    return np.asarray(found[np.minimum(following, wide.size - 1)], dtype=np.int64)


def begins_of(ends: Ids, start: int) -> Ids:
    """Return where tokens begin, int64 (n_tokens,), from where they end and the first begins."""
    return np.append(start, ends[:-1])[: len(ends)].astype(np.int64)


def states_before(source_begins: Ids, begins: Ids) -> Ids:
    """Return which state of the source has read just what precedes each token, or -1.

    Parameters
    ----------
    source_begins, begins : int64 (n_source_tokens,), (n_tokens,)
        Where the tokens of either begin, ascending.

    Returns
    -------
    int64 (n_tokens,)
        Indices of source tokens: the state is the one that this token follows. Of several tokens
        that begin at one place, all but the last have no bytes; they are counted from the last.

    Examples
    --------
    >>> states_before(np.array([0, 2, 5]), np.array([0, 2, 3, 5])).tolist()
    [0, 1, -1, 2]
    """
    from_last = np.searchsorted(begins, begins, "right") - 1 - np.arange(len(begins))
    index = np.searchsorted(source_begins, begins, "right") - 1 - from_last
    known = (index >= 0) & (source_begins[np.maximum(index, 0)] == begins)
    return np.where(known, index, -1)


def span_parts(
    own: Scores, source: Scores, on_states: Sequence[Float64] | None = None
) -> tuple[SpanPart, ...]:
    """Split a model's loss by how its tokens stand to the source's.

    Parameters
    ----------
    own, source : Scores
        Of the same chunks; only those that both could score count.
    on_states : float64 (n_tokens,) for each chunk, or None
        Losses of the model's output rows on the source's states; 0 where there is no such state.

    Returns
    -------
    tuple of SpanPart
        Those that occur, in the order of `RELATIONS`; they add up to the loss of either.
    """
    both = np.flatnonzero(own.comparable & source.comparable)
    n_bytes = int(own.n_bytes[both].sum())
    n = len(RELATIONS)
    sums = np.zeros((5, n))
    for i in both.tolist():
        start, ends = int(own.start[i]), own.token_ends[i]
        theirs = source.token_ends[i]
        relation = relations(theirs, start, ends)
        # A source token belongs to the token that has its first byte.
        holder = np.searchsorted(ends, begins_of(theirs, start), "right")
        of_source = relation[np.minimum(holder, len(ends) - 1)]
        sums[0] += np.bincount(relation, minlength=n)
        sums[1] += np.bincount(relation, ends - begins_of(ends, start), n)
        sums[2] += np.bincount(relation, own.token_nll[i], n)
        sums[3] += np.bincount(of_source, source.token_nll[i], n)
        if on_states is not None:
            sums[4] += np.bincount(relation, on_states[i], n)
    tokens, sizes, *losses = sums.tolist()
    bits = (np.array(losses) / (LN2 * max(n_bytes, 1))).tolist()
    return tuple(
        SpanPart(
            name,
            int(tokens[k]),
            int(sizes[k]),
            sizes[k] / n_bytes,
            bits[0][k],
            bits[1][k],
            None if on_states is None or name == INSIDE else bits[2][k],
        )
        for k, name in enumerate(RELATIONS)
        if tokens[k]
    )
