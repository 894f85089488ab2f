"""How the controls of two vocabularies correspond, and which of several ids keeps an output row.

Controls are matched by spelling and role, never by bytes. Text is `tokensurgeon.alignment`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tokensurgeon.vocabulary.kinds import STANDARD_ROLES, Kind

if TYPE_CHECKING:
    from tokensurgeon.vocabulary.vocabulary import Vocabulary

Ids = npt.NDArray[np.int64]

# Which of several roles of one id says where its output row comes from: eos is what models emit.
_OUTPUT_ORDER = ("eos", "sep", "bos", "cls", "mask", "unk", "pad")


def match_controls(source: Vocabulary, target: Vocabulary) -> dict[int, int]:
    """Return target id → source id: by spelling, then by role, then by the marker's name.

    Spelling goes first: <|im_end|> stays itself where a chat tokenizer makes it the eos.
    """
    matches: dict[int, int] = {}
    for i in np.flatnonzero(np.isin(target.kinds, (Kind.CONTROL, Kind.UNUSED))).tolist():
        found = source.id_of(target.spellings[i] or "")
        if found is None or source.kinds[found] not in (Kind.CONTROL, Kind.UNUSED):
            found = None
            names = target.role_of.get(i, ())
            for role in sorted(names, key=_role_rank):
                candidate = source.roles.get(role)
                if candidate is not None:
                    found = candidate
                    break
        if found is not None:
            matches[i] = found
    return matches


def _role_rank(role: str) -> int:
    return STANDARD_ROLES.index(role) if role in STANDARD_ROLES else len(STANDARD_ROLES)


def split_roles(
    source: Vocabulary, target: Vocabulary, source_ids: Ids, output_ids: Ids
) -> list[str]:
    """Give an id with several roles the output row of the role that is emitted; note it."""
    notes = []
    for i, roles in target.role_of.items():
        standard = [role for role in roles if role in STANDARD_ROLES]
        theirs = {role: source.roles[role] for role in standard if role in source.roles}
        if len(set(theirs.values())) < 2 or source_ids[i] not in theirs.values():
            continue
        emitted = next(role for role in _OUTPUT_ORDER if role in theirs)
        if theirs[emitted] != source_ids[i] and emitted == "eos":
            output_ids[i] = theirs[emitted]
        names = " = ".join(theirs)
        spelled = ", ".join(repr(source.spellings[theirs[role]]) for role in theirs)
        notes.append(
            f"the target's {target.spellings[i]!r} is {names}, separate ids in the source "
            f"({spelled}): input row of {source.spellings[int(source_ids[i])]!r}, output row of "
            f"{source.spellings[int(output_ids[i])]!r}"
        )
    bos, eos = source.bos_id, source.eos_id
    if bos is not None and bos == eos and target.bos_id != target.eos_id:
        both = [t for t in (target.bos_id, target.eos_id) if t is not None and source_ids[t] == bos]
        if len(both) == 2:
            notes.append(
                f"bos and eos are one id in the source ({source.spellings[bos]!r}) and two in the "
                "target: both have its input row, only eos its output row"
            )
    return notes


def silence_aliases(
    source: Vocabulary,
    target: Vocabulary,
    collisions: Mapping[int, tuple[int, ...]],
    output_ids: Ids,
) -> None:
    """Leave the output row to one of several ids that mean the same, or mass would be doubled.

    Ids of different bytes that only normalisation made one (" The" and " the") all keep it.
    """
    for source_id, ids in collisions.items():
        owner = _owner(source, target, source_id, ids)
        for i in ids:
            same = target.token_bytes[i] == target.token_bytes[owner]
            if i != owner and same and output_ids[i] == source_id:
                output_ids[i] = -1


def _owner(source: Vocabulary, target: Vocabulary, source_id: int, ids: tuple[int, ...]) -> int:
    """Return the target id that is emitted where the source emits `source_id`."""
    data = source.token_bytes[source_id]
    if data is not None:
        exact = [i for i in ids if target.token_bytes[i] == data]
        if exact:
            ranked = target.preferred_ids(data)
            return min(exact, key=ranked.index)
        return min(ids, key=lambda i: (target.spellings[i] or "", i))

    def rank(i: int) -> tuple[int, int, str]:
        roles = [r for r in _OUTPUT_ORDER if r in target.role_of.get(i, ())]
        theirs = source.role_of.get(source_id, ())
        same = [r for r in roles if r in theirs]
        spelled = target.spellings[i] == source.spellings[source_id]
        position = min((_OUTPUT_ORDER.index(r) for r in same), default=len(_OUTPUT_ORDER))
        return (position, int(not spelled), target.spellings[i] or "")

    return min(ids, key=rank)
