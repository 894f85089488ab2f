"""Tables of counted segments as a folder: what every training on segments can start from.

::

    counts/
      counts.json                    what was counted, and how: the card
      held_out.jsonl                 documents that were not counted, to measure on
      seen.txt                       hashes of lines that were counted
      words/part-00/shard-00.parquet …  segment, count, documents

A shard holds the segments of one hash, ascending, each once. ``count`` says how often a segment
occurs and ``documents`` in how many documents, both unsigned 64-bit.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokensurgeon.errors import CorpusError, reading
from tokensurgeon.outputs.ownership import COUNTS, list_files
from tokensurgeon.text.corpus import Document
from tokensurgeon.text.seen import NOTHING_SEEN, SEEN_FILE, Seen
from tokensurgeon.trainers.counting.counted import Counted
from tokensurgeon.trainers.counting.cutters import Cutter
from tokensurgeon.trainers.counting.spills import (
    COUNT,
    DOCUMENTS,
    arrow,
    check_total,
)
from tokensurgeon.trainers.counting.stored import StoredTable, shard_name
from tokensurgeon.version import __version__
from tokensurgeon.vocabulary.reading import read_json

if TYPE_CHECKING:
    import pyarrow as pa

HELD_OUT = "held_out.jsonl"
PROCESS_BYTES = 160_000_000
"""Memory of a worker with a batch, and of a process without its counts, which take the rest."""


@dataclass(frozen=True)
class TableFacts:
    """What a card says of a table.

    Attributes
    ----------
    cutter : str
        What cut the text; see `cutter_name`.
    rows, occurrences : tuple of int
        By part of the corpus.
    dropped : int
        Occurrences of segments that were dropped.
    bound : int
        By how much a count may be too low for that: a segment that is not in the table occurred no
        more often.
    """

    cutter: str
    rows: tuple[int, ...] = ()
    occurrences: tuple[int, ...] = ()
    dropped: int = 0
    bound: int = 0


@dataclass(frozen=True)
class CountTables:
    """A folder of tables.

    Attributes
    ----------
    path : Path
    tables : dict of str to TableFacts
    counted : Counted
        Facts of the text, without tables.
    borders : tuple of str
        Strings that ended a document.
    control_strings : dict of str to int
        How often each did.
    settings : dict
        What the counting was asked for.
    """

    path: Path
    tables: dict[str, TableFacts]
    counted: Counted
    borders: tuple[str, ...] = ()
    control_strings: dict[str, int] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def open(cls, path: str | Path) -> CountTables:
        """Read the card of a folder.

        Raises
        ------
        CorpusError
            If it holds no counts, or its card is damaged.
        """
        path = Path(path)
        if not (path / COUNTS).is_file():
            raise CorpusError(
                f"{path} holds no {COUNTS}: give a folder that tokensurgeon count wrote"
            )
        with reading(path / COUNTS, "count again", CorpusError):
            card = read_json(path / COUNTS)
            parts, corpus = card["parts"], card["corpus"]
            tables = {
                name: TableFacts(
                    str(facts["cutter"]),
                    tuple(map(int, facts["rows"])),
                    tuple(map(int, facts["occurrences"])),
                    int(facts["dropped"]),
                    int(facts["bound"]),
                )
                for name, facts in card["tables"].items()
            }
            counted = Counted(
                tuple(str(part["name"]) for part in parts),
                {},
                n_bytes=[int(part["bytes"]) for part in parts],
                n_documents=[int(part["documents"]) for part in parts],
                n_lines=[int(part["lines"]) for part in parts],
                held_out=_read_held_out(path),
                sha256=str(corpus["sha256"]),
                files=list(map(str, corpus["files"])),
                n_replaced=int(corpus["replaced_characters"]),
                dropped={name: facts.dropped for name, facts in tables.items()},
                seen=Seen.load(path) or NOTHING_SEEN,
            )
            if any(len(facts.rows) != len(parts) for facts in tables.values()):
                raise ValueError("not every part has its rows")
            return cls(
                path,
                tables,
                counted,
                tuple(map(str, card["borders"])),
                {str(key): int(n) for key, n in corpus["control_strings"].items()},
                dict(card["settings"]),
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the card, without the list of files."""
        counted = self.counted
        sizes = zip(
            counted.parts, counted.n_bytes, counted.n_documents, counted.n_lines, strict=True
        )
        return {
            "schema_version": 1,
            "settings": self.settings,
            "tables": {name: vars(facts) for name, facts in self.tables.items()},
            "parts": [
                dict(zip(("name", "bytes", "documents", "lines"), one, strict=True))
                for one in sizes
            ],
            "borders": list(self.borders),
            "corpus": {
                "sha256": counted.sha256,
                "files": counted.files,
                "replaced_characters": counted.n_replaced,
                "control_strings": self.control_strings,
                "held_out_bytes": sum(
                    document.n_bytes for part in counted.held_out.values() for document in part
                ),
            },
        }

    def for_training(
        self, cutters: Mapping[str, Cutter], borders: Iterable[str], memory_gib: float
    ) -> Counted:
        """Return what a training counts with these cutters; each table is read when it is needed.

        Parameters
        ----------
        cutters : mapping of str to Cutter
        borders : iterable of str
            Strings that must have ended a document.
        memory_gib : float
            For the process with a table that is trained on, in GiB; of more segments than fit, the
            rarest are left out.

        Raises
        ------
        CorpusError
            If the text was cut otherwise, or not at one of these strings.
        """
        by_cutter = {facts.cutter: name for name, facts in self.tables.items()}
        lacking = [name for name, cutter in cutters.items() if cutter_name(cutter) not in by_cutter]
        if lacking:
            raise CorpusError(
                f"{self.path} has no {lacking[0]} cut as this training cuts them (it was counted "
                f"for {', '.join(map(str, self.settings.get('methods', ['nothing'])))}): count "
                "again, for this method and its pre-tokenizer"
            )
        for border in borders:
            if border not in self.borders:
                raise CorpusError(
                    f"no document of {self.path} ends at {border!r}, which is a control here: "
                    f"count again with --control '{border}'"
                )
        names = {name: by_cutter[cutter_name(cutter)] for name, cutter in cutters.items()}
        memory = memory_gib * 2**30
        memory -= min(PROCESS_BYTES, memory / 4)
        tables: dict[str, list[Any]] = {
            name: [
                StoredTable(
                    self.path / own / part_folder(part),
                    DOCUMENTS if cutters[name].once else COUNT,
                    int(memory / len(self.counted.parts)),
                )
                for part in range(len(self.counted.parts))
            ]
            for name, own in names.items()
        }
        dropped = {name: self.tables[own].dropped for name, own in names.items()}
        return replace(self.counted, tables=tables, dropped=dropped, left_out={})


