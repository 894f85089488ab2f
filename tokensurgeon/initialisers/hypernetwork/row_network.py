"""The network: rows of pieces in, a correction of the ridge composer's rows out. Needs torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from tokensurgeon.arrays import Float32, blocks
from tokensurgeon.initialisers.numerics.composer import LONGEST_COUNT, FittedComposer

MOST_PIECES = 8
"""Pieces that the network sees of a token: of a longer one the first and the last half of these."""
HEADS = 4
"""Of attention among so few pieces; must divide the size of the network."""


@dataclass(frozen=True)
class Packed:
    """Spellings as tensors.

    Attributes
    ----------
    flat, starts : int64 (n_pieces,), (n,)
        All pieces in a row, and where each spelling starts.
    counts, first, last : int64 (n,)
    shown : int64 (n, MOST_PIECES)
        Pieces for the network; the first piece where there are fewer.
    real : bool (n, MOST_PIECES)
    """

    flat: torch.Tensor
    starts: torch.Tensor
    counts: torch.Tensor
    first: torch.Tensor
    last: torch.Tensor
    shown: torch.Tensor
    real: torch.Tensor


def pack(spellings: Sequence[Sequence[int]], device: torch.device | str = "cpu") -> Packed:
    """Bring spellings, each of one piece at least, to a device."""
    counts = np.array([len(one) for one in spellings], dtype=np.int64)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)[: len(counts)]
    flat = np.array([piece for one in spellings for piece in one], dtype=np.int64)
    half = MOST_PIECES // 2
    steps = np.arange(MOST_PIECES)
    index = np.where(
        (counts[:, None] > MOST_PIECES) & (steps >= half),
        counts[:, None] - MOST_PIECES + steps,
        steps,
    )
    real = steps < counts[:, None]
    shown = flat[starts[:, None] + np.where(real, index, 0)] if len(counts) else index
    arrays = (flat, starts, counts, flat[starts], flat[starts + counts - 1], shown, real)
    return Packed(*(torch.from_numpy(np.ascontiguousarray(one)).to(device) for one in arrays))


class RowNetwork(nn.Module):
    """A transformer encoder over at most eight pieces, with a head for each matrix.

    Parameters
    ----------
    features : int
        Whitened values per piece, of all matrices together.
    widths : sequence of int
        Of the rows of each matrix.
    size, layers : int
        Width and blocks of the network.

    Notes
    -----
    The heads start at zero, so that the network starts as no correction at all.
    """

    def __init__(self, features: int, widths: Sequence[int], size: int, layers: int) -> None:
        super().__init__()
        self.read = nn.Linear(features, size)
        self.front = nn.Embedding(MOST_PIECES, size)
        self.back = nn.Embedding(MOST_PIECES, size)
        self.blocks = nn.ModuleList(_Block(size) for _ in range(layers))
        self.norm = nn.LayerNorm(size)
        self.heads = nn.ModuleList(nn.Linear(3 * size, width) for width in widths)
        for head in self.heads:
            assert isinstance(head, nn.Linear)
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)

    def forward(self, pieces: torch.Tensor, real: torch.Tensor) -> list[torch.Tensor]:
        """Return corrections in the rows' standard deviations, (n, width) for each matrix."""
        counts = real.sum(dim=1)
        steps = torch.arange(pieces.shape[1], device=pieces.device)
        behind = (counts[:, None] - 1 - steps).clamp_min(0)
        x = self.read(pieces) + self.front(steps) + self.back(behind)
        for block in self.blocks:
            x = block(x, real)
        x = self.norm(x) * real[..., None]
        mean = x.sum(dim=1) / counts[:, None]
        last = x[torch.arange(len(x), device=x.device), counts - 1]
        pooled = torch.cat([x[:, 0], mean, last], dim=1)
        return [head(pooled) for head in self.heads]


