"""From a merged batch to what a forward pass is given: embeddings, mask, positions.

`packed` positions number merged tokens 0, 1, 2, …; `spread` gives each the position that its last
piece had, so that distances between words stay what they were.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tokensurgeon.arrays import Float32
from tokensurgeon.errors import EvaluationError
from tokensurgeon.models import LanguageModel
from tokensurgeon.runtime.merging.merged_batch import MergedBatch, Pieces

if TYPE_CHECKING:
    import torch

POSITIONS = ("packed", "spread")
PROBED = 8
"""Own rows that show by what the model multiplies rows: the longest, which rounding hurts least."""
ROUNDING = 1e-2
"""Relative difference of a row and its embedding that bfloat16 may make, which keeps 8 bits."""


@dataclass(frozen=True)
class Inputs:
    """What a forward pass is given for a batch.

    Attributes
    ----------
    embeddings : tensor (n, longest, width)
    mask : int64 tensor (n, longest)
        1 at tokens, 0 at padding.
    positions : int64 tensor (n, longest), or None
        None where the model's own numbering is right.
    """

    embeddings: torch.Tensor
    mask: torch.Tensor
    positions: torch.Tensor | None


def embedding_scale(model: LanguageModel) -> float:
    """Return what a model's embedding multiplies a row by: 1, or √width in Gemma.

    What the model multiplies embeddings by later on is no part of it.

    Raises
    ------
    EvaluationError
        If its embeddings are more than scaled rows.
    """
    import torch

    module = model.model.get_input_embeddings()
    norms = module.weight.detach().float().norm(dim=1)
    ids = torch.topk(norms, min(PROBED, len(norms))).indices
    with torch.inference_mode():
        given = module(ids[None])[0].float()
    rows = module.weight[ids].float()
    scale = float((given * rows).sum() / (rows * rows).sum().clamp_min(1e-30))
    if given.shape != rows.shape or not torch.allclose(given, scale * rows, rtol=ROUNDING):
        raise EvaluationError(
            f"the embeddings of {type(model.model).__name__} are more than scaled rows; give "
            "another model"
        )
    return scale


def make_inputs(
    model: LanguageModel,
    batch: MergedBatch,
    rows: Callable[[Sequence[Pieces]], Float32],
    scale: float,
    *,
    left: bool,
    spread: bool,
    told: bool,
) -> Inputs:
    """Return what a forward pass is given.

    Parameters
    ----------
    model : LanguageModel
    batch : MergedBatch
    rows : callable
        From the pieces of merged tokens to their rows.
    scale : float
        As `embedding_scale`.
    left : bool
        Whether padding is on the left.
    spread : bool
        Whether positions are spread.
    told : bool
        Whether the model is told positions at all.

    Raises
    ------
    EvaluationError
        If a sequence is empty, or longer than the model's positions.
    """
    import torch

    _check(model, batch, spread)
    longest = max(map(len, batch.sequences))
    ids = np.zeros((len(batch.sequences), longest), dtype=np.int64)
    mask, positions = np.zeros_like(ids), np.zeros_like(ids)
    for i, sequence in enumerate(batch.sequences):
        at = slice(longest - len(sequence), None) if left else slice(len(sequence))
        ids[i, at], mask[i, at] = sequence, 1
        positions[i, at] = np.arange(len(sequence))
        if spread:
            positions[i, at] = np.cumsum(batch.n_pieces(sequence)) - 1
    is_merged = ids >= batch.n_own
    embed, device = model.model.get_input_embeddings(), model.device
    with torch.inference_mode():
        embeddings = embed(torch.from_numpy(np.where(is_merged, 0, ids)).to(device))
        if is_merged.any():
            made = scale * torch.from_numpy(rows(batch.merged)).to(device, embed.weight.dtype)
            index = torch.from_numpy(ids[is_merged] - batch.n_own).to(device)
            embeddings[torch.from_numpy(is_merged).to(device)] = made[index]
    told = told and (spread or bool((mask == 0).any()))
    return Inputs(
        embeddings,
        torch.from_numpy(mask).to(device),
        torch.from_numpy(positions).to(device) if told else None,
    )


def n_positions(batch: MergedBatch, *, spread: bool) -> list[int]:
    """Return how many positions each sequence takes."""
    if not spread:
        return [len(sequence) for sequence in batch.sequences]
    return [int(batch.n_pieces(sequence).sum()) for sequence in batch.sequences]


def _check(model: LanguageModel, batch: MergedBatch, spread: bool) -> None:
    if not batch.sequences or min(map(len, batch.sequences)) == 0:
        raise EvaluationError("a batch needs sequences of at least one token; leave out others")
    if batch.n_own != model.n_rows:
        raise EvaluationError(
            f"the batch is of a model of {batch.n_own:,} rows and this one has {model.n_rows:,}; "
            "have the model that reads it merge it"
        )
    longest, most = max(n_positions(batch, spread=spread)), model.max_positions
    if most is not None and longest > most:
        raise EvaluationError(
            f"a merged sequence needs {longest} positions and the model has {most}; cut the text "
            "shorter"
        )
