"""What merging tokens at run time does to a text, as data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class RowsFact:
    """One method of making rows for merged tokens.

    Attributes
    ----------
    name : str
    bits_per_byte : float or None
        Of the continuation after a merged prefill; None for an encoder.
    drift : float or None
        1 − cosine of a text's embedding, merged against plain, mean over texts; of an encoder.
    same_nearest : float or None
        Share of the texts whose nearest other text is the same one as before; of an encoder.
    n_rows : int
        Rows that were made.
    seconds_made, seconds_kept : float
        To make them, and to get them again once they are kept.
    """

    name: str
    bits_per_byte: float | None
    drift: float | None
    same_nearest: float | None
    n_rows: int
    seconds_made: float
    seconds_kept: float


@dataclass(frozen=True)
class MergingFacts:
    """Lengths, losses and times of one text under one policy.

    Attributes
    ----------
    checkpoint, kind, policy, positions : str
    settings : dict
        Limits and sizes, as they were given.
    n_texts, n_batches, n_bytes : int
        Chunks that were read merged, and their bytes.
    tokens_before, tokens_after : int
        Of what was read merged.
    n_merges, n_merged : int
        Merges, and merged tokens, over all batches.
    scored_bytes : int
        Of the continuations, which are never merged.
    bits_plain : float or None
        Bits per byte of the continuations after a plain prefill.
    rows : tuple of RowsFact
    clock : str
        ``processor`` or ``wall``: what the seconds are of.
    seconds_merging : float
        To choose what is merged.
    seconds_plain, seconds_merged : float
        Of the forward passes over what is read, plain and merged by the first method.
    """

    checkpoint: str
    kind: str
    policy: str
    positions: str
    settings: dict[str, Any]
    n_texts: int
    n_batches: int
    n_bytes: int
    tokens_before: int
    tokens_after: int
    n_merges: int
    n_merged: int
    scored_bytes: int
    bits_plain: float | None
    rows: tuple[RowsFact, ...]
    clock: str
    seconds_merging: float
    seconds_plain: float
    seconds_merged: float

    @property
    def saving(self) -> float:
        """Share of the tokens that merging saved."""
        return 1.0 - self.tokens_after / self.tokens_before if self.tokens_before else 0.0

    @property
    def merging_share(self) -> float:
        """Time of merging, in shares of the plain forward pass."""
        return self.seconds_merging / self.seconds_plain if self.seconds_plain else 0.0

    @property
    def time_saved(self) -> float:
        """Share of the forward pass that merging saved, without its own time."""
        return 1.0 - self.seconds_merged / self.seconds_plain if self.seconds_plain else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return the facts as JSON values."""
        shares = ("saving", "merging_share", "time_saved")
        return asdict(self) | {name: getattr(self, name) for name in shares}
