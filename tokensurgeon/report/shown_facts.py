"""What the page of a surgery shows besides figures, as data: parts of a `SurgeryReport`.

Each is bounded in size, whatever the vocabularies are.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class RowWeight(_Model):
    """A source token and its weight in a row."""

    spelling: str
    weight: float


class RowOrigin(_Model):
    """Where one side of a row came from: its `origin`, and the largest of its weights.

    `side` is ``input``, ``output`` or ``both``. `n_weights` counts all weights, `rest` is the share
    of the row's norm that they do not say.
    """

    side: str
    origin: str
    method: str | None
    weights: tuple[RowWeight, ...] = ()
    n_weights: int = 0
    rest: float = 0.0


class NewTokenFact(_Model):
    """A new token that the evaluation names, and where its row came from.

    `pieces` are the source tokens that spell it.
    """

    id: int
    spelling: str
    pieces: tuple[str, ...]
    sides: tuple[RowOrigin, ...]


class RowMap(_Model):
    """Rows of one matrix as points (x, y) of the plane of the largest variance of trained rows.

    `explained` is the share of that variance along x and y. `left_out` are trained source rows that
    no target token takes over, `copied` those that one does, as they are in the result, `new` the
    rows that were made; of each a sample, drawn evenly, of the rows counted in `totals`.
    """

    side: str
    explained: tuple[float, float]
    totals: dict[str, int]
    left_out: tuple[tuple[float, float], ...]
    copied: tuple[tuple[float, float], ...]
    new: tuple[tuple[float, float], ...]


class CutFact(_Model):
    """How both tokenizers cut one text: the bytes that each token covers, in their order.

    `new` are the indices of target tokens that the source does not have.
    """

    name: str
    text: str
    source: tuple[int, ...]
    target: tuple[int, ...]
    new: tuple[int, ...]
