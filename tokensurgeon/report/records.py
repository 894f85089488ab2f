"""The records beside a patched checkpoint, read back: which row came from where.

`Records.explain` answers for one token; a surgery writes the files into ``surgery/``.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from tokensurgeon.checkpoint.files import MAX_JSON
from tokensurgeon.errors import CheckpointError, UnknownNameError, reading
from tokensurgeon.report import words
from tokensurgeon.report.surgery_report import SurgeryReport
from tokensurgeon.vocabulary import load_vocabulary

FOLDER = "surgery"
"""Of a patched checkpoint, where the records are."""
REPORT = "report.json"
"""Of a patched checkpoint, what was done."""
AGAIN = "transplant again"
"""What helps where they are damaged."""
ORIGINS = {
    "copied": "copied bit for bit",
    "initialised": "made by {method}",
    "recalibrated": "copied, then changed by calibration",
    "unspellable": "a fallback row: nothing spells the token",
    "control": "a fallback row: a control token without a counterpart",
    "padding": "a fallback row: no token has this id",
    "alias": "a fallback row: another id stands for the same and is the one that is emitted",
    "unreached": "a fallback row: never written, for digits are cut as in the source",
}
"""Where a row came from, by its name in the records."""
MOST_UNPACKED = 4 << 30
"""Bytes of the weights of one side: those of a million rows that are sums of 300 each."""
LEAST_REST = 0.01
"""Share of a row's norm below which what no weight says is rounding and gets no line."""


@dataclass(frozen=True)
class SideRow:
    """One side of one row: its origin, its method, and its largest weights over source tokens.

    `weights` holds (source id, spelling, weight), the largest magnitude first; `n_weights` counts
    all of them. `rest` is the share of the row's norm that the weights do not say.
    """

    side: str
    origin: str
    method: str | None
    weights: tuple[tuple[int, str | None, float], ...]
    n_weights: int
    rest: float = 0.0


@dataclass(frozen=True)
class RowStory:
    """Where the row of one target token came from.

    `match` names how a source token was found for it ("none" where there is none), `source_id`
    that token, `pieces` the (id, spelling) that spell a missing token.
    """

    id: int
    spelling: str | None
    match: str
    source_id: int | None
    source_spelling: str | None
    pieces: tuple[tuple[int, str | None], ...]
    sides: tuple[SideRow, ...]


def read_weights(path: Path) -> sp.csr_array:
    """Read how rows are sums of source rows, csr_array of float32 (n_rows, n_source).

    Raises
    ------
    CheckpointError
        If the file is missing, no such array, or says more than a file of its size can.
    """
    try:
        # From memory: numpy leaves the file open where its content is not an archive.
        data = io.BytesIO(path.read_bytes())
        with zipfile.ZipFile(data) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > MOST_UNPACKED:
                raise ValueError("too large")
        weights = sp.csr_array(sp.load_npz(data))
        weights.check_format(full_check=True)  # an index past the matrix is read past its memory
    except (OSError, EOFError, ValueError, KeyError, TypeError, NotImplementedError,
            zipfile.BadZipFile, zlib.error) as error:  # fmt: skip
        raise CheckpointError(f"{path} is missing or damaged: transplant again") from error
    return weights


def largest_weights(
    weights: sp.csr_array, token_id: int, top: int
) -> tuple[list[tuple[int, float]], int]:
    """Return the (source id, weight) of largest magnitude of a row, and how many it has."""
    row = weights[[token_id]].tocoo()
    order = np.lexsort((row.col, -np.abs(row.data)))
    return [(int(row.col[i]), float(row.data[i])) for i in order[:top]], len(order)


