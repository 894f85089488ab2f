"""Projections as files: our own, and those that trainers of other projects take.

``.npz``
    `scipy.sparse.save_npz`, CSR float64: what the initialiser `external` reads.
``.safetensors``
    ``indptr``, ``indices`` and ``data`` of the same matrix; `external` reads it too.
``.pt``
    `torch.save` of ``indices``, int64 (n_rows, k), and ``likelihoods``, float32 of the same shape,
    the largest weight first; -1 and 0 fill up a row. X-Token of NeMo RL reads it; its rows are the
    student's. It is written and never read here: such a file may hold code.
``.json``
    The ids of matched tokens, column to row, each once: GOLD's mapping of the teacher's ids to the
    student's.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from tokensurgeon.arrays import Float32, Ids
from tokensurgeon.errors import UsageError
from tokensurgeon.handover.projection import Projection
from tokensurgeon.outputs import check_file, write_whole
from tokensurgeon.outputs.paths import check_apart

SUFFIXES = (".npz", ".safetensors", ".pt", ".json")
LEAST_COLUMNS = 2
"""Of the tensors for X-Token: its loss with an exact part looks at the second entry of a row."""


def check_projection_path(path: str | Path, read: Iterable[str | Path] = ()) -> Path:
    """Refuse a path that no projection can be written to, or that lies in what is read.

    Raises
    ------
    UsageError
        As `tokensurgeon.outputs.check_file`, and if its name ends in none of `SUFFIXES`.
    """
    if Path(path).suffix not in SUFFIXES:
        raise UsageError(f"{path}: a projection ends in {', '.join(SUFFIXES)}; name one of these")
    checked = check_file(path, force=None, what="a projection")
    for folder in read:
        check_apart(checked, folder)
    return checked


def write_projection(projection: Projection, path: str | Path) -> Path:
    """Write a projection in the format that the path's ending names, whole or not at all.

    Returns
    -------
    Path

    Raises
    ------
    UsageError
        As `check_projection_path`.
    """
    path = check_projection_path(path)
    data = {
        ".npz": _npz,
        ".safetensors": _safetensors,
        ".pt": _x_token,
        ".json": _gold,
    }[path.suffix](projection)
    write_whole(path, data)
    return path


def top_arrays(projection: Projection) -> tuple[Ids, Float32]:
    """Return the columns and the weights of each row, the largest first.

    Returns
    -------
    indices : int64 (n_rows, k)
        -1 where a row has fewer.
    likelihoods : float32 (n_rows, k)
        0 there. Equal weights stand by ascending column.
    """
    weights = projection.weights
    counts = np.diff(weights.indptr)
    width = max(int(counts.max(initial=0)), LEAST_COLUMNS)
    rows = np.repeat(np.arange(len(counts)), counts)
    order = np.lexsort((weights.indices, -weights.data, rows))
    at = rows, np.arange(weights.nnz) - np.repeat(weights.indptr[:-1], counts)
    indices: npt.NDArray[np.int64] = np.full((len(counts), width), -1, dtype=np.int64)
    likelihoods = np.zeros((len(counts), width), dtype=np.float32)
    indices[at], likelihoods[at] = weights.indices[order], weights.data[order]
    return indices, likelihoods


def teacher_to_student(projection: Projection) -> dict[int, int]:
    """Return the row of each column that is the same token, by ascending column."""
    rows = np.flatnonzero(projection.matched >= 0)
    pairs = zip(projection.matched[rows].tolist(), rows.tolist(), strict=True)
    return dict(sorted(pairs))


def _npz(projection: Projection) -> bytes:
    buffer = io.BytesIO()
    sp.save_npz(buffer, projection.weights)
    return buffer.getvalue()


def _safetensors(projection: Projection) -> bytes:
    from safetensors.numpy import save

    weights = projection.weights
    tensors = {
        "indptr": weights.indptr.astype(np.int64),
        "indices": weights.indices.astype(np.int64),
        "data": weights.data,
    }
    n_rows, n_columns = weights.shape
    return save(tensors, {"n_rows": str(n_rows), "n_columns": str(n_columns)})


def _x_token(projection: Projection) -> bytes:
    import torch

    indices, likelihoods = top_arrays(projection)
    buffer = io.BytesIO()
    tensors = {
        "indices": torch.from_numpy(indices),
        "likelihoods": torch.from_numpy(likelihoods),
    }
    torch.save(tensors, buffer)
    return buffer.getvalue()


def _gold(projection: Projection) -> bytes:
    mapping = {str(column): row for column, row in teacher_to_student(projection).items()}
    return json.dumps(mapping).encode() + b"\n"
