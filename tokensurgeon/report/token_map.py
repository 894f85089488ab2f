"""A sparse map from target tokens to source tokens, for what is done across vocabularies.

Distillation, ensembling and merging of models need to know which source tokens stand for a target
token. A token that both have stands for itself; a missing one for its pieces, in equal parts.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from tokensurgeon.alignment import Alignment, Match
from tokensurgeon.arrays import Ids
from tokensurgeon.errors import UsageError
from tokensurgeon.initialisers.numerics.piece_weights import Weigh, mean_weights, piece_weights
from tokensurgeon.outputs import check_file, write_whole
from tokensurgeon.outputs.paths import begins_with

BEGINNINGS = {".jsonl": b'{"id": ', ".npz": b"PK"}
"""How a map begins, by the end of its file's name: of lines, and of numpy's archives."""
SUFFIXES = tuple(BEGINNINGS)


def check_map_path(path: str | Path, force: bool | None = None) -> Path:
    """Refuse a path that no map can be written to.

    Raises
    ------
    UsageError
        As `tokensurgeon.outputs.check_file`, and if its name ends in none of `SUFFIXES`.
    """
    suffix = Path(path).suffix
    if suffix not in SUFFIXES:
        raise UsageError(f"{path}: a token map is a .jsonl or an .npz file; name one of these")
    is_map = begins_with(BEGINNINGS[suffix])
    return check_file(path, force=force, what="a token map", is_ours=is_map)


def token_map(
    alignment: Alignment,
    pieces: Mapping[int, tuple[int, ...]],
    weigh: Weigh = mean_weights,
    sizes: Ids | None = None,
) -> sp.csr_array:
    """Return the map as weights, CSR float64 (n_target, n_source).

    A row sums to one; that of a target token which nothing of the source stands for is empty.

    Parameters
    ----------
    alignment : Alignment
    pieces : mapping of int to tuple of int
        Source ids that spell each missing target token.
    weigh : callable
        From the number of pieces to their weights.
    sizes : int64 (n_source,), optional
        Above 0. A piece's weight is in proportion to its size too, such as its bytes.
    """
    own = alignment.source_ids.tolist()
    spelled = [
        (own[token],) if own[token] >= 0 else pieces.get(token, ())
        for token in range(alignment.target.n_rows)
    ]
    return piece_weights(spelled, alignment.source.n_rows, weigh, sizes=sizes)


def write_token_map(
    alignment: Alignment, pieces: Mapping[int, tuple[int, ...]], path: str | Path
) -> Path:
    """Write the map, whole or not at all.

    A .jsonl file has a line for each target id: its spelling, how it was matched (or ``pieces``,
    or ``none``) and the source ids in their order. An .npz file has `token_map`, which
    `scipy.sparse.load_npz` reads.
    """
    path = check_map_path(path, force=True)
    buffer = io.BytesIO()
    if path.suffix == ".npz":
        sp.save_npz(buffer, token_map(alignment, pieces).astype(np.float32))
    for token in range(alignment.target.n_rows) if path.suffix == ".jsonl" else ():
        match, own = Match(int(alignment.match[token])), int(alignment.source_ids[token])
        ids = [own] if own >= 0 else list(pieces.get(token, ()))
        line = {
            "id": token,
            "token": alignment.target.spellings[token],
            "match": match.name.lower() if match or not ids else "pieces",
            "source": ids,
        }
        buffer.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
    write_whole(path, buffer.getvalue())
    return path
