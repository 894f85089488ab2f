"""From final hidden states to logits: the one place that knows bias, scale and softcap.

Logits are ``softcap · tanh(scale · (states · rowsᵀ + bias) / softcap)``, without a softcap
``scale · (states · rowsᵀ + bias)``. Whoever has the final states of a text can try other output
rows on them with a matrix product: no forward pass is needed while the input rows stay.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from tokensurgeon.arrays import Float32, Float64, Ids, blocks

if TYPE_CHECKING:
    import torch

LOGITS_AT_ONCE = 1 << 24
"""Most logits held at once: 64 MiB, small beside a model and large enough for a fast product."""
LOSS_LOGITS = 1 << 23
"""Most logits held at once where their loss is taken, which needs as much memory again.

These are 32 MiB: the C library keeps freed blocks up to that size for the next.
"""
NEARLY = 0.999
"""Share of the softcap that a logit may reach when the softcap is undone; at 1 there is no inverse.

It bounds the inverse at 3.8 softcaps, beyond what a model computes.
"""


def shape_logits(raw: torch.Tensor, scale: float, softcap: float | None) -> torch.Tensor:
    """Return final logits from what the output matrix gives, in its place."""
    if scale != 1.0:
        raw = raw.mul_(scale)
    return raw if softcap is None else raw.div_(softcap).tanh_().mul_(softcap)


@dataclass(frozen=True)
class OutputHead:
    """The output side of a language model.

    Attributes
    ----------
    rows : float32 (n_rows, width)
    bias : float32 (n_rows,) or None
    scale : float
    softcap : float or None
    device : str
        Where products are computed; states are brought there.
    """

    rows: Float32
    bias: Float32 | None = None
    scale: float = 1.0
    softcap: float | None = None
    device: str = "cpu"

    def with_rows(self, rows: Float32, bias: Float32 | None) -> OutputHead:
        """Return the same head over other rows."""
        return replace(self, rows=rows, bias=bias)

    def blocks(self, n_states: int) -> Iterator[slice]:
        """Yield slices of states whose logits fit into memory together."""
        return blocks(n_states, LOGITS_AT_ONCE // max(1, len(self.rows)))

    def logits(self, states: Float32) -> torch.Tensor:
        """Return final logits, float32 (n_states, n_rows), on `device`."""
        return shape_logits(self._raw(states), self.scale, self.softcap)

    def logits_along(
        self, states: Float32, direction: Float32, lengths: Sequence[float]
    ) -> Iterator[torch.Tensor]:
        """Yield the final logits with rows moved by each length times a direction.

        Two products serve all lengths.

        Parameters
        ----------
        states : float32 (n_states, width)
        direction : float32 (n_rows, width)
        lengths : sequence of float
        """
        import torch

        raw = self._raw(states)
        step = torch.from_numpy(states).to(self.device) @ torch.from_numpy(direction).to(raw).T
        for length in lengths:
            yield shape_logits(torch.add(raw, step, alpha=length), self.scale, self.softcap)

    def log_softmax(self, states: Float32) -> torch.Tensor:
        """Return log-probabilities, float32 (n_states, n_rows), on `device`."""
        logits = self.logits(states)
        logits -= logits.logsumexp(1, keepdim=True)
        return logits

    def logsumexp(self, states: Float32) -> Float64:
        """Return the logsumexp of the logits at each state, float64 (n_states,)."""
        sums = np.empty(len(states))
        for part in self.blocks(len(states)):
            sums[part] = self.logits(states[part]).logsumexp(1).cpu().numpy()
        return sums

    def log_odds(self, states: Float32, ids: Ids) -> Float64:
        """Return the log-odds that one of some tokens follows, float64 (n_states,)."""
        import torch

        odds, inside = np.empty(len(states)), torch.from_numpy(ids).to(self.device)
        for part in self.blocks(len(states)):
            logits = self.logits(states[part])
            own = logits[:, inside].logsumexp(1)
            rest = logits.index_fill_(1, inside, -torch.inf).logsumexp(1)
            odds[part] = (own - rest).double().cpu().numpy()
        return odds

    def expected_counts(self, states: Float32) -> Float64:
        """Return the sum over states of each token's probability, float64 (n_rows,)."""
        total = np.zeros(len(self.rows))
        for part in self.blocks(len(states)):
            total += self.log_softmax(states[part]).exp_().sum(0).double().cpu().numpy()
        return total

    def logits_of(self, states: Float32, tokens: Ids) -> Float64:
        """Return the final logit of one token at each state, float64 (n_states,)."""
        raw = np.einsum("ij,ij->i", states, self.rows[tokens]).astype(np.float64)
        if self.bias is not None:
            raw += self.bias[tokens]
        raw *= self.scale
        if self.softcap is not None:
            raw = self.softcap * np.tanh(raw / self.softcap)
        return np.asarray(raw)

    def nll(self, states: Float32, tokens: Ids) -> Float64:
        """Return the loss in nats of the token that follows each state, float64 (n_states,)."""
        import torch

        losses = np.empty(len(states))
        for part in blocks(len(states), LOSS_LOGITS // max(1, len(self.rows))):
            goals = torch.from_numpy(tokens[part]).to(self.device)
            loss = torch.nn.functional.cross_entropy(
                self.logits(states[part]), goals, reduction="none"
            )
            losses[part] = loss.double().cpu().numpy()
        return losses

    def inverse(self, logits: Float64) -> Float64:
        """Return what ``state · row + bias`` must be for these final logits.

        A logit that the softcap cannot reach becomes the nearest that it nearly can.
        """
        if self.softcap is not None:
            logits = self.softcap * np.arctanh(np.clip(logits / self.softcap, -NEARLY, NEARLY))
        return np.asarray(logits / self.scale)

    def _raw(self, states: Float32) -> torch.Tensor:
        """Return what the output matrix gives, before scale and softcap."""
        import torch

        raw = torch.from_numpy(states).to(self.device) @ self._rows.T
        if self.bias is not None:
            raw += torch.from_numpy(self.bias).to(self.device)
        return raw

    @cached_property
    def _rows(self) -> torch.Tensor:
        import torch

        return torch.from_numpy(self.rows).to(self.device)
