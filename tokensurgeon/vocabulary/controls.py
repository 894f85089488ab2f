"""How the controls of two vocabularies correspond, and which of several ids keeps an output row.

Controls are matched by spelling and role, never by bytes. Text is `tokensurgeon.alignment`'s.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tokensurgeon.arrays import Ids
from tokensurgeon.vocabulary.kinds import STANDARD_ROLES, Kind
from tokensurgeon.vocabulary.vocabulary import Vocabulary

_OUTPUT_ORDER = ("eos", "sep", "bos", "cls", "mask", "unk", "pad")
"""Where one id has several roles, its output row is that of the first of these: models emit eos."""


def match_controls(source: Vocabulary, target: Vocabulary) -> dict[int, int]:
    """Return target id → source id: by spelling, then by role, then by the marker's name.

    Spelling comes first, so that <|im_end|> matches itself where a chat tokenizer makes it the eos.
    """
    matches: dict[int, int] = {}
    for i in np.flatnonzero(np.isin(target.kinds, (Kind.CONTROL, Kind.UNUSED))).tolist():
        match = source.id_of(target.spellings[i] or "")
        if match is None or source.kinds[match] not in (Kind.CONTROL, Kind.UNUSED):
            own = target.role_of.get(i, ())
            common = (
                role for role in (*STANDARD_ROLES, *own) if role in own and role in source.roles
            )
            match = next((source.roles[role] for role in common), None)
        if match is not None:
            matches[i] = match
    return matches


def split_roles(
    source: Vocabulary, target: Vocabulary, source_ids: Ids, output_ids: Ids
) -> list[str]:
    """Give an id with several roles the output row of the role that models emit.

    Writes into `output_ids`; returns one note for each such id.
    """
    notes = []
    for i, roles in target.role_of.items():
        id_of_role = {
            role: source.roles[role]
            for role in roles
            if role in STANDARD_ROLES and role in source.roles
        }
        if len(set(id_of_role.values())) < 2 or source_ids[i] not in id_of_role.values():
            continue
        emitted = next(role for role in _OUTPUT_ORDER if role in id_of_role)
        if id_of_role[emitted] != source_ids[i] and emitted == "eos":
            output_ids[i] = id_of_role[emitted]
        names = " = ".join(id_of_role)
        spelled = ", ".join(repr(source.spellings[token]) for token in id_of_role.values())
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
    """Leave the output row to one of several ids of equal bytes: else its probability would double.

    Ids whose bytes differ before normalisation (" The" and " the") all keep it. Writes -1 into
    `output_ids` for the others.
    """
    for source_id, ids in collisions.items():
        emitted = _emitted(source, target, source_id, ids)
        for i in ids:
            same_bytes = target.token_bytes[i] == target.token_bytes[emitted]
            if i != emitted and same_bytes and output_ids[i] == source_id:
                output_ids[i] = -1


def _emitted(source: Vocabulary, target: Vocabulary, source_id: int, ids: tuple[int, ...]) -> int:
    """Return the target id that is emitted where the source emits `source_id`."""
    data = source.token_bytes[source_id]
    if data is not None:
        exact = [i for i in ids if target.token_bytes[i] == data]
        if exact:
            ranked = target.preferred_ids(data)
            return min(exact, key=ranked.index)
        return min(ids, key=lambda i: (target.spellings[i] or "", i))

    def rank(i: int) -> tuple[int, int, str]:
        common = {*target.role_of.get(i, ())} & {*source.role_of.get(source_id, ())}
        ranks = (n for n, role in enumerate(_OUTPUT_ORDER) if role in common)
        position = next(ranks, len(_OUTPUT_ORDER))
        other_spelling = target.spellings[i] != source.spellings[source_id]
        return (position, int(other_spelling), target.spellings[i] or "")

    return min(ids, key=rank)
