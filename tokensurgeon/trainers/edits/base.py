"""An existing tokenizer as JSON that can be changed: what `extend` and `prune` share."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from tokensurgeon.errors import TokenizerError
from tokensurgeon.text.seen import Seen
from tokensurgeon.vocabulary import Vocabulary, load_vocabulary
from tokensurgeon.vocabulary.hard_text import hard_texts
from tokensurgeon.vocabulary.kinds import Kind
from tokensurgeon.vocabulary.parts import guarded, has_type
from tokensurgeon.vocabulary.reading import read_json

BESIDE = ("special_tokens_map.json", "chat_template.jinja")
"""Files of a tokenizer's folder that are copied unchanged."""


@dataclass(frozen=True)
class Base:
    """A tokenizer to start from.

    Attributes
    ----------
    name : str
        As it was given.
    vocabulary : Vocabulary
    document : dict
        Its tokenizer.json; `changed` works on a copy.
    config : dict
        Its tokenizer_config.json.
    files : dict of str to str
        Its other files, by name.
    stored : dict
        Its tokenizer.json as it is in the file, with the truncation, padding and dropout that a
        loaded tokenizer does without; empty where it has none.
    """

    name: str
    vocabulary: Vocabulary
    document: dict[str, Any]
    config: dict[str, Any]
    files: dict[str, str]
    stored: dict[str, Any]

    @classmethod
    def load(cls, name: str | Path) -> Base:
        """Load a tokenizer.

        Raises
        ------
        TokenizerError
            If there is none, or it cannot be read.
        """
        vocabulary = load_vocabulary(name)
        folder = vocabulary.folder
        files = {
            name: (folder / name).read_text("utf-8")
            for name in BESIDE
            if folder is not None and (folder / name).is_file()
        }
        document = json.loads(vocabulary.tokenizer.to_str())
        file = Path(name) if folder is None or Path(name).is_file() else folder / "tokenizer.json"
        stored = read_json(file) if file.suffix == ".json" and file.is_file() else {}
        config = dict(vocabulary.raw_config)
        return cls(str(name), vocabulary, document, config, files, stored)

    @property
    def seen(self) -> Seen | None:
        """The lines that it was trained on, as far as its folder says."""
        folder = self.vocabulary.folder
        return None if folder is None or not folder.is_dir() else Seen.load(folder)

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer itself."""
        return self.vocabulary.tokenizer

    @property
    def model_type(self) -> str:
        """BPE, Unigram, WordPiece or WordLevel."""
        return str(self.document["model"]["type"])

    @property
    def controls(self) -> dict[str, int]:
        """Its controls by spelling, and of its unused tokens those that it cuts out of a text."""
        kinds, spellings = self.vocabulary.kinds, self.vocabulary.spellings
        unused = {i for i in self.tokenizer.get_added_tokens_decoder() if kinds[i] == Kind.UNUSED}
        ids = {*np.flatnonzero(kinds == Kind.CONTROL).tolist(), *unused}
        return {spellings[i] or "": i for i in sorted(ids)}

    @property
    def dropout(self) -> float | None:
        """The BPE dropout that its file stores; a loaded tokenizer does without."""
        value = self.stored.get("model", {}).get("dropout")
        return None if value is None else float(value)

    def as_stored(self, tokenizer: Tokenizer, new: Mapping[int, int] | None = None) -> Tokenizer:
        """Return a changed tokenizer with the truncation, padding and dropout of the base's file.

        `new` has the new ids of old ones; None where they stay.
        """
        parts = {part: self.stored.get(part) for part in ("truncation", "padding")}
        dropout = self.dropout
        if dropout is None and not any(parts.values()):
            return tokenizer
        document = json.loads(tokenizer.to_str()) | parts
        if (padding := document["padding"]) and new is not None:
            padding["pad_id"] = new.get(padding["pad_id"], padding["pad_id"])
        if dropout is not None:
            document["model"]["dropout"] = dropout
        return Tokenizer.from_str(json.dumps(document))

    def changed(self, change: Callable[[dict[str, Any]], None]) -> Tokenizer:
        """Return the tokenizer of a changed copy of the document.

        Raises
        ------
        TokenizerError
            If it decodes a hard text otherwise than this one does.
        """
        document = json.loads(json.dumps(self.document))
        change(document)
        changed: Tokenizer = guarded(
            f"{self.name} cannot be changed so", lambda: Tokenizer.from_str(json.dumps(document))
        )
        parts = self.document["decoder"], self.document["pre_tokenizer"]
        over_bytes = any(has_type(part, "ByteLevel") for part in parts)
        spells_any = over_bytes or self.document["model"].get("byte_fallback")
        for text in hard_texts() if spells_any else ():
            before, after = (
                tokenizer.decode(tokenizer.encode(text, add_special_tokens=False).ids)
                for tokenizer in (self.tokenizer, changed)
            )
            if before != after:
                raise TokenizerError(f"{text[:20]!r} does not come back as from {self.name}")
        return changed


def hold_added(document: dict[str, Any]) -> None:
    """Give the model the added tokens that would get other ids when the file is loaded, in place.

    Those that the model lacks are numbered from the number of its tokens on, whatever the file
    says. So they keep their ids only behind all of its tokens, or as some of them.
    """
    table = document["model"]["vocab"]
    if isinstance(table, dict):
        added = {token["content"]: token["id"] for token in document["added_tokens"]}
        lacking = {content: i for content, i in added.items() if content not in table}
        if [*lacking.values()] != [*range(len(table), len(table) + len(lacking))]:
            table |= lacking


def spelled_merges(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the merges of a BPE; in older files, each is one string."""
    merges = (
        merge.split(" ", 1) if isinstance(merge, str) else merge
        for merge in document["model"]["merges"]
    )
    return [(left, right) for left, right in merges]
