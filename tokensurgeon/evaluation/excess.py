"""Where the gap to the source comes from: both models' losses on the same bytes, kind by kind.

Two tokenizers cut a text differently, so their losses cannot be subtracted token by token. The
loss of each of the source's tokens is spread evenly over the token's bytes; what falls on the
bytes of a patched token is what the source paid for the same text. The parts add up to the gap.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from tokensurgeon.alignment import Alignment
from tokensurgeon.arrays import Float64, Ids
from tokensurgeon.evaluation.breakdown import bytes_of, kind_label, match_label, sums_by_token
from tokensurgeon.evaluation.metrics import LN2
from tokensurgeon.evaluation.scoring import Scores
from tokensurgeon.vocabulary import Vocabulary

N_EXAMPLES = 5
"""Tokens that a part names: those that cost most."""
_EXAMPLE = ("text", "tokens", "excess")
"""Keys of an example in JSON."""


@dataclass(frozen=True)
class Excess:
    """One kind of token, shared or missing, and what it costs above the source.

    Attributes
    ----------
    kind : str
        See `breakdown.token_kind`.
    match : 'shared' or 'missing'
        Whether the source has the token.
    bits_per_byte, source_bits_per_byte : float
        Losses on the bytes of these tokens, in bits over the bytes of the *whole* text.
    tokens, bytes : int
        How many such tokens were scored, and the bytes they stand for.
    examples : tuple of (str, int, float)
        The tokens that cost most above the source: text, count, excess in bits per byte of the
        whole text.
    """

    kind: str
    match: str
    bits_per_byte: float
    source_bits_per_byte: float
    tokens: int
    bytes: int
    examples: tuple[tuple[str, int, float], ...] = ()

    @property
    def excess(self) -> float:
        """Bits per byte of the whole text above the source."""
        return self.bits_per_byte - self.source_bits_per_byte

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, and the excess, as plain values."""
        examples = [dict(zip(_EXAMPLE, example, strict=True)) for example in self.examples]
        return {**asdict(self), "excess": self.excess, "examples": examples}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Excess:
        """Read what `to_dict` wrote."""
        examples = tuple(tuple(example[key] for key in _EXAMPLE) for example in data["examples"])
        values = {name: value for name, value in data.items() if name != "excess"}
        return cls(**values | {"examples": examples})


@dataclass
class _Sum:
    mine: float = 0.0
    theirs: float = 0.0
    tokens: int = 0
    bytes: int = 0
    members: list[tuple[float, int, int]] = field(default_factory=list)


def loss_on_spans(nll: Float64, ends: Ids, start: int, spans: Ids) -> Float64:
    """Return how much of some tokens' loss falls on other tokens' bytes, float64 (n_spans,).

    Parameters
    ----------
    nll : float64 (n_tokens,)
        Loss of each token in nats. A token without bytes gives its loss to the next byte, the
        last one to the last byte.
    ends : int64 (n_tokens,)
        Where each ends, ascending.
    start : int
        Where the first begins.
    spans : int64 (n_spans,)
        Where each of the other tokens ends; the first begins at `start` too, and the last ends
        where the last of `ends` does.

    Examples
    --------
    >>> loss_on_spans(np.array([2.0, 3.0]), np.array([4, 5]), 0, np.array([1, 5])).tolist()
    [0.5, 4.5]
    """
    size = int(ends[-1]) - start if ends.size else 0
    if size <= 0:
        return np.zeros(len(spans))
    widths = np.diff(ends, prepend=start)
    wide = widths > 0
    per_byte = np.repeat(nll[wide] / widths[wide], widths[wide])
    if not wide.all():
        np.add.at(per_byte, np.minimum(ends[~wide] - start, size - 1), nll[~wide])
    upto = np.concatenate([[0.0], np.cumsum(per_byte)])
    return np.asarray(np.diff(upto[np.clip(spans - start, 0, size)], prepend=0.0))


def costs_of_tokens(
    own: Scores, first: Scores
) -> tuple[int, list[tuple[int, int, float, float, int]]]:
    """Return the bytes that two models were both scored on, and what each token costs there.

    Parameters
    ----------
    own, first : Scores
        Of the same chunks; only those that both could score count.

    Returns
    -------
    int, list of (int, int, float, float, int)
        Of each token of `own`: its id, how often it was scored, its loss and the first's on the
        same bytes, in nats, and these bytes.
    """
    both = np.flatnonzero(own.comparable & first.comparable)
    n_bytes = int(own.n_bytes[both].sum())
    if not n_bytes:
        return 0, []
    tokens, counts, sums = sums_by_token(
        [own.token_ids[i] for i in both],
        [own.token_nll[i] for i in both],
        [
            loss_on_spans(
                first.token_nll[i], first.token_ends[i], int(own.start[i]), own.token_ends[i]
            )
            for i in both
        ],
        [np.diff(own.token_ends[i], prepend=own.start[i]) for i in both],
    )
    return n_bytes, [
        (token, count, mine, theirs, int(size))
        for token, count, mine, theirs, size in zip(tokens, counts, *sums, strict=True)
    ]


def excess_parts(
    own: Scores, first: Scores, vocabulary: Vocabulary, alignment: Alignment | None = None
) -> tuple[Excess, ...]:
    """Split a model's gap to the first by kind of its tokens, shared and missing apart.

    Parameters
    ----------
    own, first : Scores
        Of the same chunks; only those that both could score count.
    vocabulary : Vocabulary
        Of `own`.
    alignment : Alignment or None
        From the first's vocabulary; without one every token is shared.

    Returns
    -------
    tuple of Excess
        The largest excess first; they add up to the gap.
    """
    n_bytes, members = costs_of_tokens(own, first)
    if not n_bytes:
        return ()
    sums_of: dict[tuple[str, str], _Sum] = {}
    kind_of, match_of = kind_label(vocabulary), match_label(alignment)
    for token, count, mine, theirs, size in members:
        part = sums_of.setdefault((kind_of(token), match_of(token)), _Sum())
        part.mine += mine
        part.theirs += theirs
        part.tokens += count
        part.bytes += size
        part.members.append((mine - theirs, count, token))
    scale = LN2 * n_bytes
    parts = [
        Excess(
            kind,
            match,
            part.mine / scale,
            part.theirs / scale,
            part.tokens,
            part.bytes,
            tuple(
                (shown(bytes_of(vocabulary, token)), count, loss / scale)
                for loss, count, token in sorted(part.members, reverse=True)[:N_EXAMPLES]
                if loss > 0
            ),
        )
        for (kind, match), part in sums_of.items()
    ]
    return tuple(sorted(parts, key=lambda part: (-part.excess, part.kind, part.match)))


def shown(data: bytes | None) -> str:
    """Return a token's bytes as text, or as hexadecimal where they are not whole UTF-8."""
    if data is None:
        return "a control token"
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return f"0x{data.hex()}"