class TableWriter:
    """Writes the tables of a folder, shard by shard, and then its card.

    Parameters
    ----------
    folder : Path
        An empty one.
    cutters : mapping of str to str
        By table, what cut the text.
    n_parts : int
    """

    def __init__(self, folder: Path, cutters: Mapping[str, str], n_parts: int) -> None:
        self._folder, self._cutters = folder, cutters
        self._rows = {name: [0] * n_parts for name in cutters}
        self._occurrences = {name: [0] * n_parts for name in cutters}
        for name in cutters:
            for part in range(n_parts):
                (folder / name / part_folder(part)).mkdir(parents=True)

    def write(self, name: str, part: int, shard: int, rows: pa.Table) -> None:
        """Write the rows of a shard."""
        arrow()
        from pyarrow import parquet

        path = self._folder / name / part_folder(part) / shard_name(shard)
        parquet.write_table(rows, path, compression="zstd", use_dictionary=False)
        self._rows[name][part] += len(rows)
        self._occurrences[name][part] += sum(rows[COUNT].to_pylist())
        check_total(name, self._occurrences[name][part])

    def close(
        self,
        tables: CountTables,
        dropped: Mapping[str, int] | None = None,
        bounds: Mapping[str, int] | None = None,
    ) -> CountTables:
        """Write the held-out text, the hashes of lines and the card; return what it says."""
        facts = {
            name: TableFacts(
                cutter,
                tuple(self._rows[name]),
                tuple(self._occurrences[name]),
                (dropped or {}).get(name, 0),
                (bounds or {}).get(name, 0),
            )
            for name, cutter in self._cutters.items()
        }
        tables = replace(tables, tables=facts)
        with (self._folder / HELD_OUT).open("w", encoding="utf-8", newline="\n") as file:
            for part, documents in tables.counted.held_out.items():
                for document in documents:
                    line = {"part": part, **vars(document)}
                    file.write(json.dumps(line, ensure_ascii=False) + "\n")
        (self._folder / SEEN_FILE).write_text(tables.counted.seen.to_text(), encoding="utf-8")
        card = tables.to_dict() | {
            "versions": {"tokensurgeon": __version__},
            "files": list_files(self._folder),
        }
        text = json.dumps(card, ensure_ascii=False, indent=2) + "\n"
        (self._folder / COUNTS).write_text(text, encoding="utf-8", newline="\n")
        return tables


def cutter_name(cutter: Cutter) -> str:
    """Return what tells a cutter from others that cut otherwise; how its segments count does not.

    Both are in a table: how often a segment occurs, and in how many documents.
    """
    return repr(replace(cutter, once=False))  # type: ignore[type-var]


def part_folder(part: int) -> str:
    """Return the name of the folder of a part."""
    return f"part-{part:02d}"


def _read_held_out(folder: Path) -> dict[str, list[Document]]:
    documents: dict[str, list[Document]] = {}
    path = folder / HELD_OUT
    for line in path.read_text("utf-8").split("\n") if path.is_file() else ():
        if line:
            facts = json.loads(line)
            document = Document(*(str(facts[key]) for key in ("text", "source", "file")))
            documents.setdefault(str(facts["part"]), []).append(document)
    return documents
