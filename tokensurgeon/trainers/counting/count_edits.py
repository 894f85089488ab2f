"""Add folders of counts up, and take over tables that another engine made."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tokensurgeon.errors import CorpusError, SettingError, reading
from tokensurgeon.outputs import check_folder, scratch_folder, staged
from tokensurgeon.outputs.ownership import COUNTS
from tokensurgeon.progress import Progress, no_progress
from tokensurgeon.text.seen import NOTHING_SEEN
from tokensurgeon.trainers.counting.count_tables import (
    CountTables,
    TableWriter,
    cutter_name,
    part_folder,
)
from tokensurgeon.trainers.counting.counted import Counted
from tokensurgeon.trainers.counting.cutters import Cutter
from tokensurgeon.trainers.counting.spills import (
    COUNT,
    DOCUMENTS,
    MOST_COUNTED,
    N_SHARDS,
    SEGMENT,
    added_up,
    arrow,
    merge_shard,
    schema,
    shard_of,
    split,
    write_batches,
)
from tokensurgeon.trainers.counting.stored import shard_name

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_AT_ONCE = 1 << 20
"""Of a foreign table that are read at once: some hundred megabytes with their texts."""
LOOKED_AT, MOST_CUT = 10_000, 0.01
"""Segments of a foreign table that are cut again, and the share of them that may come in parts: a
blank that stood before a word is cut otherwise alone."""


def merge_counts(
    folders: Sequence[str | Path],
    output: str | Path,
    *,
    weights: Sequence[float] | None = None,
    force: bool = False,
    progress: Progress = no_progress,
) -> CountTables:
    """Add folders of counts up; parts of one name become one.

    Parameters
    ----------
    folders : sequence of str or Path
        Counted alike: the same tables, cut the same way, with the same borders.
    output : str or Path
    weights : sequence of float, optional
        By which the counts of each folder are multiplied, and its bytes; rounded.
    force : bool
    progress : callable(done, total, what)

    Raises
    ------
    SettingError
        If a weight is not above 0, or there are not as many as folders.
    CorpusError
        If two folders were not counted alike.
    """
    opened = [CountTables.open(folder) for folder in folders]
    factors = [1.0] * len(opened) if weights is None else list(weights)
    if not opened or len(factors) != len(opened) or not all(0 < one < 1e9 for one in factors):
        raise SettingError(
            f"{len(factors)} weights are given for {len(opened)} folders; give one above 0 for each"
        )
    first = opened[0]
    cutters = {name: facts.cutter for name, facts in first.tables.items()}
    for other in opened[1:]:
        if {name: facts.cutter for name, facts in other.tables.items()} != cutters:
            raise CorpusError(f"{other.path} and {first.path} were cut otherwise: count one again")
        if set(other.borders) != set(first.borders):
            raise CorpusError(
                f"documents of {other.path} and {first.path} end at other controls: count one again"
            )
    output = check_folder(output, force=force, kind=COUNTS, keep=folders)
    names = list(dict.fromkeys(name for one in opened for name in one.counted.parts))
    with staged(output, force=force) as folder:
        writer = TableWriter(folder, cutters, len(names))
        for shard in range(N_SHARDS):
            progress(shard, N_SHARDS, "merging")
            for table in cutters:
                for number, part in enumerate(names):
                    rows = [
                        _scaled(_read_shard(one, table, part, shard), factor)
                        for one, factor in zip(opened, factors, strict=True)
                        if part in one.counted.parts
                    ]
                    writer.write(table, number, shard, added_up(arrow().concat_tables(rows)))
        dropped, bounds = (
            {
                name: sum(
                    round(factor * getattr(one.tables[name], key))
                    for one, factor in zip(opened, factors, strict=True)
                )
                for name in cutters
            }
            for key in ("dropped", "bound")
        )
        merged = replace(
            first,
            path=output,
            counted=_counted(opened, factors, names),
            control_strings=_summed([one.control_strings for one in opened]),
            settings=first.settings | {"merged": len(opened), "weights": factors},
        )
        return writer.close(merged, dropped, bounds)


def import_counts(
    files: Sequence[str | Path],
    output: str | Path,
    cutter: Cutter,
    *,
    table: str = "words",
    part: str = "all",
    n_bytes: int | None = None,
    borders: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    force: bool = False,
    progress: Progress = no_progress,
) -> CountTables:
    """Take over a table that another engine counted, such as DuckDB, polars or Spark.

    Parameters
    ----------
    files : sequence of str or Path
        Parquet with the columns ``segment`` (text), ``count`` and, if wanted, ``documents`` (whole
        numbers). A segment may occur in several rows, which are added up.
    output : str or Path
    cutter : Cutter
        What cut the text.
    table, part : str
        Names.
    n_bytes : int or None
        Of the text; by default that of all segments together.
    borders : sequence of str
        Strings that ended a document.
    settings : mapping
        For the card.
    force : bool
    progress : callable(done, total, what)

    Raises
    ------
    CorpusError
        If a file is none of Parquet, lacks a column, holds what is no count, or segments that the
        cutter would cut.
    """
    pa = arrow()
    output = check_folder(output, force=force, kind=COUNTS, keep=files)
    total = 0
    with scratch_folder() as scratch:
        runs = []
        for number, rows in enumerate(_foreign_rows(files, cutter)):
            progress(number, 0, "reading")
            shards = np.fromiter(map(shard_of, rows[SEGMENT].to_pylist()), np.int64, len(rows))
            order = np.argsort(shards, kind="stable")
            (batch,) = rows.take(pa.array(order)).combine_chunks().to_batches()
            runs.append(scratch / f"{number:06d}.arrow")
            write_batches(runs[-1], split(batch, np.bincount(shards, minlength=N_SHARDS)))
            lengths = pa.compute.binary_length(rows[SEGMENT]).to_numpy().astype(np.float64)
            total += int((lengths * rows[COUNT].to_numpy()).sum())
        with staged(output, force=force) as folder:
            writer = TableWriter(folder, {table: cutter_name(cutter)}, 1)
            for shard in range(N_SHARDS):
                progress(shard, N_SHARDS, "merging")
                writer.write(table, 0, shard, merge_shard(runs, shard))
            sizes = [total if n_bytes is None else n_bytes]
            files_named = [Path(file).name for file in files]
            counted = Counted((part,), {}, sizes, [0], [0], files=files_named)
            made = CountTables(output, {}, counted, tuple(borders), {}, dict(settings or {}))
            return writer.close(made)


def _foreign_rows(files: Sequence[str | Path], cutter: Cutter) -> Iterator[pa.Table]:
    """Yield rows of files in our columns, checked."""
    pa = arrow()
    from pyarrow import parquet

    looked_at = parted = 0
    example = ""
    for file in files:
        with reading(file, "write it again", CorpusError), parquet.ParquetFile(file) as opened:
            names = opened.schema_arrow.names
            for name in (SEGMENT, COUNT):
                if name not in names:
                    raise CorpusError(
                        f"{file} has no column '{name}' (it has {', '.join(names[:5])}): rename one"
                    )
            columns = [SEGMENT, COUNT, *([DOCUMENTS] if DOCUMENTS in names else [])]
            for batch in opened.iter_batches(ROWS_AT_ONCE, columns=columns):
                rows = pa.Table.from_batches([batch])
                counts = _whole_numbers(rows[COUNT], file, COUNT)
                documents = _whole_numbers(rows[columns[-1]], file, columns[-1])
                segments = rows[SEGMENT].cast(pa.large_string())
                if segments.null_count:
                    raise CorpusError(
                        f"{file} has {segments.null_count:,} rows without a segment: leave them out"
                    )
                for segment in segments[: LOOKED_AT - looked_at].to_pylist():
                    looked_at += 1
                    if list(cutter.cut(segment)) != [segment]:
                        parted, example = parted + 1, segment
                if len(rows):
                    yield pa.table([segments, counts, documents], schema())
    if parted > MOST_CUT * looked_at:
        raise CorpusError(
            f"{parted:,} of {looked_at:,} segments, such as {example[:40]!r}, are no segments of "
            "this pre-tokenizer: name the one that cut them"
        )
    if not looked_at:
        raise CorpusError("there is no row to take over; give files that hold counts")


def _whole_numbers(column: pa.ChunkedArray, file: str | Path, name: str) -> pa.ChunkedArray:
    pa = arrow()
    if column.null_count or not pa.types.is_integer(column.type):
        raise CorpusError(f"column '{name}' of {file} is not of whole numbers: write it as UBIGINT")
    if len(column) and pa.compute.min(column).as_py() < 0:
        raise CorpusError(f"column '{name}' of {file} holds numbers below 0: count again")
    return column.cast(pa.uint64())


def _read_shard(folder: CountTables, table: str, part: str, shard: int) -> pa.Table:
    from pyarrow import parquet

    number = folder.counted.parts.index(part)
    path = folder.path / table / part_folder(number) / shard_name(shard)
    with reading(path, "count again", CorpusError):
        return parquet.read_table(path, use_threads=False).cast(schema())


def _scaled(rows: pa.Table, factor: float) -> pa.Table:
    """Return rows with their counts multiplied, rounded; those that come to 0 go."""
    if factor == 1:
        return rows
    pa = arrow()
    columns = [rows[SEGMENT]]
    for name in (COUNT, DOCUMENTS):
        scaled = np.rint(rows[name].to_numpy() * factor)
        if len(scaled) and scaled.max() >= MOST_COUNTED:
            raise CorpusError(
                f"counts times {factor:g} are beyond {MOST_COUNTED:,}: lower the weight"
            )
        columns.append(pa.array(scaled.astype(np.uint64)))
    scaled_rows = pa.table(columns, schema())
    return scaled_rows.filter(pa.compute.greater(scaled_rows[COUNT], 0))


def _counted(folders: Sequence[CountTables], factors: Sequence[float], names: list[str]) -> Counted:
    """Return the facts of several texts together."""
    sizes = {key: [0] * len(names) for key in ("n_bytes", "n_documents", "n_lines")}
    held_out: dict[str, list[Any]] = {}
    seen = NOTHING_SEEN
    for one, factor in zip(folders, factors, strict=True):
        for number, part in enumerate(one.counted.parts):
            at = names.index(part)
            for key, total in sizes.items():
                total[at] += round(factor * getattr(one.counted, key)[number])
        for part, documents in one.counted.held_out.items():
            held_out.setdefault(part, []).extend(documents)
        seen = seen.plus(one.counted.seen.hashes)
        seen = replace(seen, complete=seen.complete and one.counted.seen.complete)
    hashes = "".join(one.counted.sha256 for one in folders)
    return Counted(
        tuple(names),
        {},
        sizes["n_bytes"],
        sizes["n_documents"],
        sizes["n_lines"],
        held_out=held_out,
        sha256=hashlib.sha256(hashes.encode()).hexdigest(),
        files=list(dict.fromkeys(file for one in folders for file in one.counted.files)),
        n_replaced=sum(one.counted.n_replaced for one in folders),
        seen=seen,
    )


def _summed(counts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for one in counts:
        for key, n in one.items():
            total[key] = total.get(key, 0) + n
    return total