class _Block(nn.Module):
    """Attention among the pieces, then a layer of twice the width; norms before each."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.before, self.between = nn.LayerNorm(size), nn.LayerNorm(size)
        self.look, self.out = nn.Linear(size, 3 * size), nn.Linear(size, size)
        self.widen, self.narrow = nn.Linear(size, 2 * size), nn.Linear(2 * size, size)

    def forward(self, x: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        n, steps, size = x.shape
        parts = self.look(self.before(x)).view(n, steps, 3, HEADS, size // HEADS)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=real[:, None, None, :]
        )
        x = x + self.out(seen.transpose(1, 2).reshape(n, steps, size))
        wide = functional.gelu(self.widen(self.between(x)))
        deeper: torch.Tensor = x + self.narrow(wide)
        return deeper


def rows_on_device(
    sides: Sequence[FittedComposer], matrices: Sequence[Float32], device: str
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Bring finite rows to a device, (n_source, width), and whiten them there, (n_source, d)."""
    rows = [to_device(matrix, device) for matrix in matrices]
    white = []
    for side, one in zip(sides, rows, strict=True):
        mean, turn = (to_device(x, device) for x in (side.whitening.mean, side.whitening.turn))
        white.append(one @ turn - mean @ turn)
    return rows, white


def to_device(values: npt.NDArray[np.floating], device: torch.device | str) -> torch.Tensor:
    """Return a float32 tensor; on CPU one that shares the array's memory where it can."""
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)).to(device)


class NetworkComposer:
    """The ridge composer of a source's rows with a network on top, on one device.

    Parameters
    ----------
    sides : sequence of FittedComposer
    source : tuple of two lists of tensors
        What `rows_on_device` returns; dear to make, so made once.
    limits : sequence of float
        Norms that no composed row exceeds.
    network : RowNetwork or None
        None is the ridge composer alone.
    """

    def __init__(
        self,
        sides: Sequence[FittedComposer],
        source: tuple[list[torch.Tensor], list[torch.Tensor]],
        limits: Sequence[float],
        network: RowNetwork | None,
    ) -> None:
        self.rows, self.white = source
        self.device = device = self.rows[0].device
        self._maps = [to_device(side.alpha * side.linear.coefficients, device) for side in sides]
        self._shifts = [to_device(side.alpha * side.linear.intercept, device) for side in sides]
        self._deviations = [float(rows.std()) for rows in self.rows]
        self._limits = list(limits)
        self.network = network if network is None else network.to(device)

    def ridge(self, packed: Packed) -> list[torch.Tensor]:
        """Return the ridge composer's rows, not clipped, (n, width) for each matrix."""
        count = packed.counts.clamp(max=LONGEST_COUNT)[:, None]
        kinds = torch.arange(2, LONGEST_COUNT + 1, device=packed.counts.device)
        indicators = (count == kinds).float()
        composed = []
        sides = zip(self.rows, self.white, self._maps, self._shifts, strict=True)
        for rows, white, linear, shift in sides:
            mean = functional.embedding_bag(packed.flat, white, packed.starts, mode="mean")
            seen = torch.cat([white[packed.first], mean, white[packed.last], indicators], dim=1)
            plain = functional.embedding_bag(packed.flat, rows, packed.starts, mode="mean")
            composed.append(plain + seen @ linear + shift)
        return composed

    def __call__(self, packed: Packed) -> list[torch.Tensor]:
        """Return composed rows of each matrix, (n, width), none longer than its limit."""
        with torch.no_grad():
            composed = self.ridge(packed)
        if self.network is not None:
            half = MOST_PIECES // 2
            short = packed.counts <= half
            # Short spellings on their own: most are short, and padding costs as pieces do.
            for chosen, steps in ((short, half), (~short, MOST_PIECES)):
                part = chosen.nonzero()[:, 0]
                if not len(part):
                    continue
                shown = packed.shown[part, :steps]
                pieces = torch.cat([white[shown] for white in self.white], dim=-1)
                corrections = self.network(pieces, packed.real[part, :steps])
                for side, correction in enumerate(corrections):
                    correction = self._deviations[side] * correction
                    composed[side] = composed[side].index_add(0, part, correction)
        norms = [one.norm(dim=1, keepdim=True).clamp_min(1e-30) for one in composed]
        return [
            one * (limit / norm).clamp(max=1.0)
            for one, norm, limit in zip(composed, norms, self._limits, strict=True)
        ]

    def values(self, spellings: Sequence[Sequence[int]], at_once: int = 4096) -> list[Float32]:
        """Return composed rows of each matrix as float32 arrays, block by block."""
        parts = [[np.zeros((0, rows.shape[1]), np.float32)] for rows in self.rows]
        with torch.no_grad():
            for block in blocks(len(spellings), at_once):
                for side, rows in enumerate(self(pack(spellings[block], self.device))):
                    parts[side].append(rows.float().cpu().numpy())
        return [np.concatenate(part) for part in parts]
