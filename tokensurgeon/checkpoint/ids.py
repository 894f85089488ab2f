"""Token ids and sizes in config.json and generation_config.json, remapped by meaning.

The target's own roles come first (its EOS is what ends a generation), then the map of source ids.
An id whose meaning the target lacks becomes null with a warning: a stale id would be worse.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tokensurgeon.alignment import Alignment
from tokensurgeon.errors import CheckpointError, UnsupportedCheckpointError
from tokensurgeon.vocabulary.kinds import STANDARD_ROLES

ROLE_OF_KEY = {f"{role}_token_id": role for role in STANDARD_ROLES}

VOCABULARY_SIZES = ("vocab_size", "decoder_vocab_size")
"""Keys that count tokens; Marian has the second."""

_MODALITIES = ("image", "img", "audio", "video", "vision", "speech", "sound")
"""Words in keys whose ids code outside the tokenizer looks for."""
_ID_KEYS = ("_token_id", "_token_ids", "_token_index")
_LISTS = ("suppress_tokens", "begin_suppress_tokens")
_NESTED = ("bad_words_ids", "force_words_ids")
"""How keys of ids end, and keys of lists of ids and of lists of phrases, in transformers."""

Json = dict[str, Any]


@dataclass
class RemappedIds:
    """The configuration files of the patched checkpoint.

    Attributes
    ----------
    config : dict
    generation_config : dict or None
    changes : dict
        ``{"config.json:eos_token_id": [old, new]}`` for every id that changed.
    warnings : list of str
        Ids that were removed.
    """

    config: Json
    generation_config: Json | None
    changes: dict[str, list[Any]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def remap_configs(
    config: Json,
    generation_config: Json | None,
    *,
    n_old: int,
    n_new: int,
    id_map: Mapping[int, int | None],
    roles: Mapping[str, int],
    defaults: Mapping[str, Any] = {},
    needed: Collection[str] = (),
    untied: bool = False,
) -> RemappedIds:
    """Return the configurations for another vocabulary; the arguments are not changed.

    Parameters
    ----------
    config, generation_config : dict, dict or None
        As stored.
    n_old, n_new : int
        Rows before and after.
    id_map : mapping
        Source id → target id with that meaning, or None.
    roles : mapping
        The target's roles: ``{"eos": 2, ...}``.
    defaults : mapping
        What the family's class fills in where the file is silent, such as ``{"eos_token_id": 2}``.
    needed : collection of str
        Keys that the family's class does not leave empty: for a token that is lost the target's
        end or start stands in.
    untied : bool
        Whether the two sides are two matrices now; the flag then says so at every level.

    Raises
    ------
    UnsupportedCheckpointError
        Where the token id of an image or a sound would move.
    CheckpointError
        Where a new id is not below `n_new`.
    """
    remapped = RemappedIds(copy.deepcopy(config), copy.deepcopy(generation_config))
    text = remapped.config.get("text_config")
    main: Json = text if isinstance(text, dict) else remapped.config
    said = {*main, *remapped.config}
    silent = {key: value for key, value in defaults.items() if key not in said}
    main.update(silent)
    remap = _Remapper(remapped, id_map, roles, n_new, needed)
    for where, level in _levels(remapped.config):
        remap.level("config.json", where, level)
        level.update({name: n_new for name in VOCABULARY_SIZES if level.get(name) == n_old})
    if not any("vocab_size" in level for _, level in _levels(remapped.config)):
        main["vocab_size"] = n_new
    if untied:
        for _, level in _levels(remapped.config):
            if level is remapped.config or level is main or "tie_word_embeddings" in level:
                level["tie_word_embeddings"] = False
    for key, value in silent.items():  # what the class would say anyway need not be written
        if main.get(key) == value:
            del main[key]
    remapped.config.pop("auto_map", None)
    if remapped.generation_config is not None:
        for where, level in _levels(remapped.generation_config):
            remap.level("generation_config.json", where, level)
    return remapped


def _levels(config: Json, where: str = "") -> Iterator[tuple[str, Json]]:
    """Yield the configuration and the nested ones, with the dotted path of each."""
    yield where, config
    for key, value in list(config.items()):
        if isinstance(value, dict):
            yield from _levels(value, f"{where}{key}.")


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


def named_ids(config: Json) -> Iterator[tuple[str, list[int]]]:
    """Yield every key of a configuration that names token ids, and the ids.

    Examples
    --------
    >>> list(named_ids({"eos_token_id": [2, 3], "text_config": {"pad_token_id": 0}}))
    [('eos_token_id', [2, 3]), ('text_config.pad_token_id', [0])]
    """
    for where, level in _levels(config):
        for key, value in level.items():
            if key.endswith(_ID_KEYS) or key in (*_LISTS, *_NESTED):
                yield f"{where}{key}", list(_flat(value))


def _is_id(value: object) -> bool:
    """Tell an id; a negative number stands for "none" in older files and is left alone."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


