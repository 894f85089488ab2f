"""What calibration works on, and what it says about itself.

`Matrices` are the vocabulary rows of a patched model while they are being calibrated; a
`StageRecord` says what one stage did and what it bought on text that it was not fitted to.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from tokensurgeon.calibration.data import Workbench

Rows = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Matrices:
    """The vocabulary rows of a patched model, never changed in place.

    Attributes
    ----------
    input, output : float32 (n_rows, width)
        One array, twice, where the checkpoint is tied.
    bias : float32 (n_rows,) or None
        The output bias.
    """

    input: Rows
    output: Rows
    bias: Rows | None = None

    @property
    def tied(self) -> bool:
        """Whether both sides are one matrix."""
        return self.input is self.output

    def with_input(self, rows: Doubles | Rows) -> Matrices:
        """Return the matrices with another input side; only where the sides are two."""
        return replace(self, input=np.asarray(rows, dtype=np.float32))

    def with_output(self, rows: Doubles | Rows, bias: Doubles | Rows | None = None) -> Matrices:
        """Return the matrices with another output side, which is both sides where tied."""
        output = np.asarray(rows, dtype=np.float32)
        return Matrices(
            output if self.tied else self.input,
            output,
            self.bias if bias is None else np.asarray(bias, dtype=np.float32),
        )

    def towards(self, other: Matrices, share: float) -> Matrices:
        """Return the matrices that lie `share` of the way to others of the same shape."""

        def between(one: Rows, two: Rows) -> Rows:
            return one if one is two else one + np.float32(share) * (two - one)

        output = between(self.output, other.output)
        bias = self.bias
        if bias is not None and other.bias is not None:
            bias = between(bias, other.bias)
        return Matrices(output if self.tied else between(self.input, other.input), output, bias)


@dataclass(frozen=True)
class Candidate:
    """One way to do a stage, to be measured before it is believed."""

    settings: dict[str, Any]
    matrices: Matrices


Candidates = Generator[Candidate, bool | None, None]
"""Candidates, computed one at a time. Each is answered: False says that it is not the best so far,
so that a series which goes on from it may end."""


class Stage(Protocol):
    """Proposes ways to change the rows; the gate measures them and keeps the best, or none."""

    @property
    def name(self) -> str:
        """As in recipes and reports."""
        ...

    @property
    def changes_shared(self) -> bool:
        """Whether rows that both tokenizers have may change: then other text is asked too."""
        ...

    @property
    def two_matrices(self) -> bool:
        """Whether it makes the two sides differ, which a tied checkpoint cannot hold."""
        ...

    def __call__(self, bench: Workbench, matrices: Matrices) -> Candidates:
        """Yield candidates."""
        ...


@dataclass(frozen=True)
class StageRecord:
    """What a stage did.

    Attributes
    ----------
    stage : str
    kept : bool
    why : str
        In words, why it was kept or not.
    settings : dict
        Of the best candidate.
    before, after : float or None
        Bits per byte on the selection text, with the best candidate.
    other_before, other_after : float or None
        On text of another domain, where the stage changes shared rows.
    seconds : float
    forward_tokens : int
        Run through the source's body.
    gradient_steps : int
    """

    stage: str
    kept: bool
    why: str
    settings: dict[str, Any] = field(default_factory=dict)
    before: float | None = None
    after: float | None = None
    other_before: float | None = None
    other_after: float | None = None
    seconds: float = 0.0
    forward_tokens: int = 0
    gradient_steps: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return asdict(self)


def blocks(n: int, size: int) -> Iterator[slice]:
    """Yield slices of at most `size` that cover range(n)."""
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))
