"""A composer that is trained: weights by place, a small network on top, and a bias by length."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.functional import gelu

from tokensurgeon.runtime.hypertokens.composers import (
    DEFAULT_BIAS,
    HyperRows,
    gather,
    weight_tables,
)

HIDDEN = 128
"""Width of the network: a few hundred thousand numbers, which minutes of training can use."""


class LearnedComposer(nn.Module):
    """Rows of a phrase as weighed rows of its ids, and a correction that a network makes.

    For a phrase of n ids with rows e₁ … eₙ, on either side,

        row = Σⱼ w[n, j] eⱼ + s · U gelu(Σⱼ D[place(j)] eⱼ / s + d[n]),

    and the logit of a phrase of n ids gains b[n]. s is the root mean square of the model's rows.
    Places are counted from the end on the input side, where the last id is what the model has just
    read, and from the front on the output side, where the first is what it says next. U starts at
    zero, so a composer starts as the fixed one of its name. D is random, by `seed`.

    Parameters
    ----------
    rows : two tensors (n_ids, width)
        Of the model; they are not trained.
    start : str
        A fixed composer, as in `weight_tables`.
    max_ids : int
    hidden : int
        Width of the network.
    bias : float
        What b starts at.
    seed : int
    """

    def __init__(
        self,
        rows: tuple[torch.Tensor, torch.Tensor],
        start: str,
        max_ids: int,
        hidden: int = HIDDEN,
        bias: float = DEFAULT_BIAS,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.rows, self.start, self.max_ids, self.hidden = rows, start, max_ids, hidden
        width, device = rows[0].shape[1], rows[0].device
        generator = torch.Generator().manual_seed(seed)
        self.scales = [
            max(1e-30, float(side.detach().float().pow(2).mean().sqrt())) for side in rows
        ]
        tables = weight_tables(start, max_ids)
        self.weights = nn.ParameterList(torch.from_numpy(table) for table in tables)
        self.down = nn.ParameterList(
            torch.randn((max_ids, width, hidden), generator=generator) * (max_ids * width) ** -0.5
            for _ in rows
        )
        self.shift = nn.ParameterList(torch.zeros((max_ids + 1, hidden)) for _ in rows)
        self.up = nn.ParameterList(torch.zeros((hidden, width)) for _ in rows)
        self.bias = nn.Parameter(torch.full((max_ids + 1,), float(bias)))
        self.to(device)

    def forward(self, phrases: Sequence[Sequence[int]]) -> HyperRows:
        """Return the rows of phrases, in the dtype of the model's rows."""
        gathered = gather(phrases, self.max_ids, self.rows[0].device)
        lengths = gathered.lengths
        steps = torch.arange(self.max_ids, device=lengths.device)
        real = steps < lengths[:, None]
        from_end = (lengths[:, None] - 1 - steps).clamp_min(0)
        sides = []
        for side, places in enumerate((from_end, steps.expand(len(lengths), -1))):
            scale = self.scales[side]
            pieces = self.rows[side][gathered.ids].float() * real[..., None]
            mixed = torch.einsum("km,kmw->kw", self.weights[side][lengths], pieces)
            seen = self.shift[side][lengths]
            for place in range(self.max_ids):
                at_place = (pieces * (real & (places == place))[..., None]).sum(1)
                seen = seen + (at_place / scale) @ self.down[side][place]
            values = mixed + scale * (gelu(seen) @ self.up[side])
            sides.append(values.to(self.rows[side].dtype))
        return HyperRows(sides[0], sides[1], self.bias[lengths])
