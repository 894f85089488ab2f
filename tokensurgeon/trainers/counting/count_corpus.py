"""Count the segments of a corpus into a folder, in bounded memory, and go on where a run ended."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tokensurgeon.arrays import Hashes
from tokensurgeon.errors import CorpusError, OutputExistsError, reading
from tokensurgeon.outputs import check_folder, staged, whole_file
from tokensurgeon.outputs.ownership import COUNTS
from tokensurgeon.outputs.whole_folder import sync_tree
from tokensurgeon.progress import Progress, no_progress
from tokensurgeon.text.borders import Borders
from tokensurgeon.text.corpus import Document
from tokensurgeon.text.seen import NOTHING_SEEN, Seen, line_hashes
from tokensurgeon.trainers.counting.count_tables import (
    PROCESS_BYTES,
    CountTables,
    TableWriter,
    cutter_name,
)
from tokensurgeon.trainers.counting.counted import Counted, Table
from tokensurgeon.trainers.counting.cutters import Cutter
from tokensurgeon.trainers.counting.executors import Executor
from tokensurgeon.trainers.counting.held_out import HeldOut
from tokensurgeon.trainers.counting.spills import N_SHARDS, Tally, arrow, merge_shard
from tokensurgeon.trainers.counting.streams import Batch, Chain, Stream
from tokensurgeon.vocabulary.reading import read_json

WORK = ".counting"
"""Ends the name of the folder beside the output that holds runs until they are merged."""
STATE = "state.json"
SAVE_BYTES = 1_000_000_000
"""Text after which counts are spilled though there is memory left: a run that is killed loses no
more. Counting it takes minutes, writing it seconds."""
SPILLED = 1.6
"""Times its counts that this process takes while it writes them: their text once more, and an
order."""
LEAST_SHARE = 0.25
"""Of the memory, for the counts, however many workers there are."""


def least_gib(n_workers: int) -> float:
    """Return the least memory that a number of workers can be kept to, in GiB."""
    return PROCESS_BYTES * (1 + n_workers) / (1 - LEAST_SHARE) / 2**30


def workers_within(memory_gib: float, n_workers: int) -> int:
    """Return how many of some workers fit into a memory; at least 1."""
    while n_workers > 1 and least_gib(n_workers) > memory_gib:
        n_workers -= 1
    return n_workers


@dataclass
class _State:
    """How far a counting is, as `state.json` keeps it beside the runs."""

    settings: dict[str, Any]
    n_runs: int = 0
    chain: Chain = field(default_factory=Chain)
    sizes: dict[str, list[int]] = field(default_factory=dict)
    seen: str = ""
    dropped: dict[str, int] = field(default_factory=dict)
    bounds: dict[str, int] = field(default_factory=dict)


def count_documents(
    parts: Mapping[str, Iterable[tuple[Document, int]]],
    cutters: Mapping[str, Cutter],
    output: str | Path,
    *,
    execute: Executor,
    n_workers: int = 1,
    held_out: HeldOut | None = None,
    ends: Borders | None = None,
    memory_gib: float = 2.0,
    prune: bool = False,
    settings: Mapping[str, Any] | None = None,
    force: bool = False,
    progress: Progress = no_progress,
) -> CountTables:
    """Count the distinct segments of documents into a folder.

    What does not fit into memory is spilled to ``OUTPUT.counting`` and merged in the end. A run
    that ends early leaves that folder, and the next one with the same settings and the same text
    goes on from it.

    Parameters
    ----------
    parts : mapping of str to iterable of (Document, int)
        By name, documents with the number of characters replaced in each.
    cutters : mapping of str to Cutter
        How text is cut, by name of the table.
    output : str or Path
        The folder to write.
    execute : Executor
    n_workers : int
        Of the executor on this machine; their memory counts.
    held_out : HeldOut or None
        Which documents are held out; None counts all.
    ends : Borders or None
        The strings that ended documents; they know how often once these are read.
    memory_gib : float
        For all processes on this machine, in GiB.
    prune : bool
        Drop the rarest segments where memory is full, instead of spilling all of them. The card
        says by how much a count may then be too low.
    settings : mapping
        What the card says was asked for; another one does not go on from a run.
    force : bool
    progress : callable(done, total, what)
        Gets the bytes counted, whose total is unknown and 0, and then the shards merged.

    Returns
    -------
    CountTables

    Raises
    ------
    UsageError
        If the output exists.
    CorpusError
        If there is no text, or the work kept is of other text or other settings.
    MissingExtraError
        If pyarrow is not installed.
    """
    arrow()
    output = check_folder(output, force=force, kind=COUNTS)
    work = output.with_name(output.name + WORK)
    names = {name: cutter_name(cutter) for name, cutter in cutters.items()}
    asked = {"tables": names, "parts": list(parts), "prune": prune, **(settings or {})}
    state = _resume(work, asked)
    counting = _Counting(parts, cutters, work, state, memory_gib, n_workers, prune)
    stream = Stream(parts, held_out, state.chain)
    for batch, (tables, hashes) in execute(partial(count_batch, cutters), stream.batches()):
        counting.take(batch, tables, hashes)
        progress(sum(counting.counted.n_bytes), 0, "counting")
    counting.spill()
    counted = counting.counted
    counted.close(stream, held_out)
    if not sum(counted.n_bytes):
        shutil.rmtree(work, ignore_errors=True)
        raise CorpusError("no text is left to count; give more")
    found = CountTables(
        output,
        {},
        counted,
        () if ends is None else ends.strings,
        {} if ends is None else ends.facts(),
        dict(settings or {}),
    )
    with staged(output, force=force) as folder:
        writer = TableWriter(folder, names, len(parts))
        for shard in range(N_SHARDS):
            progress(shard, N_SHARDS, "merging")
            for name in names:
                for part in range(len(parts)):
                    rows = merge_shard(counting.runs_of(name, part), shard)
                    writer.write(name, part, shard, rows)
        found = writer.close(found, state.dropped, state.bounds)
    shutil.rmtree(work, ignore_errors=True)
    return found


def count_batch(
    cutters: Mapping[str, Cutter], texts: list[str]
) -> tuple[dict[str, tuple[Table, Table]], Hashes]:
    """Return the counts of the texts' segments, and those of documents; the hashes of lines."""
    tables: dict[str, tuple[Table, Table]] = {}
    for name, cutter in cutters.items():
        counts, documents = Table(), Table()
        for text in texts:
            own = list(cutter.cut(text))
            # Of iterables, which are counted in C; of another table, entries are added in Python.
            counts.update(own)
            documents.update(set(own))
        tables[name] = counts, documents
    return tables, line_hashes(texts)


