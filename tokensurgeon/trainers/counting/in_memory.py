"""Count the distinct segments of a corpus.

Documents are read once, as a stream, and cut by one or more cutters. Counted is how often each
distinct segment occurs, or in how many documents. Worker processes count batches of documents, and
their results are taken in order, so the result does not depend on the number of processes. Some
documents are held out and not counted.

Memory is bounded: if the tables outgrow it, the rarest segments are dropped, and the result says
how many. An interrupted count continues from where it was last saved.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from functools import partial
from itertools import islice
from pathlib import Path

from tokensurgeon.arrays import Hashes
from tokensurgeon.errors import CorpusError
from tokensurgeon.progress import Progress, no_progress
from tokensurgeon.text.corpus import Document
from tokensurgeon.text.seen import line_hashes
from tokensurgeon.trainers.counting.counted import Counted, Table, load_counts, save_counts
from tokensurgeon.trainers.counting.cutters import Cutter
from tokensurgeon.trainers.counting.executors import in_processes
from tokensurgeon.trainers.counting.held_out import HeldOut
from tokensurgeon.trainers.counting.streams import Stream

SAVE_BYTES = 256_000_000
"""Text between two saves of the counts: counting it takes far longer than writing the file."""
ENTRY_BYTES = 110
"""Memory of a table's entry without its text: 78 to 92 with CPython 3.11, and more right after the
table has grown."""
LENGTH_SAMPLE = 1_000
"""Segments whose mean length stands for all: exact sums would take longer than the counting."""


def count_segments(
    parts: Mapping[str, Iterable[tuple[Document, int]]],
    cutters: Mapping[str, Cutter],
    *,
    held_out: HeldOut | None = None,
    processes: int | None = None,
    memory_gib: float = 2.0,
    state: str | Path | None = None,
    progress: Progress = no_progress,
) -> Counted:
    """Count the distinct segments of documents.

    Parameters
    ----------
    parts : mapping of str to iterable of (Document, int)
        By name, documents with the number of characters replaced in each; see `iter_documents`.
    cutters : mapping of str to Cutter
        How text is cut, by name of the table.
    held_out : HeldOut or None
        Which documents are held out; None counts all.
    processes : int or None
        Number of worker processes; None takes every processor.
    memory_gib : float
        Memory for the tables, in GiB.
    state : str, Path or None
        A file to save the counts in. If it exists and is of the same text and cutters, counting
        continues from it.
    progress : callable(done, total, what)
        Gets the bytes counted; their total is unknown and 0.

    Raises
    ------
    CorpusError
        If there is no text, or `state` is of other text or other cutters.
    """
    counted = Counted(
        tuple(parts),
        {name: [Counter() for _ in parts] for name in cutters},
        n_bytes=[0] * len(parts),
        n_documents=[0] * len(parts),
        n_lines=[0] * len(parts),
        dropped=dict.fromkeys(cutters, 0),
    )
    load_counts(state, cutters, counted)
    stream = Stream(parts, held_out, counted.chain)
    limit = int(memory_gib * 2**30)
    saved = sum(counted.n_bytes)
    work = partial(cut_batch, cutters)
    for batch, (tables, hashes) in in_processes(processes)(work, stream.batches()):
        counted.seen = counted.seen.plus(hashes)
        for name, table in tables.items():
            counted.tables[name][batch.part].update(table)
        counted.add_sizes(batch)
        _drop_rarest(counted, limit)
        done = sum(counted.n_bytes)
        progress(done, 0, "counting")
        if state is not None and done - saved >= SAVE_BYTES:
            save_counts(state, cutters, counted)
            saved = done
    counted.close(stream, held_out)
    if state is not None and sum(counted.n_bytes) > saved:
        save_counts(state, cutters, counted)
    if not sum(counted.n_bytes):
        raise CorpusError("no text is left to train on; give more")
    return counted


def cut_batch(cutters: Mapping[str, Cutter], texts: list[str]) -> tuple[dict[str, Table], Hashes]:
    """Return the counts of the texts' segments, by cutter, and the hashes of their lines."""
    tables: dict[str, Table] = {}
    for name, cutter in cutters.items():
        table: Table = Counter()
        for text in texts:
            pieces = cutter.cut(text)
            table.update(set(pieces) if cutter.once else pieces)
        tables[name] = table
    return tables, line_hashes(texts)


def _drop_rarest(counted: Counted, limit: int) -> None:
    """Drop the rarest segments until the tables fit."""
    rarest = 1
    while (size := _size(counted)) > limit:
        for name, tables in counted.tables.items():
            for table in tables:
                rare = [segment for segment, n in table.items() if n <= rarest]
                for segment in rare:
                    counted.dropped[name] += table.pop(segment)
        rarest = rarest * 2 if _size(counted) > 0.9 * size else rarest


def _size(counted: Counted) -> int:
    total = 0
    for tables in counted.tables.values():
        for table in tables:
            lengths = [len(segment) for segment in islice(table, LENGTH_SAMPLE)]
            mean = sum(lengths) / len(lengths) if lengths else 0.0
            total += int(len(table) * (ENTRY_BYTES + mean))
    return total
