"""A projection: how the tokens of one vocabulary stand for those of another, as sparse weights.

Distillation and ensembling across vocabularies carry a distribution over one vocabulary to
another: ``p @ W``. A row of W is a token of the first. A token that both have stands for itself;
another one for its pieces, with the weights of a rule or those that its row was made with.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp

from tokensurgeon.alignment import Alignment
from tokensurgeon.arrays import Float64, Ids
from tokensurgeon.errors import AlignmentError, CheckpointError, SettingError
from tokensurgeon.initialisers.numerics.piece_weights import (
    Weigh,
    exponential_weights,
    first_weights,
    last_weights,
    mean_weights,
)
from tokensurgeon.report.records import FOLDER, Records, read_weights
from tokensurgeon.report.token_map import token_map

RULES: dict[str, Weigh] = {
    "mean": mean_weights,
    "bytes": mean_weights,
    "first": first_weights,
    "last": last_weights,
    "decay": exponential_weights(-math.log(10)),
}
"""From a name to the weights of a token's pieces; `bytes` counts each piece by its bytes."""


@dataclass(frozen=True)
class Projection:
    """A projection from one vocabulary to another.

    Attributes
    ----------
    weights : csr_array of float64 (n_rows, n_columns)
        A row sums to one, or is empty where nothing of the other vocabulary stands for the token.
        None is negative.
    matched : int64 (n_rows,)
        The column that is the same token, each at most once; -1 where there is none.
    rule : str
        How tokens without a match are weighed.
    top_k : int or None
        The most weights that a row keeps.
    from_records, fallback : int
        Rows whose weights are those of a finished checkpoint, and rows without a match that its
        records have no positive weight for, which follow the rule.
    dropped : float
        The largest share of a row's weights, by magnitude, that was negative and left out.
    """

    weights: sp.csr_array
    matched: Ids
    rule: str
    top_k: int | None = None
    from_records: int = 0
    fallback: int = 0
    dropped: float = 0.0

    def facts(self) -> dict[str, Any]:
        """Return its sizes and what it is made of, as JSON values."""
        counts = np.diff(self.weights.indptr)
        return {
            "rows": int(self.weights.shape[0]),
            "columns": int(self.weights.shape[1]),
            "weights": int(self.weights.nnz),
            "matched": int((self.matched >= 0).sum()),
            "empty_rows": int((counts == 0).sum()),
            "widest_row": int(counts.max(initial=0)),
            "rule": self.rule,
            "top_k": self.top_k,
            "from_records": self.from_records,
            "fallback": self.fallback,
            "dropped": self.dropped,
        }


def project(
    alignment: Alignment,
    pieces: Mapping[int, tuple[int, ...]],
    rule: str = "mean",
    top_k: int | None = None,
    records: sp.csr_array | None = None,
) -> Projection:
    """Return the projection whose rows are the alignment's target, its columns the source.

    For the other direction, align the other way round.

    Parameters
    ----------
    alignment : Alignment
    pieces : mapping of int to tuple of int
        Source ids that spell each missing target token.
    rule : str
        One of `RULES`. ``decay`` gives each piece a tenth of the one before it, as the projection
        of X-Token does (arXiv 2605.21699).
    top_k : int, optional
        Keep the largest weights of a row, of equal ones those of the lower ids, and scale them to
        sum to one.
    records : csr_array (at least n_target, n_source), optional
        Weights that rows were made with; see `recorded_weights`. They go in the place of the
        rule's for tokens without a match. Negative ones are left out and the rest is scaled to
        sum to one: a distribution has no negative part.

    Raises
    ------
    SettingError
        If there is no such rule, or `top_k` is below 1.
    AlignmentError
        If a piece is no id of the source.
    """
    if rule not in RULES:
        raise SettingError(f"no rule '{rule}' for pieces; known: {', '.join(RULES)}")
    if top_k is not None and top_k < 1:
        raise SettingError(f"top-k is {top_k}: a row keeps at least 1 weight; raise it")
    n_source = alignment.source.n_rows
    for token, ids in pieces.items():
        if min(ids, default=0) < 0 or max(ids, default=0) >= n_source:
            raise AlignmentError(
                f"target id {token} is spelled by {ids}, and the source's last id is "
                f"{n_source - 1}; spell it with the tokenizer that was aligned"
            )
    sizes = _byte_lengths(alignment) if rule == "bytes" else None
    weights = token_map(alignment, pieces, RULES[rule], sizes)
    from_records = fallback = 0
    dropped = 0.0
    if records is not None:
        weights, from_records, fallback, dropped = _with_records(alignment, weights, records)
    if top_k is not None:
        weights = _normalised(_strongest(weights, top_k))
    matched = _one_to_one(alignment)
    return Projection(weights, matched, rule, top_k, from_records, fallback, dropped)


