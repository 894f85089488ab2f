"""Text in which many words are source tokens that the target parts, so that few lessons say much.

In ordinary text one token of twenty is such. Here words of a text are replaced by others that the
source finds likely in their place and that the target has no token for. What the source implies is
read on the text as it then stands, so the lessons are as exact as any.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tokensurgeon.arrays import Float32, Float64, Ids, Mask
from tokensurgeon.calibration.byte_positions import BytePositions
from tokensurgeon.models import OutputHead
from tokensurgeon.vocabulary.spellings import Spellings

MOST_LIKELY = 1 << 15
"""Source tokens that are looked at, the likeliest at the mean position."""
LEAST_MASS = 3e-3
"""Probability of all that might replace a word, from which it may be replaced: half of the words
of prose from Gemma's tokens to SmolLM2's; one token of four is then parted, not of twenty."""
REPLACED = 0.7
"""Of the words that may be, at random; of neighbours only the first."""


def parted_texts(
    spellings: Spellings,
    head: OutputHead,
    positions: BytePositions,
    states: Float32,
    mean: Float64,
    *,
    n: int,
    seed: int = 0,
) -> Iterator[str]:
    """Yield the chunks of a text with words replaced, several times over; seeded.

    Parameters
    ----------
    spellings : Spellings
    head : OutputHead
        Of the source.
    positions : BytePositions
        Of the source's tokens on the text.
    states : float32 (n_states, width)
        The source's.
    mean : float64 (n_source,)
        How likely the source finds each token at the mean position.
    n : int
        Times that the text is gone over, with other draws each time.
    seed : int
    """
    rng = np.random.default_rng(seed)
    data = spellings.source.token_bytes
    likely = np.sort(np.argsort(-mean, kind="stable")[:MOST_LIKELY])
    word = np.array([_is_word(one) for one in data], dtype=np.bool_)
    spaced = np.array([(one or b"")[:1] == b" " for one in data], dtype=np.bool_)
    ids, chunk = positions.ids, np.cumsum(np.r_[0, positions.starts[1:] != positions.ends[:-1]])
    ends = np.r_[~word[ids[1:]] | spaced[ids[1:]] | (chunk[1:] != chunk[:-1]), True]
    places = np.flatnonzero((positions.before >= 0) & word[ids] & ends & ~spellings.parted[ids])
    may = word & spellings.parted
    drawn = _drawn(head, states[positions.before[places]], likely, may, spaced, ids[places], n, rng)
    for other in drawn:
        text, last = ids.copy(), -2
        chosen = (other >= 0) & (rng.random(len(places)) < REPLACED)
        for place, token in zip(places[chosen].tolist(), other[chosen].tolist(), strict=True):
            if place > last + 1:
                text[place], last = token, place
        for part in np.split(text, np.flatnonzero(np.diff(chunk)) + 1):
            if len(part):
                yield spellings.source.bytes_of(part.tolist()).decode("utf-8", "replace")


def _is_word(data: bytes | None) -> bool:
    return (data or b"").decode("utf-8", "replace").removeprefix(" ").isalpha()


def _drawn(
    head: OutputHead,
    states: Float32,
    likely: Ids,
    may: Mask,
    spaced: Mask,
    ids: Ids,
    n: int,
    rng: np.random.Generator,
) -> Ids:
    """Return tokens to put in the place of some, -1 where none is likely, int64 (n, n_places).

    Parameters
    ----------
    head : OutputHead
    states : float32 (n_places, width)
    likely : int64
        Tokens that are looked at.
    may : bool (n_source,)
        Which may be put in.
    spaced : bool (n_source,)
        Which begin with a space: only like replaces like.
    ids : int64 (n_places,)
        What stands there.
    n : int
    rng : Generator
        Drawn from.
    """
    drawn = np.full((n, len(states)), -1, dtype=np.int64)
    some = head.with_rows(head.rows[likely], None if head.bias is None else head.bias[likely])
    columns = [np.flatnonzero(may[likely] & (spaced[likely] == flag)) for flag in (False, True)]
    for part in some.blocks(len(states)):
        p = some.log_softmax(states[part]).exp_().cpu().numpy()
        for flag, column in enumerate(columns):
            rows = np.flatnonzero(spaced[ids[part]] == flag)
            if not len(column) or not len(rows):
                continue
            sums = np.cumsum(p[np.ix_(rows, column)], axis=1)
            enough = sums[:, -1] >= LEAST_MASS
            for k in range(n):
                wanted = rng.random(len(rows)) * sums[:, -1]
                index = np.minimum((sums < wanted[:, None]).sum(axis=1), len(column) - 1)
                drawn[k, part.start + rows] = np.where(enough, likely[column[index]], -1)
    return drawn
