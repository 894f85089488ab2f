"""The vocabulary rows of a patched model, and a change of its body, while they are calibrated."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from tokensurgeon.arrays import Float32, Float64
from tokensurgeon.checkpoint import BodyUpdate


@dataclass(frozen=True)
class Matrices:
    """Input rows, output rows and output bias; never changed in place.

    Attributes
    ----------
    input, output : float32 (n_rows, width)
        One array, twice, where the checkpoint is tied.
    bias : float32 (n_rows,) or None
        The output bias.
    body : BodyUpdate or None
        What is added to weights of the source's body.
    """

    input: Float32
    output: Float32
    bias: Float32 | None = None
    body: BodyUpdate | None = None

    @property
    def tied(self) -> bool:
        """Whether both sides are one matrix."""
        return self.input is self.output

    def with_input(self, rows: Float64 | Float32) -> Matrices:
        """Return the matrices with another input side, which is both sides where tied."""
        changed = np.asarray(rows, dtype=np.float32)
        return replace(self, input=changed, output=changed if self.tied else self.output)

    def with_output(
        self, rows: Float64 | Float32, bias: Float64 | Float32 | None = None
    ) -> Matrices:
        """Return the matrices with another output side, which is both sides where tied."""
        output = np.asarray(rows, dtype=np.float32)
        return replace(
            self,
            input=output if self.tied else self.input,
            output=output,
            bias=self.bias if bias is None else np.asarray(bias, dtype=np.float32),
        )

    def with_body(self, body: BodyUpdate | None) -> Matrices:
        """Return the matrices with another change of the body, in the place of this one."""
        return replace(self, body=body)

    def towards(self, other: Matrices, share: float) -> Matrices:
        """Return the matrices that lie `share` of the way to others of the same shape."""

        def between(one: Float32, two: Float32) -> Float32:
            return one if one is two else one + np.float32(share) * (two - one)

        output = between(self.output, other.output)
        bias = self.bias
        if bias is not None and other.bias is not None:
            bias = between(bias, other.bias)
        rows = output if self.tied else between(self.input, other.input)
        return Matrices(rows, output, bias, _between(self.body, other.body, share))


def _between(one: BodyUpdate | None, two: BodyUpdate | None, share: float) -> BodyUpdate | None:
    """Return the change of the body that lies `share` of the way from one to another."""
    if one is two:
        return one
    if one is None:
        return None if two is None else two.scaled(share)
    if two is None:
        return one.scaled(1 - share)
    return one.scaled(1 - share).plus(two.scaled(share))
