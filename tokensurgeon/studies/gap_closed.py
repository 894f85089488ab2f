"""How much of the recoverable gap a method closes, where the least that rows can reach is known."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokensurgeon.checkpoint.files import MAX_JSON
from tokensurgeon.errors import SettingError, UsageError
from tokensurgeon.evaluation import EntryResult

PLAIN = "subword-mean"
"""The method at which the recoverable gap starts, where the trained limit does not say."""

SAME_SOURCE = 0.005
"""By how much, in bits per byte, the source may differ where a trained limit was measured."""


@dataclass(frozen=True)
class KnownLimit:
    """The least that trained rows reach on a pair, the body frozen.

    Attributes
    ----------
    limit : float
        Bits per byte.
    start : float or None
        Bits per byte at which the training started; `PLAIN`'s in the table if None.
    source : float or None
        The source where it was measured, to check that the texts are the same.
    source_trained : float or None
        The source after the same training of its own rows: what of it is domain adaptation.
    """

    limit: float
    start: float | None = None
    source: float | None = None
    source_trained: float | None = None

    @classmethod
    def parse(cls, text: str) -> KnownLimit:
        """Read a number of bits per byte, or a JSON file with the fields as keys.

        Raises
        ------
        SettingError
            If it is neither.
        """
        try:
            known = {"limit": float(text)}
        except ValueError:
            known = _limit_file(text)
        if "limit" not in known or not all(0 <= value < math.inf for value in known.values()):
            raise SettingError(
                f"'{text}' is no trained limit: give bits per byte, or the JSON of 'trained-limit'"
            )
        return cls(**known)


def _limit_file(path: str) -> dict[str, float]:
    """Return the known keys of a trained limit's file; none of what is no such file."""
    file = Path(path)
    try:
        if not file.is_file() or file.stat().st_size > MAX_JSON:
            return {}
        data = json.loads(file.read_text("utf-8"))
        names = ("limit", "start", "source", "source_trained")
        data.setdefault("limit", data.get("floor"))  # as files of 0.1 have it
        return {name: float(data[name]) for name in names if data.get(name) is not None}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}


def close_gaps(rows: list[dict[str, Any]], source: EntryResult, limit: KnownLimit) -> bool:
    """Say what share of the recoverable gap each method closes; mutates `rows`.

    False where nothing says at which bits per byte the gap starts.

    Raises
    ------
    UsageError
        If the limit is of another text, or not below where it starts.
    """
    if limit.source is not None and source.bits_per_byte is not None:
        apart = abs(limit.source - source.bits_per_byte)
        if apart > SAME_SOURCE:
            raise UsageError(
                f"the trained limit was measured where the source has {limit.source:.4f} bits per "
                f"byte; here it has {source.bits_per_byte:.4f}: measure both on the same text"
            )
    start = limit.start
    if start is None:
        start = next((row["bits_per_byte"] for row in rows if row["method"] == PLAIN), None)
    if start is None:
        return False
    if limit.limit >= start:
        raise UsageError(
            f"the trained limit of {limit.limit:.4f} bits per byte is not below the start of "
            f"{start:.4f}, so there is no gap to recover; measure the limit again on this text"
        )
    for row in rows:
        if row["bits_per_byte"] is not None:
            row["closed"] = (start - row["bits_per_byte"]) / (start - limit.limit)
    return True
