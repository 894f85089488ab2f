"""Which target row is which source row, and how we know.

Tokens of text are matched by exact bytes. Of several source ids with these bytes, ids of the same
kind come first (a letter before a byte-fallback token), then the id that the tokenizer emits.
Controls are matched by spelling and role, never by bytes. The rows themselves are not read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from tokensurgeon.arrays import Ids
from tokensurgeon.errors import AlignmentError
from tokensurgeon.vocabulary import Kind, Vocabulary
from tokensurgeon.vocabulary.controls import match_controls, silence_aliases, split_roles

_N_EXAMPLES = 5
"""Duplicates that a report shows of each side."""


class Match(IntEnum):
    """How a target token was matched with a source token."""

    NONE = 0
    EXACT = 1
    """Bytes, kind and spelling are equal."""
    BYTE = 2
    """Bytes are equal."""
    CONTROL = 3
    """A control of the same spelling or role."""
    NORMALISED = 4
    """Equal only after the source's normalisation: other case, accents or space."""
    MAP = 5
    """By the mapping of the user."""


@dataclass(frozen=True)
class Duplicates:
    """Ids of equal bytes within one vocabulary.

    Attributes
    ----------
    side : 'source' or 'target'
    count : int
        Byte strings with more than one id.
    examples : tuple of (bytes, ids)
    """

    side: str
    count: int
    examples: tuple[tuple[bytes, tuple[int, ...]], ...]


@dataclass(frozen=True)
class Alignment:
    """Which source row belongs to which target id. Arrays are read-only.

    Attributes
    ----------
    source, target : Vocabulary
    source_ids : int64 (n_target,)
        Source row for the input side of each target id, -1 where there is none. For an identity,
        holes have their own id.
    output_source_ids : int64 (n_target,)
        The same for the output side. It differs in two cases. Where several target ids of equal
        bytes (or several controls) have one source row, only the one that is emitted keeps it; the
        others have -1, and their output rows will be suppressed. Where one target id is both bos
        and eos and the source has two ids, the input row is that of bos, the output row that of
        eos.
    match : uint8 (n_target,)
        A `Match` per target id.
    shared : int64
        Target ids with a match.
    missing : int64
        Ordinary and byte tokens without one.
    unmatched_controls : int64
        Control and unused ids without one.
    padding : int64
        Target ids that have no token.
    duplicates : tuple of Duplicates
        One per side.
    collisions : mapping of int to tuple of int
        Source ids that several target ids are matched with.
    warnings : tuple of str
    is_identity : bool
        The same table with the same ids.
    is_permutation : bool
        The source's vocabulary with other ids.
    """

    source: Vocabulary
    target: Vocabulary
    source_ids: Ids
    output_source_ids: Ids
    match: npt.NDArray[np.uint8]
    duplicates: tuple[Duplicates, ...]
    collisions: Mapping[int, tuple[int, ...]]
    warnings: tuple[str, ...]
    is_identity: bool
    is_permutation: bool

    @property
    def n_source(self) -> int:
        """Rows of the source vocabulary."""
        return self.source.n_rows

    @property
    def n_target(self) -> int:
        """Rows of the target vocabulary."""
        return self.target.n_rows

    @cached_property
    def shared(self) -> Ids:
        """Target ids with a match, ascending."""
        return np.flatnonzero(self.match != Match.NONE).astype(np.int64)

    def _without(self, *kinds: Kind) -> Ids:
        wanted = np.isin(self.target.kinds, kinds) & (self.match == Match.NONE)
        return np.flatnonzero(wanted).astype(np.int64)

    @cached_property
    def missing(self) -> Ids:
        """Ordinary and byte tokens of the target without a match, ascending."""
        return self._without(Kind.ORDINARY, Kind.BYTE)

    @cached_property
    def unmatched_controls(self) -> Ids:
        """Control and unused ids of the target without a match, ascending."""
        return self._without(Kind.CONTROL, Kind.UNUSED)

    @cached_property
    def padding(self) -> Ids:
        """Target ids without a token, ascending."""
        return np.flatnonzero(self.target.kinds == Kind.PADDING).astype(np.int64)

    def with_matches(self, source_ids: Ids, match: npt.NDArray[np.uint8], note: str) -> Alignment:
        """Return the alignment with some matches removed, and a warning that says so.

        Where `source_ids` is -1, the output side becomes -1 too.
        """
        return replace(
            self,
            source_ids=_frozen(source_ids),
            output_source_ids=_frozen(np.where(source_ids < 0, -1, self.output_source_ids)),
            match=_frozen(match),
            collisions=_collisions(source_ids, match),
            warnings=(*self.warnings, note),
            is_identity=self.is_identity and np.array_equal(source_ids, self.source_ids),
            is_permutation=self.is_permutation and np.array_equal(source_ids, self.source_ids),
        )

    def summary(self) -> dict[str, Any]:
        """Return counts and facts as JSON values, for reports and `align --json`."""
        counts = Counter(self.match.tolist())
        n_text = int(np.isin(self.target.kinds, (Kind.ORDINARY, Kind.BYTE)).sum())
        n_shared = n_text - len(self.missing)
        return {
            "source_rows": self.n_source,
            "target_rows": self.n_target,
            "shared": len(self.shared),
            "missing": len(self.missing),
            "unmatched_controls": len(self.unmatched_controls),
            "padding": len(self.padding),
            "by_match": {m.name.lower(): counts[m] for m in Match if m is not Match.NONE},
            "text_tokens": n_text,
            "shared_text_tokens": n_shared,
            "matched_controls": len(self.shared) - n_shared,
            "share_of_text_tokens": n_shared / n_text if n_text else 0.0,
            "is_identity": self.is_identity,
            "is_permutation": self.is_permutation,
            "collisions": len(self.collisions),
            "duplicates": {side.side: side.count for side in self.duplicates},
            "number_schemes": {
                "source": self.source.number_scheme,
                "target": self.target.number_scheme,
            },
            "warnings": list(self.warnings),
        }


