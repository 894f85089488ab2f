"""What follows the states of a text: one token, some with their weights, or whole distributions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, Self

import numpy as np

from tokensurgeon.arrays import Float32, Float64, Ids, blocks
from tokensurgeon.models.head import LOGITS_AT_ONCE, OutputHead

if TYPE_CHECKING:
    import torch

COUNTED_ON = 2048
"""States on which whole distributions are counted: each has chances for all tokens."""


class Followers(Protocol):
    """What a regression asks of what follows states; the weights of one state sum to one."""

    def thinned(self, step: int) -> Self:
        """Return what follows every `step`-th state, those numbered anew."""

    def sums(self, flat: torch.Tensor, n_rows: int) -> torch.Tensor:
        """Return the weighted sum of the states before each token, float32 (n_rows, width)."""

    def counts(self, n_rows: int) -> Float64:
        """Return how often each token follows, by weight, float64 (n_rows,)."""

    def scores(self, log_probs: Iterable[torch.Tensor], part: slice) -> Float64:
        """Return sums over some states of the weighted log-probabilities of what follows.

        Parameters
        ----------
        log_probs : iterable of float32 (n, n_rows)
            Several at the states of `part`, one for each sum.
        part : slice
        """


@dataclass(frozen=True)
class Follows:
    """Which tokens follow states, and how surely; the weights of one state sum to one.

    Attributes
    ----------
    states : int64 (m,)
        Indices of states, ascending.
    tokens : int64 (m,)
    weights : float32 (m,)
    """

    states: Ids
    tokens: Ids
    weights: Float32

    @classmethod
    def of_text(cls, tokens: Ids) -> Follows:
        """Return that one token follows each state, as a text has it."""
        return cls(np.arange(len(tokens)), tokens, np.ones(len(tokens), dtype=np.float32))

    def thinned(self, step: int) -> Follows:
        """Return what follows every `step`-th state, those numbered anew."""
        chosen = self.states % step == 0
        return Follows(self.states[chosen] // step, self.tokens[chosen], self.weights[chosen])

    def among(self, active: Ids) -> Follows:
        """Return the same with tokens numbered among some, ascending; all others become one more.

        Parameters
        ----------
        active : int64 (n,)
        """
        place = np.minimum(np.searchsorted(active, self.tokens), len(active) - 1)
        inside = active[place] == self.tokens
        return Follows(self.states, np.where(inside, place, len(active)), self.weights)

    def sums(self, flat: torch.Tensor, n_rows: int) -> torch.Tensor:
        """Return the weighted sum of the states before each token, float32 (n_rows, width)."""
        import torch

        total = torch.zeros((n_rows + 1, flat.shape[1]), device=flat.device)
        for part in blocks(len(self.states), max(1, LOGITS_AT_ONCE // flat.shape[1])):
            state, token, weight = (
                torch.from_numpy(array[part]).to(flat.device)
                for array in (self.states, self.tokens, self.weights)
            )
            total.index_add_(0, token, flat[state] * weight[:, None])
        return total[:n_rows]  # without what `among` left outside

    def counts(self, n_rows: int) -> Float64:
        """Return how often each token follows, by weight, float64 (n_rows,)."""
        counts = np.bincount(self.tokens, self.weights, minlength=n_rows)[:n_rows]
        return counts.astype(np.float64)

    def scores(self, log_probs: Iterable[torch.Tensor], part: slice) -> Float64:
        """Return sums over some states of the weighted log-probabilities of what follows."""
        first, last = np.searchsorted(self.states, (part.start, part.stop))
        at, token = self.states[first:last] - part.start, self.tokens[first:last]
        weights = self.weights[first:last]
        return np.array([float(one.cpu().numpy()[at, token] @ weights) for one in log_probs])


@dataclass(frozen=True)
class Distributions:
    """Whole distributions of another model over the same tokens, worked out whenever asked for.

    Attributes
    ----------
    states : float32 (n, width of the other model)
        Its final states.
    head : OutputHead
        Its output side.
    n_rows : int
        Tokens that count; the others of its rows are left out, and the rest made to sum to one.
    log_total : float32 (n,), optional
        Logsumexp of all its logits at each state, where the head has some of its rows only: what
        they leave is then the chance of one token more, the last.
    """

    states: Float32
    head: OutputHead
    n_rows: int
    log_total: Float32 | None = None

    def __len__(self) -> int:
        return len(self.states)

    def chances(self, part: slice) -> torch.Tensor:
        """Return the probabilities at some states, float32 (n, n_rows), on the head's device."""
        import torch

        if self.log_total is None:
            return self.head.log_softmax(self.states[part])[:, : self.n_rows].exp_()
        total = torch.from_numpy(self.log_total[part]).to(self.head.device)
        return self.head.logits(self.states[part]).sub_(total[:, None]).exp_()

    def thinned(self, step: int) -> Distributions:
        """Return those at every `step`-th state."""
        total = None if self.log_total is None else self.log_total[::step]
        return replace(self, states=np.ascontiguousarray(self.states[::step]), log_total=total)

    def among(self, active: Ids) -> Distributions:
        """Return the same with tokens numbered among some, ascending; all others become one more.

        Parameters
        ----------
        active : int64 (n,)
        """
        bias = None if self.head.bias is None else self.head.bias[active]
        total = self.head.logsumexp(self.states).astype(np.float32)
        some = self.head.with_rows(self.head.rows[active], bias)
        return Distributions(self.states, some, len(active), total)

    def sums(self, flat: torch.Tensor, n_rows: int) -> torch.Tensor:
        """Return the weighted sum of the states before each token, float32 (n_rows, width)."""
        import torch

        total = torch.zeros((n_rows, flat.shape[1]), device=flat.device)
        for part in self.head.blocks(len(self)):
            weights = self._weights(part).to(flat.device)
            total[: self.n_rows].addmm_(weights.T, flat[part])
        return total

    def counts(self, n_rows: int) -> Float64:
        """Return how often each token follows, by weight, float64 (n_rows,).

        As evenly spaced states have it, where there are many.
        """
        step, total = max(1, len(self) // COUNTED_ON), np.zeros(n_rows)
        few = self.thinned(step)
        for part in few.head.blocks(len(few)):
            total[: self.n_rows] += few._weights(part).sum(0).double().cpu().numpy()
        return total * (len(self) / len(few))

    def scores(self, log_probs: Iterable[torch.Tensor], part: slice) -> Float64:
        """Return sums over some states of the weighted log-probabilities of what follows."""
        weights = self._weights(part)
        rest = 1 - weights.sum(1)
        found = []
        for one in log_probs:
            mine = one.to(weights.device)
            score = (weights * mine[:, : self.n_rows]).sum()
            if self.log_total is not None:
                score += (rest * mine[:, self.n_rows]).sum()
            found.append(float(score))
        return np.array(found)

    def _weights(self, part: slice) -> torch.Tensor:
        chances = self.chances(part)
        return chances if self.log_total is not None else chances / chances.sum(1, keepdim=True)
