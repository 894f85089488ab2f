"""The counts of a corpus, in memory and in a file from which an interrupted count continues."""

from __future__ import annotations

import codecs
import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokensurgeon.errors import CorpusError, reading
from tokensurgeon.outputs import check_file, output_path, whole_file
from tokensurgeon.text.corpus import Document
from tokensurgeon.text.seen import NOTHING_SEEN, Seen
from tokensurgeon.trainers.counting.cutters import Cutter
from tokensurgeon.trainers.counting.held_out import HeldOut
from tokensurgeon.trainers.counting.streams import Batch, Chain, Stream

Table = Counter[str]


@dataclass(frozen=True)
class LeftOut:
    """Segments of a stored table that a training did not read: all or most below some weight.

    Attributes
    ----------
    below : int
        The least weight that was read; nothing was left out if it is 1.
    segments, weight : int
        How many, and what they weigh together; nothing where others stand for them.
    pairs : int
        How often the two bytes that stand beside each other most often in them do. The count of a
        pair of tokens is too low by no more, at any merge: wherever it occurs, the last byte of
        one stands beside the first of the other. 0 where others stand for them.
    one_in : int
        One in so many of the segments below was read, and weighed as many times as much; 0 if none
        was. The count of a pair that occurs m times in them, each of weight w, is then right within
        a standard error of the square root of w · m · (one_in - 1).
    """

    below: int = 1
    segments: int = 0
    weight: int = 0
    pairs: int = 0
    one_in: int = 0

    def plus(self, other: LeftOut, factor: float = 1.0) -> LeftOut:
        """Return this with what was left out of another part, whose weights are multiplied."""
        return LeftOut(
            max(self.below, other.below),
            self.segments + other.segments,
            self.weight + round(factor * other.weight),
            self.pairs + math.ceil(factor * other.pairs),
            max(self.one_in, other.one_in),
        )

    def to_dict(self) -> dict[str, int]:
        """Return what a card says."""
        known = {"below": self.below, "segments": self.segments}
        if self.one_in:
            return known | {"one_in": self.one_in}
        return known | {"occurrences": self.weight, "pair_too_low_by": self.pairs}


@dataclass
class Counted:
    """The counts of segments, and facts about the text.

    Attributes
    ----------
    parts : tuple of str
        Names of the parts of the corpus.
    tables : dict of str to list of Counter
        By name of the cutter, one table for each part: how often each segment occurs, or in how
        many documents.
    n_bytes, n_documents, n_lines : list of int
        Size of the counted text, by part.
    held_out : dict of str to list of Document
        Documents that were not counted, by part.
    sha256 : str
        Hash of all documents read, each followed by a byte 0xFF.
    chain : Chain
        The documents that were counted, in their order.
    files : list of str
    n_replaced : int
        Number of U+FFFD that replace bytes outside UTF-8.
    dropped : dict of str to int
        By cutter, occurrences of segments that were dropped to bound the memory.
    left_out : dict of str to LeftOut
        By cutter, segments of stored tables that did not fit into memory.
    seen : Seen
        Hashes of the counted lines.
    """

    parts: tuple[str, ...]
    tables: dict[str, list[Table]]
    n_bytes: list[int]
    n_documents: list[int]
    n_lines: list[int]
    held_out: dict[str, list[Document]] = field(default_factory=dict)
    sha256: str = ""
    chain: Chain = field(default_factory=Chain)
    files: list[str] = field(default_factory=list)
    n_replaced: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, LeftOut] = field(default_factory=dict)
    seen: Seen = NOTHING_SEEN

    def add_sizes(self, batch: Batch) -> None:
        """Count the bytes, lines and documents of a batch."""
        self.n_bytes[batch.part] += batch.n_bytes
        self.n_documents[batch.part] += len(batch.texts)
        self.n_lines[batch.part] += sum(text.count("\n") for text in batch.texts)
        self.chain = self.chain.plus(batch.hashes)

    def close(self, stream: Stream, held_out: HeldOut | None) -> None:
        """Take over what a stream that is read to its end knows of the text."""
        self.sha256, self.n_replaced = stream.sha256, stream.n_replaced
        self.files = list(stream.files)
        if held_out is not None:
            self.held_out = held_out.documents

    def facts(self) -> dict[str, Any]:
        """Return the facts that a card states about the text."""
        held = [document for part in self.held_out.values() for document in part]
        left_out = {name: one.to_dict() for name, one in self.left_out.items() if one.segments}
        return {
            "sha256": self.sha256,
            "bytes": sum(self.n_bytes) + sum(document.n_bytes for document in held),
            "documents": sum(self.n_documents) + len(held),
            "replaced_characters": self.n_replaced,
            "files": self.files,
            "parts": {
                name: {"bytes": n_bytes, "documents": n}
                for name, n_bytes, n in zip(self.parts, self.n_bytes, self.n_documents, strict=True)
            },
            "dropped_occurrences": self.dropped,
            **({"left_out": left_out} if left_out else {}),
        }


def load_counts(path: str | Path | None, cutters: Mapping[str, Cutter], counted: Counted) -> None:
    """Fill `counted` from a file if there is one."""
    if path is None:
        return
    path = check_file(path, force=True, make_parent=True)
    if not path.exists():
        return
    try:
        saved = json.loads(path.read_text("utf-8"))
        same = saved["cutters"] == _names(cutters) and tuple(saved["parts"]) == counted.parts
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CorpusError(f"{path} holds no counts; take another file") from error
    if not same:
        raise CorpusError(
            f"the counts in {path} are of another method, cut or mixture; remove the file"
        )
    with reading(path, "remove it", CorpusError):
        counted.tables = {
            name: [Counter({key: int(n) for key, n in table.items()}) for table in by_part]
            for name, by_part in saved["tables"].items()
        }
        sizes = ([int(n) for n in saved[name]] for name in ("bytes", "documents", "lines"))
        counted.n_bytes, counted.n_documents, counted.n_lines = sizes
        counted.dropped = {name: int(n) for name, n in saved["dropped"].items()}
        counted.chain = Chain(sum(counted.n_documents), bytes.fromhex(saved["chain"]).hex())
        counted.seen = Seen.of_text(saved["seen"])
        counts: list[list[Any]] = [counted.tables[name] for name in cutters]
        counts += [counted.n_bytes, counted.n_documents, counted.n_lines]
        if any(len(one) != len(counted.parts) for one in counts):
            raise ValueError("not every part has its counts")


def save_counts(path: str | Path, cutters: Mapping[str, Cutter], counted: Counted) -> None:
    """Write the whole file, or leave the earlier one as it is."""
    path = output_path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as file:
        json.dump(
            {
                "cutters": _names(cutters),
                "parts": counted.parts,
                "tables": counted.tables,
                "bytes": counted.n_bytes,
                "documents": counted.n_documents,
                "lines": counted.n_lines,
                "dropped": counted.dropped,
                "chain": counted.chain.link,
                "seen": counted.seen.to_text(),
            },
            codecs.getwriter("utf-8")(file),
            ensure_ascii=False,
        )


def _names(cutters: Mapping[str, Cutter]) -> dict[str, str]:
    return {name: repr(cutter) for name, cutter in cutters.items()}