def align(
    source: Vocabulary, target: Vocabulary, mapping: Mapping[str, str] | None = None
) -> Alignment:
    """Match each target id with a source row.

    Parameters
    ----------
    source, target : Vocabulary
    mapping : mapping of str to str, optional
        Target spelling → source spelling. It takes precedence over every other match.

    Raises
    ------
    UnknownNameError
        If `mapping` names a spelling that does not exist; the message suggests the nearest one.
    AlignmentError
        If `mapping` names an id without a token.

    Examples
    --------
    >>> from importlib.resources import files
    >>> from tokensurgeon.vocabulary import load_vocabulary
    >>> demo = files("tokensurgeon") / "data"  # the tiny models that `tokensurgeon demo` uses
    >>> alignment = align(load_vocabulary(demo / "source"), load_vocabulary(demo / "donor"))
    >>> len(alignment.shared), len(alignment.missing)
    (3223, 2920)
    """
    source_ids = np.full(target.n_rows, -1, dtype=np.int64)
    match = np.zeros(target.n_rows, dtype=np.uint8)
    same = _same_table(source, target)
    if same is not None:
        source_ids, match = same
    else:
        _match_text(source, target, source_ids, match)
        controls = match_controls(source, target)
        source_ids[list(controls)] = list(controls.values())
        match[list(controls)] = Match.CONTROL
        _match_normalised(source, target, source_ids, match)
    is_identity = same is not None and np.array_equal(source_ids, np.arange(target.n_rows))
    for target_spelling, source_spelling in (mapping or {}).items():
        target_id = _mapped_id(target, target_spelling, "target")
        source_id = _mapped_id(source, source_spelling, "source")
        if source_ids[target_id] != source_id:
            source_ids[target_id], match[target_id] = source_id, Match.MAP
            is_identity, same = False, None
    output_ids = source_ids.copy()
    notes = split_roles(source, target, source_ids, output_ids) if same is None else []
    collisions = _collisions(source_ids, match)
    silence_aliases(source, target, collisions, output_ids)
    return Alignment(
        source=source,
        target=target,
        source_ids=_frozen(source_ids),
        output_source_ids=_frozen(output_ids),
        match=_frozen(match),
        duplicates=(_duplicates(source, "source"), _duplicates(target, "target")),
        collisions=collisions,
        warnings=(*source.notes, *target.notes, *_warnings(source, target, match), *notes),
        is_identity=is_identity,
        is_permutation=same is not None and not is_identity,
    )


_Array = TypeVar("_Array", bound=npt.NDArray[Any])


def _frozen(array: _Array) -> _Array:
    array.flags.writeable = False
    return array


