"""Rows of hypertokens from the rows of their ids, on both sides.

A composer is called with phrases and gives an input row, an output row and a bias on the logit for
each. The fixed ones weigh the rows of a phrase by where they stand, with the weights of the
initialisers of that name; `learned_composer` has the one that is trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch

from tokensurgeon.arrays import Float32
from tokensurgeon.errors import UnknownNameError
from tokensurgeon.initialisers import registry
from tokensurgeon.initialisers.methods.subword import Subword
from tokensurgeon.initialisers.numerics.piece_weights import Weigh, exponential_weights

SUM_NORM = "sum-norm"
"""The sum of the rows, as long as they are on average."""
DEFAULT_COMPOSER, DEFAULT_BIAS = "subword-exp", -2.0
"""The best of all on SmolLM2-135M, on 4 kB of Python and of an article each: four input sides, six
output sides and biases from 0 to -5 were tried."""


class HyperRows(NamedTuple):
    """What a composer gives for k phrases.

    Attributes
    ----------
    input, output : float (k, width)
    bias : float (k,)
        Added to what the output row gives.
    """

    input: torch.Tensor
    output: torch.Tensor
    bias: torch.Tensor


class Composer(Protocol):
    """Makes rows for phrases of a model's ids."""

    max_ids: int
    """The longest phrase."""

    def __call__(self, phrases: Sequence[Sequence[int]]) -> HyperRows:
        """Return the rows of phrases, each of 2 to `max_ids` ids."""
        ...


class Gathered(NamedTuple):
    """Phrases as tensors.

    Attributes
    ----------
    ids : int64 (k, max_ids)
        Padded on the right with the first id.
    lengths : int64 (k,)
    """

    ids: torch.Tensor
    lengths: torch.Tensor


def gather(phrases: Sequence[Sequence[int]], max_ids: int, device: torch.device) -> Gathered:
    """Bring phrases to a device."""
    padded = [[*phrase, *[phrase[0]] * (max_ids - len(phrase))] for phrase in phrases]
    ids = torch.tensor(padded, dtype=torch.int64).view(len(phrases), max_ids)
    lengths = torch.tensor([len(phrase) for phrase in phrases], dtype=torch.int64)
    return Gathered(ids.to(device), lengths.to(device))


def weight_tables(name: str, max_ids: int) -> tuple[Float32, Float32]:
    """Return the weight of each place in a phrase by its length, for either side.

    Parameters
    ----------
    name : str
        An initialiser of the subword family, or ``"sum-norm"``.
    max_ids : int

    Returns
    -------
    input : float32 (max_ids + 1, max_ids)
        Zero past the length.
    output : float32 (max_ids + 1, max_ids)

    Raises
    ------
    UnknownNameError
        If the rows of that method do not follow from places in a phrase alone.
    """
    sides: tuple[Weigh, Weigh] = (np.ones, np.ones)
    if name != SUM_NORM:
        method = registry.get(name)() if name in composer_names() else None
        if not isinstance(method, Subword):
            raise UnknownNameError(
                f"no composer '{name}'; there are {', '.join(composer_names())}, or the file of a "
                "trained one"
            )
        sides = method.weigh
        if method.rate is not None:
            sides = exponential_weights(method.rate), exponential_weights(-method.rate)
    tables = np.zeros((2, max_ids + 1, max_ids), dtype=np.float32)
    for table, weigh in zip(tables, sides, strict=True):
        for length in range(1, max_ids + 1):
            table[length, :length] = weigh(length)
    return tables[0], tables[1]


def composer_names() -> tuple[str, ...]:
    """Return the names of the fixed composers."""
    subword = [name for name in registry.names() if registry.is_builtin(name)]
    return (*(name for name in subword if _is_by_place(registry.get(name))), SUM_NORM)


def _is_by_place(method: type) -> bool:
    # A share of the mean row would be a row of no id: see `Subword.shrink`.
    return issubclass(method, Subword) and "shrink" not in vars(method)


class WeighedComposer:
    """Rows of a phrase weighed by where they stand.

    Parameters
    ----------
    name : str
        As in `weight_tables`.
    rows : two tensors (n_ids, width)
        Of the input and the output side; one tensor twice where the model is tied.
    max_ids : int
    bias : float
        Of every hypertoken, in nats before the model's scale; below 0 it is predicted less often.
    """

    def __init__(
        self,
        name: str,
        rows: tuple[torch.Tensor, torch.Tensor],
        max_ids: int,
        bias: float = DEFAULT_BIAS,
    ) -> None:
        self.name, self.rows, self.max_ids, self.bias = name, rows, max_ids, bias
        tables = weight_tables(name, max_ids)
        self._tables = [torch.from_numpy(table).to(rows[0].device) for table in tables]

    def __call__(self, phrases: Sequence[Sequence[int]]) -> HyperRows:
        """Return the rows of phrases."""
        gathered = gather(phrases, self.max_ids, self.rows[0].device)
        sides = []
        for table, rows in zip(self._tables, self.rows, strict=True):
            weights = table[gathered.lengths].to(rows.dtype)
            pieces = rows[gathered.ids]
            values = torch.einsum("km,kmw->kw", weights, pieces)
            if self.name == SUM_NORM:
                real = (weights > 0).to(rows.dtype)
                length = (pieces.norm(dim=2) * real).sum(1) / gathered.lengths.clamp_min(1)
                values = values * (length / values.norm(dim=1).clamp_min(1e-20))[:, None]
            sides.append(values)
        bias = torch.full_like(sides[1][:, 0], self.bias)
        return HyperRows(sides[0], sides[1], bias)
