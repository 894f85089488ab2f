"""Why writing ended: the text did, what was asked for is written, or no position is left."""

from __future__ import annotations

from collections.abc import Sequence

END, LIMIT, POSITIONS = "end", "limit", "positions"
"""The model ended the text; as much is written as was asked for; the model has no position left."""


def stopped_by(written: Sequence[int], asked: int, end_id: int | None) -> str:
    """Return why writing ended.

    Parameters
    ----------
    written : sequence of int
        What was drawn, up to the token that ends the text, if that was drawn.
    asked : int
        Most of it.
    end_id : int or None

    Examples
    --------
    >>> stopped_by([7, 2], 9, 2), stopped_by([7, 7], 2, 2), stopped_by([7], 9, 2)
    ('end', 'limit', 'positions')
    """
    if written and written[-1] == end_id:
        return END
    return LIMIT if len(written) >= asked else POSITIONS