def _same_table(source: Vocabulary, target: Vocabulary) -> tuple[Ids, npt.NDArray[np.uint8]] | None:
    """Return ids and matches if both vocabularies have the same tokens, in any order; else None."""

    def entries(vocabulary: Vocabulary) -> dict[tuple[Any, ...], list[int]]:
        table: dict[tuple[Any, ...], list[int]] = {}
        for i, spelling in enumerate(vocabulary.spellings):
            if spelling is not None:
                key = (spelling, int(vocabulary.kinds[i]), vocabulary.token_bytes[i])
                table.setdefault(key, []).append(i)
        return table

    if set(source.spellings) != set(target.spellings):
        return None
    in_source = entries(source)
    in_target = entries(target)
    if in_source.keys() != in_target.keys():
        return None
    source_ids = np.full(target.n_rows, -1, dtype=np.int64)
    match = np.zeros(target.n_rows, dtype=np.uint8)
    for key, ids in in_target.items():
        if len(in_source[key]) != len(ids):
            return None
        source_ids[ids] = in_source[key]
        match[ids] = Match.EXACT
    tokens = np.flatnonzero(match)
    if source.n_rows == target.n_rows and np.array_equal(source_ids[tokens], tokens):
        source_ids = np.arange(target.n_rows, dtype=np.int64)
    return source_ids, match


def _match_text(
    source: Vocabulary, target: Vocabulary, source_ids: Ids, match: npt.NDArray[np.uint8]
) -> None:
    """Match ordinary and byte tokens by bytes: ids of the same kind first, then the one emitted."""
    source_kinds, target_kinds = source.kinds.tolist(), target.kinds.tolist()
    for i, data in enumerate(target.token_bytes):
        candidates = source.ids_of_bytes(data) if data is not None else ()
        if data is None or not candidates:
            continue
        same_kind = tuple(j for j in candidates if source_kinds[j] == target_kinds[i])
        same_spelling = [j for j in same_kind if source.spellings[j] == target.spellings[i]]
        if same_spelling:
            source_ids[i], match[i] = same_spelling[0], Match.EXACT
            continue
        candidates = same_kind or candidates
        if len(candidates) > 1:
            candidates = tuple(j for j in source.preferred_ids(data) if j in candidates)
        source_ids[i], match[i] = candidates[0], Match.BYTE


def _match_normalised(
    source: Vocabulary, target: Vocabulary, source_ids: Ids, match: npt.NDArray[np.uint8]
) -> None:
    """Match what equals a source token only after the source's normalisation."""
    unmatched = (match == Match.NONE) & (target.kinds == Kind.ORDINARY)
    for i in np.flatnonzero(unmatched).tolist():
        data = target.token_bytes[i] or b""
        near = source.near_pieces_of(data)
        if near is not None and len(near) == 1 and source.token_bytes[near[0]] != data:
            source_ids[i], match[i] = near[0], Match.NORMALISED


def _mapped_id(vocabulary: Vocabulary, spelling: str, side: str) -> int:
    token = vocabulary.require_id(spelling)
    if vocabulary.kinds[token] == Kind.PADDING:
        raise AlignmentError(f"--map names {spelling!r}, a {side} id without a token; name another")
    return token


def _collisions(source_ids: Ids, match: npt.NDArray[np.uint8]) -> dict[int, tuple[int, ...]]:
    """Return the source ids that several target ids are matched with, with those target ids."""
    matched = np.flatnonzero(match != Match.NONE)
    order = matched[np.argsort(source_ids[matched], kind="stable")]
    values, starts, counts = np.unique(source_ids[order], return_index=True, return_counts=True)
    return {
        int(value): tuple(order[start : start + count].tolist())
        for value, start, count in zip(values, starts, counts, strict=True)
        if count > 1
    }


def _duplicates(vocabulary: Vocabulary, side: str) -> Duplicates:
    repeated = sorted(vocabulary.repeated_bytes().items())
    return Duplicates(side, len(repeated), tuple(repeated[:_N_EXAMPLES]))


def _warnings(
    source: Vocabulary, target: Vocabulary, match: npt.NDArray[np.uint8]
) -> tuple[str, ...]:
    """Return one line for each fact about the pair that a user should know."""
    lines: list[str] = []
    if source.number_scheme != target.number_scheme:
        lines.append(
            f"digit runs are cut as {source.number_scheme!r} in the source and "
            f"{target.number_scheme!r} in the target: arithmetic will suffer"
        )
    for side, vocabulary in (("source", source), ("target", target)):
        facts = vocabulary.segmentation
        if facts["lower_cases"]:
            lines.append(f"the {side} lower-cases text: its losses are not comparable")
        elif not facts["lossless"]:
            lines.append(f"the {side} loses text (normalisation or unknown tokens)")
        if facts["byte_coverage"] < 256:
            lines.append(f"the {side} can write {facts['byte_coverage']} of 256 byte values")
    n_normalised = int((match == Match.NORMALISED).sum())
    if n_normalised:
        lines.append(
            f"{n_normalised} tokens equal a source token only after its normalisation "
            "(case, accents or space)"
        )
    return tuple(lines)