class Records:
    """The records of one patched checkpoint.

    Raises
    ------
    CheckpointError
        If the folder has none, or they are damaged.
    """

    def __init__(self, checkpoint: str | Path) -> None:
        self.checkpoint = Path(checkpoint)
        path = self.checkpoint / FOLDER / "tokens.json"
        if not path.is_file():
            raise CheckpointError(
                f"{checkpoint} has no {FOLDER}/tokens.json: it was not written by "
                "`tokensurgeon transplant`; give a folder that was"
            )
        self._path = path
        with reading(path, AGAIN):
            self.tokens: dict[str, Any] = json.loads(path.read_text("utf-8"))
            self.spellings = _spellings(self.tokens["target"])
            self.source = _spellings(self.tokens["source"])

    def find(self, token: str, kind: str = "any") -> int:
        """Return the id that `token` names.

        Parameters
        ----------
        token : str
        kind : str
            ``id``, ``spelling`` or ``text`` (whose bytes are one token); ``any`` tries them in
            this order.

        Raises
        ------
        UnknownNameError
            If it names none.
        """
        n = len(self.spellings)
        if kind in ("any", "id") and token.isascii() and token.isdecimal():
            if int(token) < n and self.spellings[int(token)] is not None:
                return int(token)
            if kind == "id":
                raise UnknownNameError(f"no token has id {token}; the last id is {n - 1}")
        if kind in ("any", "spelling") and token in self.spellings:
            return self.spellings.index(token)
        if kind in ("any", "text") and token:
            vocabulary = load_vocabulary(self.checkpoint)
            data = token.encode("utf-8", "surrogateescape")
            token_id = vocabulary.emits(data)
            if token_id is None:
                token_id = next(iter(vocabulary.ids_of_bytes(data)), None)
            if token_id is not None:
                return token_id
        raise UnknownNameError(
            f"{token!r} is no id, no spelling and not the text of one token; give one of the "
            f"tokenizer's {sum(s is not None for s in self.spellings):,}"
        )

    def explain(self, token_id: int, top: int = 8) -> RowStory:
        """Return where the row of a token came from, with its `top` largest weights per side."""
        sides = [("input", "input"), ("output", "output")]
        if self.tokens.get("tied"):
            sides = [("input", "both")]
        with reading(self._path, AGAIN):
            source_id = int(self.tokens["source_ids"][token_id])
            pieces = self.tokens.get("pieces", {}).get(str(token_id), [])
            return RowStory(
                id=token_id,
                spelling=self.spellings[token_id],
                match=str(self.tokens["match"][token_id]),
                source_id=None if source_id < 0 else source_id,
                source_spelling=self._spelling(source_id),
                pieces=tuple((int(piece), self._spelling(int(piece))) for piece in pieces),
                sides=tuple(self._side(key, label, token_id, top) for key, label in sides),
            )

    def _side(self, key: str, label: str, token_id: int, top: int) -> SideRow:
        facts = self.tokens[key]
        weights = self._weights(key)
        largest, n_weights = largest_weights(weights, token_id, top)
        listed = tuple((i, self._spelling(i), weight) for i, weight in largest)
        origin = str(facts["origin"][token_id])
        method = str(facts["method"]) if origin == "initialised" else None
        rest = float(facts.get("rest", [0.0] * (token_id + 1))[token_id])
        return SideRow(label, origin, method, listed, n_weights, rest)

    def _weights(self, side: str) -> sp.csr_array:
        return read_weights(self.checkpoint / FOLDER / f"{side}_weights.npz")

    def _spelling(self, source_id: int) -> str | None:
        return self.source[source_id] if 0 <= source_id < len(self.source) else None


def read_report(folder: Path) -> SurgeryReport:
    """Read the report of a finished checkpoint.

    Raises
    ------
    CheckpointError
        If the folder has none, or one that cannot be read.
    """
    return SurgeryReport.from_json(_bounded(folder / REPORT), str(folder / REPORT))


def unreadable(folder: Path) -> list[str]:
    """Return what is wrong with the report and the records of a checkpoint, one line each."""
    problems = []
    for path, read in (
        (folder / REPORT, lambda path: read_report(path.parent)),
        (folder / FOLDER / "tokens.json", lambda path: Records(folder)),
        (folder / FOLDER / "input_weights.npz", read_weights),
        (folder / FOLDER / "output_weights.npz", read_weights),
    ):
        try:
            if path.exists():
                read(path)
        except CheckpointError as error:
            problems.append(str(error))
    return problems


def _bounded(path: Path) -> bytes:
    if not path.is_file() or path.stat().st_size > MAX_JSON:
        raise CheckpointError(f"{path} is no report: transplant again")
    return path.read_bytes()


def _spellings(value: object) -> list[str | None]:
    """Return a list of spellings, or raise a ValueError."""
    if not isinstance(value, list) or not all(isinstance(one, str | None) for one in value):
        raise ValueError("its tokens are no list of spellings")
    return value


def story_lines(story: RowStory) -> list[str]:
    """Say where a row came from, a fact a line."""
    match = f"match: {story.match} ({words.MATCHES.get(story.match, 'as the report says')})"
    if story.source_id is not None:
        match += f", source token {story.source_spelling!r}, id {story.source_id}"
    lines = [f"{story.spelling!r}, id {story.id}", match]
    if story.pieces:
        lines.append(f"pieces: {' + '.join(repr(spelling) for _, spelling in story.pieces)}")
    for side in story.sides:
        origin = ORIGINS.get(side.origin, side.origin).format(method=side.method)
        lines.append(f"{side.side}: {origin}")
        if side.origin != "initialised":
            continue
        if not side.weights:
            lines.append("  not a sum of source rows")
            continue
        lines += [f"  {weight:+.4f}  {spelling!r} ({i})" for i, spelling, weight in side.weights]
        smaller = side.n_weights - len(side.weights)
        if smaller:
            lines.append(f"  and {smaller} smaller")
        if side.rest >= LEAST_REST:
            lines.append(f"  and what no weight says: {side.rest:.0%} of the row's norm")
    return lines