@dataclass
class _Remapper:
    remapped: RemappedIds
    id_map: Mapping[int, int | None]
    roles: Mapping[str, int]
    n_new: int
    needed: Collection[str]

    def level(self, file: str, where: str, level: Json) -> None:
        """Remap the ids of one level in place, and note what changed."""
        for key, old in list(level.items()):
            new = self.value(file, where, key, old)
            if new == old:
                continue
            written = new
            if new is None and file == "config.json" and key in self.needed:
                written = self.roles.get("eos", self.roles.get("bos", 0))
            self._warn_of_losses(f"{file}:{where}{key}", old, new, written)
            new = level[key] = written
            self.remapped.changes[f"{file}:{where}{key}"] = [old, new]
            if any(not 0 <= token < self.n_new for token in _flat(new)):
                raise CheckpointError(
                    f"{key} would become {new}, which is not below the {self.n_new} rows; "
                    "correct it in the source's files"
                )

    def value(self, file: str, where: str, key: str, old: Any) -> Any:
        """Return the new value of a key."""
        if key in ROLE_OF_KEY:
            role = self.roles.get(ROLE_OF_KEY[key])
            if isinstance(old, list):
                return self._list(old, role)
            if not _is_id(old):
                return old
            mapped = self.id_map.get(old)
            if role is None:
                return mapped
            stops_too = mapped not in (None, role, self.roles.get("bos"))
            if key == "eos_token_id" and stops_too and file == "generation_config.json":
                # Users expect the one; the body has learned to end with the other.
                return [role, mapped]
            return role
        if key in _LISTS and isinstance(old, list):
            return self._list(old, None)
        if key in _NESTED and isinstance(old, list):
            return self._phrases(old)
        if key == "forced_decoder_ids" and isinstance(old, list):
            pairs = [(p[0], self.id_map.get(p[1])) for p in old if isinstance(p, list) and p[1:]]
            return [list(pair) for pair in pairs if pair[1] is not None]
        if key.endswith(_ID_KEYS):
            return self._other(where, key, old)
        return old

    def _list(self, old: list[Any], role: int | None) -> list[int]:
        mapped = [self.id_map.get(token) for token in old if _is_id(token)]
        new = [token for token in mapped if token is not None]
        return list(dict.fromkeys(new if role is None or role in new else [role, *new]))

    def _phrases(self, old: list[Any]) -> list[Any]:
        new: list[Any] = []
        for phrase in old:
            if isinstance(phrase, list) and all(map(_is_id, phrase)):
                mapped = [self.id_map.get(token) for token in phrase]
                if None not in mapped:
                    new.append(mapped)
            elif isinstance(phrase, list):
                new.append(self._phrases(phrase))
        return new

    def _other(self, where: str, key: str, old: Any) -> Any:
        if isinstance(old, list):
            new: Any = self._list(old, None)
        elif _is_id(old):
            new = self.id_map.get(old)
        else:
            return old
        if new != old and any(word in f"{where}{key}".lower() for word in _MODALITIES):
            raise UnsupportedCheckpointError(
                f"{where}{key} = {old} would move to {new}; images and sounds find their place by "
                "that id, so this checkpoint is refused"
            )
        return new

    def _warn_of_losses(self, name: str, old: Any, new: Any, written: Any) -> None:
        lost = len(list(_flat(old))) - len(list(_flat(new)))
        if new is None or lost > 0:
            what = "that token" if new is None else f"{lost} of these tokens"
            self.remapped.warnings.append(
                f"{name} was {_short(old)}; the target tokenizer lacks {what}: "
                f"now {_short(written)}"
            )


def _short(value: Any) -> str:
    text = "null" if value is None else str(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _flat(value: Any) -> Iterator[int]:
    if isinstance(value, list):
        for item in value:
            yield from _flat(item)
    elif _is_id(value):
        yield value
