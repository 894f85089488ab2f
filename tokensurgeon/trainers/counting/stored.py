"""A table on disk: what of it fits into memory is read, and what is said of the rest."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tokensurgeon.errors import CorpusError, reading
from tokensurgeon.trainers.counting.counted import LeftOut
from tokensurgeon.trainers.counting.sequences import byte_pairs
from tokensurgeon.trainers.counting.spills import DOCUMENTS, N_SHARDS, SEGMENT, arrow, check_total
from tokensurgeon.trainers.counting.weighted import WeightedSegments

if TYPE_CHECKING:
    import pyarrow as pa

ROW_BYTES, LETTER_BYTES = 70, 34
"""Memory of a segment that is trained on, and of each of its bytes: the string, its weight, and the
flat arrays of `Merger`."""
LEARNED_BYTES = 360
"""Of a word besides: the pairs that arise while tokens are learned. Of 5.0 million words, 64,000
tokens of BPE took 1.0 GiB, and what was read for them 1.8."""


@dataclass(frozen=True)
class StoredTable:
    """A part of a table, on disk.

    All segments are read that weigh as much as the lightest that fits into the memory, or more. Of
    words the others are left out. Of runs and chunks, which are counted by documents, the rare ones
    are most of the text: half of the memory is for one in n of them, chosen by a hash, which weigh
    n times as much. Sums over segments are then right in expectation.

    Attributes
    ----------
    folder : Path
    column : str
        What its segments weigh.
    most_bytes : int
        Memory for those that are read.
    """

    folder: Path
    column: str
    most_bytes: int

    def load(self, group: int = 0) -> tuple[WeightedSegments, LeftOut]:
        """Return the segments, and what is left out."""
        pa = arrow()
        left_out, cost = self._left_out(self.most_bytes)
        if left_out.below > 1 and self.column == DOCUMENTS:
            left_out, cost = self._left_out(self.most_bytes // 2)
            left_out = replace(left_out, one_in=max(1, -(-2 * cost // max(1, self.most_bytes))))
        parts, pairs = [], np.zeros((256, 256), np.int64)
        for rows in self._shards([SEGMENT, self.column]):
            weights = rows[self.column]
            parts.append(rows.filter(pa.compute.greater_equal(weights, left_out.below)))
            rare = rows.filter(pa.compute.less(weights, left_out.below))
            if left_out.one_in:
                parts.append(self._sampled(rare, left_out.one_in))
            elif len(rare):
                pairs += byte_pairs(rare[SEGMENT].to_pylist(), rare[self.column].to_numpy())
        rows = pa.concat_tables(parts).sort_by(SEGMENT)
        weights = rows[self.column].to_numpy()
        check_total(str(self.folder), int(weights.sum(dtype=np.float64)))
        segments = rows[SEGMENT].to_pylist()
        groups = np.full(len(segments), group, np.int32)
        if left_out.one_in:
            unread = self._n_rows() - len(segments)
            left_out = replace(left_out, segments=unread, weight=0)
        left_out = replace(left_out, pairs=int(pairs.max()))
        return WeightedSegments(segments, weights.astype(np.int64), groups), left_out

    def _sampled(self, rare: pa.Table, one_in: int) -> pa.Table:
        """Return one in so many rows, with as many times their weight."""
        pa = arrow()
        hashes = (zlib.crc32(one.encode("utf-8")) for one in rare[SEGMENT].to_pylist())
        # The remainder by N_SHARDS is the shard.
        chosen = [number // N_SHARDS % one_in == 0 for number in hashes]
        rows = rare.filter(pa.array(chosen, pa.bool_()))
        weights = pa.compute.multiply(rows[self.column], pa.scalar(one_in, pa.uint64()))
        return rows.set_column(rows.column_names.index(self.column), self.column, weights)

    def _left_out(self, most_bytes: int) -> tuple[LeftOut, int]:
        """Return what does not fit into a memory, and how much it would take."""
        pa = arrow()
        costs: Counter[int] = Counter()
        n_rows: Counter[int] = Counter()
        for rows in self._shards([SEGMENT, self.column]):
            lengths = pa.compute.binary_length(rows[SEGMENT]).to_numpy()
            weights, at = np.unique(rows[self.column].to_numpy(), return_inverse=True)
            row = ROW_BYTES + (LEARNED_BYTES if self.column != DOCUMENTS else 0)
            cost = np.bincount(at, row + LETTER_BYTES * lengths.astype(float))
            costs.update(dict(zip(weights.tolist(), cost.astype(np.int64).tolist(), strict=True)))
            n_rows.update(dict(zip(weights.tolist(), np.bincount(at).tolist(), strict=True)))
        taken, least = 0, 1
        ordered = sorted(costs, reverse=True)
        for number, weight in enumerate(ordered):
            taken += costs[weight]
            if taken > most_bytes and number:
                least = ordered[number - 1]
                break
        rare = [weight for weight in n_rows if weight < least]
        left_out = LeftOut(
            least,
            sum(n_rows[weight] for weight in rare),
            sum(weight * n_rows[weight] for weight in rare),
        )
        return left_out, sum(costs[weight] for weight in rare)

    def _shards(self, columns: list[str]) -> Iterable[pa.Table]:
        arrow()
        from pyarrow import parquet

        for shard in range(N_SHARDS):
            path = self.folder / shard_name(shard)
            with reading(path, "count again", CorpusError):
                yield parquet.read_table(path, columns=columns, use_threads=False)

    def _n_rows(self) -> int:
        return sum(len(rows) for rows in self._shards([self.column]))


def shard_name(shard: int) -> str:
    """Return the name of the file of a shard."""
    return f"shard-{shard:02d}.parquet"
