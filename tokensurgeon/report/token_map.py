"""A sparse map from target tokens to source tokens, for what is done across vocabularies.

Distillation, ensembling and merging of models need to know which source tokens stand for a target
token. A token that both have stands for itself; a missing one for its pieces, in equal parts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from tokensurgeon.alignment import Alignment, Match
from tokensurgeon.errors import UsageError

SUFFIXES = (".jsonl", ".npz")


def check_map_path(path: str | Path, force: bool = False) -> Path:
    """Refuse a path that no map can be written to.

    Raises
    ------
    UsageError
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise UsageError(f"{path}: a token map is a .jsonl or an .npz file; name one of these")
    if path.exists() and not force:
        raise UsageError(f"{path} exists already: choose another")
    if path.is_dir() or not path.parent.is_dir():
        raise UsageError(f"{path} cannot be written: name a file in a folder that exists")
    return path


def token_map(alignment: Alignment, pieces: Mapping[int, tuple[int, ...]]) -> sp.csr_array:
    """Return the map as weights, CSR float32 (n_target, n_source).

    A row sums to one; that of a target token which nothing of the source stands for is empty.

    Parameters
    ----------
    alignment : Alignment
    pieces : mapping of int to tuple of int
        Source ids that spell each missing target token.
    """
    own = alignment.source_ids
    spelled = [
        ((int(own[token]),) if own[token] >= 0 else pieces.get(token, ()))
        for token in range(alignment.target.n_rows)
    ]
    counts = np.array([len(ids) for ids in spelled], dtype=np.int64)
    columns = np.array([one for ids in spelled for one in ids], dtype=np.int64)
    rows = np.repeat(np.arange(len(spelled)), counts)
    weights = (1.0 / np.maximum(counts, 1))[rows].astype(np.float32)
    shape = (len(spelled), alignment.source.n_rows)
    made = sp.csr_array((weights, (rows, columns)), shape=shape)
    made.sum_duplicates()
    return made


def write_token_map(
    alignment: Alignment, pieces: Mapping[int, tuple[int, ...]], path: str | Path
) -> Path:
    """Write the map, whole or not at all.

    A .jsonl file has a line for each target id: its spelling, how it was matched (or ``pieces``,
    or ``none``) and the source ids in their order. An .npz file has `token_map`, which
    `scipy.sparse.load_npz` reads.
    """
    path = check_map_path(path, force=True)
    part = path.with_name(f".{path.name}.writing{path.suffix}")
    if path.suffix == ".npz":
        sp.save_npz(part, token_map(alignment, pieces))
    else:
        with part.open("w", encoding="utf-8") as file:
            for token in range(alignment.target.n_rows):
                match = Match(int(alignment.match[token]))
                ids = [int(alignment.source_ids[token])]
                if ids[0] < 0:
                    ids = list(pieces.get(token, ()))
                how = match.name.lower() if match != Match.NONE else "pieces" if ids else "none"
                line = {
                    "id": token,
                    "token": alignment.target.spellings[token],
                    "match": how,
                    "source": ids,
                }
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
    part.replace(path)
    return path