class _Counting:
    """Counts in memory, and the runs that were spilled."""

    def __init__(
        self,
        parts: Mapping[str, Any],
        cutters: Mapping[str, Cutter],
        work: Path,
        state: _State,
        memory_gib: float,
        n_workers: int,
        prune: bool,
    ) -> None:
        self._work, self._state, self._prune = work, state, prune
        self._tallies = {name: [Tally() for _ in parts] for name in cutters}
        n = len(parts)
        self.counted = Counted(
            tuple(parts),
            {},
            n_bytes=state.sizes.get("bytes", [0] * n),
            n_documents=state.sizes.get("documents", [0] * n),
            n_lines=state.sizes.get("lines", [0] * n),
            chain=state.chain,
            seen=Seen.of_text(state.seen) if state.seen else NOTHING_SEEN,
        )
        memory = memory_gib * 2**30
        left = memory - PROCESS_BYTES * (1 + n_workers)
        self._most = int(max(LEAST_SHARE * memory, left) / SPILLED)
        self._saved = sum(self.counted.n_bytes)

    def take(self, batch: Batch, tables: Mapping[str, tuple[Table, Table]], hashes: Hashes) -> None:
        """Add what was counted of a batch."""
        self.counted.seen = self.counted.seen.plus(hashes)
        for name, (counts, documents) in tables.items():
            self._tallies[name][batch.part].add(counts, documents)
        self.counted.add_sizes(batch)
        if self._n_bytes() > self._most:
            self._relieve()
        if sum(self.counted.n_bytes) - self._saved >= SAVE_BYTES:
            self.spill()

    def _n_bytes(self) -> int:
        return sum(tally.n_bytes for tallies in self._tallies.values() for tally in tallies)

    def _relieve(self) -> None:
        """Make room: drop the rarest segments, or spill them all."""
        if not self._prune:
            self.spill()
            return
        share = self._most / 2 / max(1, self._n_bytes())
        for name, tallies in self._tallies.items():
            before = sum(sum(tally.counts.values()) for tally in tallies)
            bound = max(tally.drop_rarest(int(share * tally.n_bytes)) for tally in tallies)
            after = sum(sum(tally.counts.values()) for tally in tallies)
            dropped, bounds = self._state.dropped, self._state.bounds
            dropped[name] = dropped.get(name, 0) + before - after
            bounds[name] = bounds.get(name, 0) + bound

    def spill(self) -> None:
        """Write all counts as a run, and say in the state that it is there."""
        if not self._n_bytes():
            return
        folder = self._work / f"{self._state.n_runs:06d}"
        folder.mkdir(parents=True, exist_ok=True)
        for name, tallies in self._tallies.items():
            for part, tally in enumerate(tallies):
                tally.write_run(folder / _run_name(name, part))
                tallies[part] = Tally()
        sync_tree(folder)
        counted, state = self.counted, self._state
        state.n_runs += 1
        state.chain, state.seen = counted.chain, counted.seen.to_text()
        state.sizes = {
            "bytes": counted.n_bytes,
            "documents": counted.n_documents,
            "lines": counted.n_lines,
        }
        with whole_file(self._work / STATE) as file:
            file.write(json.dumps(asdict(state)).encode())
        self._saved = sum(counted.n_bytes)

    def runs_of(self, name: str, part: int) -> list[Path]:
        """Return the runs of a table's part."""
        return [
            self._work / f"{number:06d}" / _run_name(name, part)
            for number in range(self._state.n_runs)
        ]


def _run_name(name: str, part: int) -> str:
    return f"{name}-{part:02d}.arrow"


def _resume(work: Path, settings: Mapping[str, Any]) -> _State:
    """Return the state that a run left, or a new one."""
    asked = json.loads(json.dumps(settings))
    if not work.exists():
        return _State(asked)
    if not (work / STATE).is_file():
        if any(not path.is_dir() or len(path.name) != 6 for path in work.iterdir()):
            raise OutputExistsError(f"{work} holds no work of ours: remove it, or rename it")
        return _State(asked)  # a run that ended before its first state
    with reading(work / STATE, f"remove {work}", CorpusError):
        kept = read_json(work / STATE)
        saved = _State(**kept | {"chain": Chain(**kept["chain"])})
    if saved.settings != asked:
        raise CorpusError(f"{work} holds work of other settings: remove it, or give another output")
    return saved