def recorded_weights(
    folder: str | Path, alignment: Alignment, side: Literal["input", "output"] = "input"
) -> sp.csr_array:
    """Return the weights that the rows of a finished checkpoint were made with.

    Returns
    -------
    csr_array of float32 (n_rows, n_source)

    Raises
    ------
    CheckpointError
        If the folder has no records, they are damaged, or they are of other vocabularies.
    """
    records = Records(folder)
    wanted = list(alignment.source.spellings), list(alignment.target.spellings)
    if (records.source, records.spellings) != wanted:
        raise CheckpointError(
            f"{folder} was made of other tokenizers ({len(records.source):,} and "
            f"{len(records.spellings):,} ids, these have {len(wanted[0]):,} and "
            f"{len(wanted[1]):,}); give those that it names"
        )
    one = side == "input" or records.tokens.get("tied")
    path = Path(folder) / FOLDER / f"{'input' if one else 'output'}_weights.npz"
    weights = read_weights(path)
    rows, columns = weights.shape
    if rows < alignment.target.n_rows or columns < 1:
        raise CheckpointError(
            f"{path} has {rows:,} rows and the tokenizer {alignment.target.n_rows:,}; "
            "transplant again"
        )
    return weights


def inverted(mapping: Mapping[str, str]) -> dict[str, str]:
    """Return a mapping of target to source spellings the other way round.

    Raises
    ------
    AlignmentError
        If two target tokens have one source token.
    """
    other: dict[str, str] = {}
    for target, source in mapping.items():
        if other.setdefault(source, target) != target:
            raise AlignmentError(
                f"--map gives {source!r} to {other[source]!r} and to {target!r}, and read from "
                "the source it can have one of them; leave one out"
            )
    return other


def _byte_lengths(alignment: Alignment) -> Ids:
    lengths: Iterable[int] = (max(1, len(data or b"")) for data in alignment.source.token_bytes)
    return np.fromiter(lengths, dtype=np.int64, count=alignment.source.n_rows)


def _one_to_one(alignment: Alignment) -> Ids:
    """Return the column of each matched row; of rows with one column, only that which is emitted.

    A hole of an identity has its own id, and no token: it is no match.
    """
    matched = np.where(alignment.match != 0, alignment.output_source_ids, -1).astype(np.int64)
    rows = np.flatnonzero(matched >= 0)
    _, firsts = np.unique(matched[rows], return_index=True)
    only = np.full_like(matched, -1)
    only[rows[firsts]] = matched[rows[firsts]]
    return only


def _with_records(
    alignment: Alignment, weights: sp.csr_array, records: sp.csr_array
) -> tuple[sp.csr_array, int, int, float]:
    """Put recorded weights in the place of the rule's; how many rows, how many not, what was lost.

    Rows that the rule leaves empty stay so: nothing of the source stands for them.
    """
    n_target, n_source = weights.shape
    ours = (alignment.source_ids < 0) & (np.diff(weights.indptr) > 0)
    entries = records.tocoo()
    within = (entries.row < n_target) & (entries.col < n_source)  # a checkpoint may have more rows
    data = entries.data[within].astype(np.float64)
    places = entries.row[within], entries.col[within]
    cut = sp.csr_array((data, places), shape=(n_target, n_source))
    sizes: Float64 = np.asarray(abs(cut).sum(axis=1)).ravel()
    cut.data = np.maximum(cut.data, 0.0)
    cut.eliminate_zeros()
    kept: Float64 = np.asarray(cut.sum(axis=1)).ravel()
    taken = ours & (kept > 0)
    lost = np.where(taken, 1 - kept / np.maximum(sizes, 1e-300), 0.0)
    cut = _normalised(cut)
    mixed = sp.diags_array(taken.astype(np.float64)) @ cut
    mixed = mixed + sp.diags_array((~taken).astype(np.float64)) @ weights
    mixed = sp.csr_array(mixed)
    mixed.eliminate_zeros()
    mixed.sort_indices()
    return mixed, int(taken.sum()), int((ours & ~taken).sum()), float(lost.max(initial=0.0))


def _strongest(weights: sp.csr_array, k: int) -> sp.csr_array:
    """Return the k largest weights of each row, of equal ones those of the lower columns."""
    counts = np.diff(weights.indptr)
    rows = np.repeat(np.arange(len(counts)), counts)
    order = np.lexsort((weights.indices, -weights.data, rows))
    rank = np.arange(weights.nnz) - np.repeat(weights.indptr[:-1], counts)
    kept = np.sort(order[rank < k])
    entries = weights.data[kept], (rows[kept], weights.indices[kept])
    return sp.csr_array(entries, shape=weights.shape)


def _normalised(weights: sp.csr_array) -> sp.csr_array:
    """Scale each row that has a weight to sum to one."""
    sums = np.asarray(weights.sum(axis=1)).ravel()
    scaled = sp.csr_array(sp.diags_array(1.0 / np.where(sums > 0, sums, 1.0)) @ weights)
    scaled.sort_indices()
    return scaled
