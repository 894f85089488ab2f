"""Counts of segments that need not fit into memory: spilled as runs, merged part by part.

Segments are divided by a hash into `N_SHARDS` shards. A run is one Arrow file with a batch of rows
for each shard, so that the merging of a shard reads its own batches of all runs and nothing else.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tokensurgeon.arrays import Ids
from tokensurgeon.errors import CorpusError, MissingExtraError
from tokensurgeon.trainers.counting.counted import Table

if TYPE_CHECKING:
    import pyarrow as pa

N_SHARDS = 64
"""A shard of ten gigabytes of text has some million rows: a few hundred megabytes while merged."""
ENTRY_BYTES = 210
"""Memory of a segment without its text, in two tables: a string of 49 bytes, two entries of 50 to
100 bytes each as a table grows, and two small integers, some of which are shared."""
SEGMENT, COUNT, DOCUMENTS = "segment", "count", "documents"
"""Columns of a table: text, how often it occurs, and in how many documents."""
MOST_COUNTED = (1 << 63) - 1
"""Occurrences of all segments of a table together; so no sum of them overflows."""


def arrow() -> Any:
    """Return pyarrow.

    Raises
    ------
    MissingExtraError
        If it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.compute
    except ImportError as error:
        raise MissingExtraError(
            "tables of counts need pyarrow; pip install 'tokensurgeon[parquet]'"
        ) from error
    return pyarrow


def schema() -> pa.Schema:
    """Return the columns of a table."""
    pa = arrow()
    types = (pa.large_string(), pa.uint64(), pa.uint64())
    return pa.schema(list(zip((SEGMENT, COUNT, DOCUMENTS), types, strict=True)))


class Tally:
    """Counts in memory: of each segment how often it occurs, and in how many documents.

    Attributes
    ----------
    counts, documents : Counter of str
    """

    def __init__(self) -> None:
        self.counts: Table = Counter()
        self.documents: Table = Counter()
        self._text = 0  # characters of the segments

    def add(self, counts: Table, documents: Table) -> None:
        """Add the counts of a batch, whose tables are used up."""
        # The difference of the views would go through all that is counted, and not the batch alone.
        known = [segment for segment in counts if segment in self.counts]
        self._text += sum(map(len, counts)) - sum(map(len, known))
        for own, more in ((self.counts, counts), (self.documents, documents)):
            for segment in known:
                more[segment] += own[segment]
            dict.update(own, more)

    @property
    def n_bytes(self) -> int:
        """Memory that they take, about."""
        return len(self.counts) * ENTRY_BYTES + self._text

    def drop_rarest(self, most_bytes: int) -> int:
        """Drop segments until at most so many bytes are taken; return the count of the last."""
        rarest = 0
        while self.n_bytes > most_bytes:
            rarest = max(1, 2 * rarest)
            for segment in [one for one, n in self.counts.items() if n <= rarest]:
                del self.counts[segment], self.documents[segment]
                self._text -= len(segment)
        return rarest

    def write_run(self, path: Path) -> None:
        """Write the counts as a run."""
        pa = arrow()
        segments = list(self.counts)
        shards = np.fromiter(map(shard_of, segments), np.int64, len(segments))
        order = np.argsort(shards, kind="stable")
        n_rows = np.bincount(shards, minlength=N_SHARDS)
        del shards
        columns = [pa.array(segments, pa.large_string())]
        columns += [
            pa.array(np.fromiter((table[one] for one in segments), np.uint64, len(segments)))
            for table in (self.counts, self.documents)
        ]
        rows = pa.record_batch(columns, schema()).take(pa.array(order))
        write_batches(path, split(rows, n_rows))


def split(rows: pa.RecordBatch, n_rows: Ids) -> Iterable[pa.RecordBatch]:
    """Yield parts of so many rows each, one after another."""
    start = 0
    for n in n_rows.tolist():
        yield rows.slice(start, n)
        start += n


def write_batches(path: Path, batches: Iterable[pa.RecordBatch]) -> None:
    """Write a run: a batch of rows for each shard."""
    pa = arrow()
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with (
        pa.OSFile(str(path), "wb") as file,
        pa.ipc.new_file(file, schema(), options=options) as writer,
    ):
        for batch in batches:
            writer.write_batch(batch)


def shard_of(segment: str) -> int:
    """Return the shard of a segment."""
    return zlib.crc32(segment.encode("utf-8")) % N_SHARDS


def merge_shard(runs: Sequence[Path], shard: int) -> pa.Table:
    """Return the rows of a shard, added up over runs, by ascending segment.

    Memory holds the rows of this shard.
    """
    pa = arrow()
    batches = []
    for run in runs:
        with pa.memory_map(str(run)) as file:
            batches.append(pa.ipc.open_file(file).get_batch(shard))
    return added_up(pa.Table.from_batches(batches, schema()))


def added_up(rows: pa.Table) -> pa.Table:
    """Return rows with each segment once, by ascending segment."""
    sums = rows.group_by(SEGMENT, use_threads=False).aggregate([(COUNT, "sum"), (DOCUMENTS, "sum")])
    names = {f"{COUNT}_sum": COUNT, f"{DOCUMENTS}_sum": DOCUMENTS}
    renamed = sums.rename_columns([names.get(name, name) for name in sums.column_names])
    return renamed.select([SEGMENT, COUNT, DOCUMENTS]).sort_by(SEGMENT)


def check_total(name: str, occurrences: int) -> None:
    """Refuse counts whose sums could overflow.

    Raises
    ------
    CorpusError
    """
    if occurrences > MOST_COUNTED:
        raise CorpusError(
            f"the table of {name} counts {occurrences:,} occurrences, and {MOST_COUNTED:,} is the "
            "most: take counts divided by a number"
        )
