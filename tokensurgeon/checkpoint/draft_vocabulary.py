"""The cut head of a draft: the tokens that its output side is needed for, and the files of it.

A draft need not propose every token of a large vocabulary: those it leaves out are never drafted,
and what the big model writes stays the same. Ranked by how often a text has them, a part of the
rows does for most drafts (FR-Spec, Zhao et al., 2025, arXiv 2502.14856), and the product with the
output rows, most of a small model's time, shrinks with it.

``draft_vocabulary/token_map.pt``
    A list of ids, which SGLang takes as its speculative token map.
``draft_vocabulary/maps.safetensors``
    ``d2t``, int64 (n_kept,): what is added to a kept token's number to get its id; ``t2d``, bool
    (n_rows,): whether an id is kept. EAGLE-3 heads have both, in vLLM and SGLang.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from tokensurgeon.arrays import Ids
from tokensurgeon.errors import CheckpointError, UsageError
from tokensurgeon.vocabulary import Kind, Vocabulary

MAPS, TOKEN_MAP = "draft_vocabulary/maps.safetensors", "draft_vocabulary/token_map.pt"


def kept_tokens(vocabulary: Vocabulary, counts: Ids, n: int) -> Ids:
    """Return the ids that a cut head keeps, int64 (n,), ascending.

    Parameters
    ----------
    vocabulary : Vocabulary
    counts : int64 (n_rows,)
        How often a text has each id.
    n : int
        Controls are always among them: a draft must be able to end a text or a turn. Then come the
        tokens that the text has most often, then the lowest ids, which a trained vocabulary
        learned first.

    Raises
    ------
    UsageError
        If that is less than the controls, or more than there are tokens.
    """
    kinds = vocabulary.kinds
    controls = np.union1d(np.flatnonzero(kinds == Kind.CONTROL), list(vocabulary.roles.values()))
    ordinary = np.flatnonzero((kinds == Kind.ORDINARY) | (kinds == Kind.BYTE))
    ordinary = np.setdiff1d(ordinary, controls)
    most = len(controls) + len(ordinary)
    if not len(controls) < n <= most:
        raise UsageError(
            f"a draft vocabulary of {n:,} tokens cannot be: {len(controls):,} controls are always "
            f"kept, and there are {most:,} tokens in all; give a number in between"
        )
    order = np.lexsort((ordinary, -counts[ordinary]))
    return np.union1d(controls, ordinary[order[: n - len(controls)]]).astype(np.int64)


def map_files(kept: Ids, n_rows: int) -> dict[str, bytes]:
    """Return the files of a cut head by name.

    Parameters
    ----------
    kept : int64 (n_kept,)
        Ascending.
    n_rows : int
        Of the draft.
    """
    import torch
    from safetensors.numpy import save

    to_draft = np.zeros(n_rows, dtype=np.bool_)
    to_draft[kept] = True
    token_map = io.BytesIO()
    torch.save(kept.tolist(), token_map)
    maps = {"d2t": kept - np.arange(len(kept)), "t2d": to_draft}
    return {TOKEN_MAP: token_map.getvalue(), MAPS: save(maps)}


def read_kept(folder: Path, n_rows: int) -> Ids | None:
    """Return the ids that a written draft's cut head keeps; None where it has none.

    Raises
    ------
    CheckpointError
        If the file is no such map, or not of a model with so many rows.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    path = folder / MAPS
    if not path.is_file():
        return None
    try:
        maps = load_file(path)
        offsets, to_draft = maps["d2t"], maps["t2d"]
        kept = np.flatnonzero(to_draft)
        fits = to_draft.shape == (n_rows,) and np.array_equal(kept - np.arange(len(kept)), offsets)
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read; transplant again") from error
    if not fits or not len(kept):
        raise CheckpointError(f"{path} is not of this draft's {n_rows:,} rows; transplant again")
    return kept
