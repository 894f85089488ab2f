"""Token ids and sizes in the files of a checkpoint, remapped by meaning.

The target's own roles come first (its EOS is what ends a generation), then the map of source ids.
An id whose meaning the target lacks becomes null with a warning: a stale id would be worse.
Which keys hold ids, `id_keys` says.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from tokensurgeon.alignment import Alignment
from tokensurgeon.checkpoint.id_keys import (
    NUMBER,
    ROLE_OF_KEY,
    Form,
    Json,
    form_of,
    ids_in,
    ids_of_key,
    is_id,
    levels,
    stray,
)
from tokensurgeon.errors import CheckpointError, UnsupportedCheckpointError

VOCABULARY_SIZES = ("vocab_size", "decoder_vocab_size")
"""Keys that count tokens; Marian has the second."""

CONFIG, GENERATION = "config.json", "generation_config.json"
"""The files that transformers loads: for these an id may be lost, with a warning."""
_MODALITIES = ("image", "img", "audio", "video", "vision", "speech", "sound")
"""Words in keys whose ids code outside the tokenizer looks for."""
_FIRST_TIME = "no_timestamps_token_id"
"""Whisper takes every id after this one for a time, and tells the time from the difference."""


@dataclass
class RemappedIds:
    """The configuration files of the patched checkpoint.

    Attributes
    ----------
    config : dict
    generation_config : dict or None
    others : dict of dict
        Further files by name, of processors and modules.
    changes : dict
        ``{"config.json:eos_token_id": [old, new]}`` for every id that changed.
    warnings : list of str
        Ids that were removed, and numbers that may be ids.
    """

    config: Json
    generation_config: Json | None
    others: dict[str, Json] = field(default_factory=dict)
    changes: dict[str, list[Any]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def remap_configs(
    config: Json,
    generation_config: Json | None,
    *,
    others: Mapping[str, Json] = {},
    n_old: int,
    n_new: int,
    n_tokens: int | None = None,
    id_map: Mapping[int, int | None],
    roles: Mapping[str, int],
    defaults: Mapping[str, Any] = {},
    outer_defaults: Mapping[str, Any] = {},
    needed: Collection[str] = (),
    untied: bool = False,
) -> RemappedIds:
    """Return the configurations for another vocabulary; the arguments are not changed.

    Parameters
    ----------
    config, generation_config : dict, dict or None
        As stored.
    others : mapping of dict
        Further files by name, whose ids move too.
    n_old, n_new : int
        Rows before and after.
    n_tokens : int or None
        Ids of the target, without padding; None for `n_new`.
    id_map : mapping
        Source id → target id with that meaning, or None.
    roles : mapping
        The target's roles: ``{"eos": 2, ...}``.
    defaults : mapping
        What the family's class fills in where the file is silent, such as ``{"eos_token_id": 2}``.
    outer_defaults : mapping
        The same of the class around it, where the configuration of the text is nested in another.
    needed : collection of str
        Keys that the family's class does not leave empty: for a token that is lost the target's
        end or start stands in.
    untied : bool
        Whether the two sides are two matrices now; the flag then says so at every level.

    Raises
    ------
    UnsupportedCheckpointError
        Where the token id of an image or a sound would move, or a file of `others` names a token
        that the target lacks.
    CheckpointError
        Where a new id is not below `n_new`.
    """
    remapped = RemappedIds(*copy.deepcopy((config, generation_config, dict(others))))
    text = remapped.config.get("text_config")
    main: Json = text if isinstance(text, dict) else remapped.config
    said = {*main, *remapped.config}
    silent = [
        (level, key, value)
        for level, filled_in in ((main, defaults), (remapped.config, outer_defaults))
        for key, value in filled_in.items()
        if key not in said
    ]
    for level, key, value in silent:
        level[key] = value
    remap = _Remapper(remapped, id_map, roles, n_old, n_new, n_tokens or n_new, needed)
    remap.file(CONFIG, remapped.config)
    every = [level for _, level in levels(remapped.config, n_old)]
    for level in every:
        level.update({name: n_new for name in VOCABULARY_SIZES if level.get(name) == n_old})
    if not any("vocab_size" in level for level in every):
        main["vocab_size"] = n_new
    if untied:
        for level in every:
            if level is remapped.config or level is main or "tie_word_embeddings" in level:
                level["tie_word_embeddings"] = False
    for level, key, value in silent:  # what the class would say anyway need not be written
        if level.get(key) == value:
            del level[key]
    remapped.config.pop("auto_map", None)
    if remapped.generation_config is not None:
        remap.file(GENERATION, remapped.generation_config)
    for name, data in remapped.others.items():
        remap.file(name, data)
    return remapped


def id_map(alignment: Alignment) -> dict[int, int]:
    """Return source id → target id for every source token that a target token takes over.

    Where several do, the one of the same spelling counts, else the first.
    """
    mapped: dict[int, int] = {}
    for target_id in alignment.shared.tolist():
        source_id = int(alignment.source_ids[target_id])
        same = alignment.source.spellings[source_id] == alignment.target.spellings[target_id]
        if source_id not in mapped or same:
            mapped[source_id] = target_id
    return mapped


@dataclass
class _Remapper:
    remapped: RemappedIds
    id_map: Mapping[int, int | None]
    roles: Mapping[str, int]
    n_old: int
    n_new: int
    n_tokens: int
    needed: Collection[str]

    def file(self, file: str, config: Json) -> None:
        """Remap the ids of a file in place, and note what changed."""
        undecided: list[str] = []
        for where, level in levels(config, self.n_old):
            for key, old in list(level.items()):
                form = form_of(key, old)
                if (wrong := stray(key, old)) is not None:
                    self.remapped.warnings.append(
                        f"{file}:{where}{key} holds {_short(repr(wrong))}, which is no token id: "
                        "it is left as it is; correct it by hand"
                    )
                if form is Form.UNDECIDED:
                    if any(self.id_map.get(token, token) != token for token in ids_in(old)):
                        undecided.append(f"{where}{key} ({_short(old)})")
                elif form is not None:
                    self._change(file, where, key, form, level)
        if undecided:
            self.remapped.warnings.append(
                f"{file} has numbers whose names do not tell whether they are token ids: "
                f"{', '.join(undecided)}; they are left: correct them by hand if they are ids"
            )

    def _change(self, file: str, where: str, key: str, form: Form, level: Json) -> None:
        old, name = level[key], f"{file}:{where}{key}"
        new = self.value(file, where, key, form, old)
        if key == _FIRST_TIME:
            self._check_times(name, old, new)
        if new == old:
            return
        written = new
        if new is None and file == CONFIG and key in self.needed:
            written = self.roles.get("eos", self.roles.get("bos", 0))
        elif new is None and "/" in file:  # a module that is part of the model
            raise UnsupportedCheckpointError(
                f"{file} needs the token of {where}{key} = {_short(old)}, which the target "
                "tokenizer lacks: give a target that has it, or say with --map which token it is"
            )
        self._warn_of_losses(name, form, old, new, written)
        level[key] = written
        self.remapped.changes[name] = [old, written]
        if any(not 0 <= token < self.n_new for token in ids_in(written, form)):
            raise CheckpointError(
                f"{key} would become {_short(written)}, which is not below the {self.n_new} "
                "rows; correct it in the source's files"
            )

    def value(self, file: str, where: str, key: str, form: Form, old: Any) -> Any:
        """Return the new value of a key."""
        if form is Form.PAIRS:
            return self._pairs(old)
        if form is Form.BIASES:
            return self._biases(old)
        if form is Form.KEYS:
            return self._keys(old)
        if key in ROLE_OF_KEY:
            return self._role(file, key, old)
        new = self._ids(old)
        is_modality = any(word in f"{where}{key}".lower() for word in _MODALITIES)
        if new != old and is_modality and not isinstance(old, dict):
            raise UnsupportedCheckpointError(
                f"{where}{key} = {old} would move to {new}; images and sounds find their place by "
                "that id, so this checkpoint is refused"
            )
        return new

    def _role(self, file: str, key: str, old: Any) -> Any:
        role = self.roles.get(ROLE_OF_KEY[key])
        if isinstance(old, list):
            new = self._ids(old) or []
            return (new if role is None or role in new else [role, *new]) or None
        if not is_id(old):
            return old
        mapped = self.id_map.get(old)
        if role is None:
            return mapped
        stops_too = mapped not in (None, role, self.roles.get("bos"))
        if key == "eos_token_id" and stops_too and file == GENERATION:
            # Users expect the one; the body has learned to end with the other.
            return [role, mapped]
        return role

    def _ids(self, old: Any) -> Any:
        """Return an id, or ids however nested; a phrase that loses one is lost, None if all are."""
        if is_id(old):
            return self.id_map.get(old)
        if isinstance(old, dict):
            named = {name: self._ids(value) for name, value in old.items()}
            return {k: v for k, v in named.items() if v is not None or old[k] is None}
        if not isinstance(old, list):
            return old
        new = []
        for item in old:
            if isinstance(item, list) and all(map(is_id, item)):
                phrase = [self.id_map.get(token) for token in item]
                moved: Any = None if None in phrase else phrase
            else:
                moved = self._ids(item)
            if moved is not None or item is None:
                new.append(moved)
        if all(map(is_id, new)):
            new = list(dict.fromkeys(new))
        return new or (None if old else old)

    def _pairs(self, old: Any) -> Any:
        """Return pairs of a position and an id; where nothing is forced, the id is None."""
        if not isinstance(old, list):
            return old
        new = []
        for pair in old:
            is_forced = isinstance(pair, list) and len(pair) == 2 and is_id(pair[1])
            token = self.id_map.get(pair[1]) if is_forced else None
            if is_forced and token is not None:
                new.append([pair[0], token])
            elif not is_forced:
                new.append(pair)
        return new or (None if old else old)

    def _biases(self, old: Any) -> Any:
        """Return [phrase, bias] pairs, or a dictionary whose keys spell phrases: ``(3, 4)``."""
        if isinstance(old, dict):
            return self._keys(old) or None
        if not isinstance(old, list):
            return old
        new = []
        for item in old:
            if isinstance(item, list) and item:
                phrases = self._ids([item[0]])
                new += [] if phrases is None else [[phrases[0], *item[1:]]]
            else:
                new.append(item)
        return new or (None if old else old)

    def _keys(self, old: dict[str, Any]) -> dict[str, Any]:
        """Return a dictionary whose keys are ids, or spell phrases of ids."""
        new = {}
        for key, value in old.items():
            moved = [self.id_map.get(token) for token in ids_of_key(key)]
            if None not in moved:
                parts = [*NUMBER.split(key)]
                spelled = [*map(str, moved), ""]
                new["".join(map("".join, zip(parts, spelled, strict=True)))] = value
        return new

    def _warn_of_losses(self, name: str, form: Form, old: Any, new: Any, written: Any) -> None:
        lost = len(list(ids_in(old, form))) - len(list(ids_in(new, form)))
        n_entries = len(old) - len(new or ()) if isinstance(old, dict) else 0
        if n_entries:
            gone = [key for key in old if key not in new] if form is Form.IDS else []
            self.remapped.warnings.append(
                f"{name} lost {n_entries} of its {len(old)} entries, whose ids stand for no "
                f"token of the target{': ' if gone else ''}{_short(', '.join(gone))}"
            )
        elif new is None or lost > 0:
            what = "that token" if is_id(old) else f"{lost} of these tokens"
            self.remapped.warnings.append(
                f"{name} was {_short(old)}; the target tokenizer lacks {what}: "
                f"now {_short(written)}"
            )

    def _check_times(self, name: str, old: Any, new: Any) -> None:
        """Warn where other tokens follow in the target than the tokens of times, in their order."""
        if not is_id(old) or new is None:
            return
        times = {token for i, token in self.id_map.items() if i > old}
        n_kept = sum(self.id_map.get(i) == new + i - old for i in range(old + 1, self.n_old))
        n_others = len(set(range(new + 1, self.n_tokens)) - times)
        if n_kept < len(times) or n_others or (not times and old + 1 < self.n_old):
            self.remapped.warnings.append(
                f"{name}: each id after it is taken for a time, counted from it; in the target "
                f"{n_kept} of the source's {len(times)} times are where they are looked for, and "
                f"{n_others} other tokens come after it: transcripts with times will be wrong; "
                "give a target that has the times last, in their order"
            )


def _short(value: Any) -> str:
    text = "null" if value is None else str(value)
    return text if len(text) <= 80 else text[:77] + "..."
