"""What the source says of the tokens of a text, and where target tokens stand between its own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tokensurgeon.arrays import Float32, Float64, Ids, blocks
from tokensurgeon.calibration.byte_positions import BytePositions, state_at
from tokensurgeon.models.head import OutputHead

AT_ONCE = 1 << 16
"""Tokens whose rows are gathered together: a block of a few hundred MiB at common widths."""


@dataclass(frozen=True)
class Occurrences:
    """Target tokens whose both ends are boundaries of source tokens, one entry each.

    Attributes
    ----------
    tokens : int64 (n,)
    states : int64 (n,)
        The source's state before the token.
    logprob : float64 (n,)
        The source's log-probability of the pieces that stand there.
    first : int64 (n,)
        The source token that starts there.
    """

    tokens: Ids
    states: Ids
    logprob: Float64
    first: Ids


def source_logprob(
    source: BytePositions, states: Float32, head: OutputHead, logsumexp: Float64
) -> Float64:
    """Return the source's log-probability of each of its tokens on a text, float64 (n_tokens,).

    0 for a token that nothing stands before.

    Parameters
    ----------
    source : BytePositions
    states : float32 (n_states, width)
        The source's final states.
    head : OutputHead
        The source's own.
    logsumexp : float64 (n_states,)
    """
    logprob = np.zeros(len(source.ids))
    known = np.flatnonzero(source.before >= 0)
    for part in blocks(len(known), AT_ONCE):
        at = known[part]
        before, ids = source.before[at], source.ids[at]
        logprob[at] = head.logits_of(states[before], ids) - logsumexp[before]
    return logprob


def find_occurrences(source: BytePositions, target: BytePositions, logprob: Float64) -> Occurrences:
    """Return where target tokens stand between two boundaries that the source has too.

    Parameters
    ----------
    source, target : BytePositions
        Of the same chunks.
    logprob : float64 (n_tokens,)
        See `source_logprob`.
    """
    before, after = state_at(source, target.starts), state_at(source, target.ends)
    clean = np.flatnonzero((before >= 0) & (after >= 0) & (target.ends > target.starts))
    n_until = np.searchsorted(source.ends, target.starts[clean], side="right")
    n_after = np.searchsorted(source.ends, target.ends[clean], side="right")
    total = np.concatenate([[0.0], np.cumsum(logprob)])
    first = source.ids[np.minimum(n_until, len(source.ids) - 1)] if len(source.ids) else clean
    return Occurrences(
        tokens=target.ids[clean],
        states=before[clean],
        logprob=total[n_after] - total[n_until],
        first=first,
    )
