"""Weights computed elsewhere: any sparse matrix from source rows to new rows, read from a file."""

from __future__ import annotations

import csv
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import scipy.sparse as sp

from tokensurgeon.errors import InitialiserError, SettingError, reason
from tokensurgeon.initialisers.contract import InitContext, NewRows, SideRows
from tokensurgeon.initialisers.numerics.piece_weights import piece_weights
from tokensurgeon.initialisers.registry import initialiser
from tokensurgeon.vocabulary import Vocabulary

_FORMATS = (".npz", ".safetensors", ".csv")


@initialiser("external")
@dataclass(frozen=True)
class External:
    """New rows as user-given weights over source rows: the way in for other people's alignments.

    Methods that need a parallel corpus or another program (trans-tokenizers, RAMEN, TokAlign)
    end in a sparse matrix of new × old tokens. The same weights serve both sides. A missing token
    without an entry gets the mean of its pieces; entries of shared tokens are not used.

    Parameters
    ----------
    file : str
        One of

        - ``.npz``: a scipy sparse matrix (`scipy.sparse.save_npz`), one row per target id and
          one column per source id;
        - ``.safetensors``: the dense tensor ``weights``, or ``indptr``, ``indices`` and ``data``
          of a CSR matrix, of the same shape;
        - ``.csv``: a header with ``target`` or ``target_id``, ``source`` or ``source_id``, and
          ``weight``; ``target`` and ``source`` are spellings as the tokenizers list them.
    normalise : bool
        Scale the weights of each token to sum to one.

    Notes
    -----
    Nothing is random. Unknown spellings, ids outside the vocabularies and weights that are not
    finite are errors, with the first one named.
    """

    name: ClassVar[str]
    file: str
    normalise: bool = False

    def __post_init__(self) -> None:
        """Check that the file's ending is one that can be read."""
        if Path(self.file).suffix.lower() not in _FORMATS:
            raise SettingError(
                f"external.file must end in {', '.join(_FORMATS)}; got '{self.file}'"
            )

    def __call__(self, context: InitContext) -> NewRows:
        """Return the file's weights for the missing tokens, else equal weights on the pieces."""
        given = read_weights(Path(self.file), context.target, context.source, context.n_source)
        chosen = sp.csr_array(given[context.missing])
        chosen.sum_duplicates()
        chosen.eliminate_zeros()
        absent = np.diff(chosen.indptr) == 0
        if self.normalise:
            sums = np.asarray(chosen.sum(axis=1)).ravel()
            if (np.abs(sums[~absent]) < 1e-12).any():
                first = int(context.missing[~absent][np.abs(sums[~absent]) < 1e-12][0])
                raise InitialiserError(
                    f"the weights of {context.target.spellings[first]!r} sum to 0; "
                    "mend the file, or drop external.normalise"
                )
            chosen = sp.csr_array(sp.diags_array(1.0 / np.where(absent, 1.0, sums)) @ chosen)
        fallback = piece_weights(context.pieces, context.n_source)
        weights = sp.csr_array(chosen + sp.diags_array(absent.astype(np.float64)) @ fallback)
        side = SideRows(weights=weights)
        return NewRows(input=side, output=side)


def read_weights(path: Path, target: Vocabulary, source: Vocabulary, n_source: int) -> sp.csr_array:
    """Read a weight file as CSR float64 (target.n_rows, n_source).

    Raises
    ------
    InitialiserError
        If the file cannot be read, its shape does not fit, or an entry is wrong.
    """
    if not path.is_file():
        raise InitialiserError(f"no weight file {path}; check external.file")
    suffix = path.suffix.lower()
    try:
        if suffix == ".csv":
            matrix = _read_csv(path, target, source, n_source)
        elif suffix == ".npz":
            matrix = _read_npz(path)
        else:
            matrix = _read_safetensors(path)
    except (InitialiserError, MemoryError):
        raise
    except Exception as error:  # whatever the readers trip over
        raise InitialiserError(
            f"{path} is no weight file: {reason(error)}; check external.file"
        ) from error
    rows, columns = matrix.shape
    if rows > target.n_rows or columns > n_source:
        raise InitialiserError(
            f"{path} has {rows} x {columns} weights; the target has {target.n_rows} ids and the "
            f"source {n_source} rows; give a file of this pair"
        )
    matrix = sp.csr_array(matrix.astype(np.float64))
    if not np.isfinite(matrix.data).all():
        raise InitialiserError(f"{path} holds weights that are not finite; mend them")
    # Columns past the file's own are source tokens that it never uses.
    return sp.csr_array(
        (
            matrix.data,
            matrix.indices,
            np.pad(matrix.indptr, (0, target.n_rows - rows), mode="edge"),
        ),
        shape=(target.n_rows, n_source),
    )


def _read_npz(path: Path) -> sp.csr_array:
    try:
        matrix = sp.load_npz(path)
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError("scipy.sparse.save_npz did not write it") from error
    if hasattr(matrix, "check_format"):  # scipy reads past the end of indices that are wrong
        matrix.check_format(full_check=True)
    return sp.csr_array(matrix)


def _read_safetensors(path: Path) -> sp.csr_array:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise ValueError(reason(error)) from error
    if "weights" in tensors:
        if tensors["weights"].ndim != 2:
            raise ValueError("'weights' is not a matrix")
        return sp.csr_array(tensors["weights"])
    lacking = {"indptr", "indices", "data"} - set(tensors)
    if lacking:
        raise ValueError(f"it has neither 'weights' nor '{sorted(lacking)[0]}'")
    indices = tensors["indices"].astype(np.int64)
    n_columns = int(indices.max()) + 1 if len(indices) else 0
    matrix = sp.csr_array(
        (tensors["data"], indices, tensors["indptr"].astype(np.int64)),
        shape=(len(tensors["indptr"]) - 1, n_columns),
    )
    matrix.check_format(full_check=True)
    return matrix


def _read_csv(path: Path, target: Vocabulary, source: Vocabulary, n_source: int) -> sp.csr_array:
    rows: list[int] = []
    columns: list[int] = []
    data: list[float] = []
    with path.open(encoding="utf-8", newline="") as stream:
        reader = csv.DictReader(stream)
        header = reader.fieldnames or []
        keys = {}
        for side in ("target", "source"):
            columns_named = [name for name in (side, f"{side}_id") if name in header]
            if len(columns_named) != 1:
                raise ValueError(f"its header needs '{side}' or '{side}_id'")
            keys[side] = columns_named[0]
        if "weight" not in header:
            raise ValueError("its header needs 'weight'")
        for entry in reader:
            line = reader.line_num
            rows.append(_id(entry[keys["target"]], keys["target"], target, target.n_rows, line))
            columns.append(_id(entry[keys["source"]], keys["source"], source, n_source, line))
            try:
                data.append(float(entry["weight"]))
            except (TypeError, ValueError):
                raise ValueError(f"line {line}: {entry['weight']!r} is no weight") from None
    return sp.csr_array((data, (rows, columns)), shape=(target.n_rows, n_source))


def _id(cell: str | None, key: str, vocabulary: Vocabulary, limit: int, line: int) -> int:
    """Return the id that a cell names, by spelling or by number."""
    if key.endswith("_id"):
        if cell is None or not cell.strip().isdigit() or int(cell) >= limit:
            raise ValueError(f"line {line}: {cell!r} is no {key} below {limit}")
        return int(cell)
    token = vocabulary.id_of(cell or "")
    if token is None or token >= limit:
        raise ValueError(f"line {line}: the {key} tokenizer has no token {cell!r}")
    return token
