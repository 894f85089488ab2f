"""A tokenizer that exists, as JSON to be changed: what `extend` and `prune` share."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokensurgeon.errors import TokenizerError
from tokensurgeon.vocabulary import Vocabulary, load_vocabulary
from tokensurgeon.vocabulary.hard_text import hard_texts

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BESIDE = ("special_tokens_map.json", "chat_template.jinja")
"""Files of a tokenizer's folder that stay as they are."""


@dataclass(frozen=True)
class Base:
    """A tokenizer to start from.

    Attributes
    ----------
    name : str
        As it was given.
    vocabulary : Vocabulary
    document : dict
        Its tokenizer.json; copied before it is changed.
    config : dict
        Its tokenizer_config.json.
    files : dict of str to str
        Others of its files, by name.
    """

    name: str
    vocabulary: Vocabulary
    document: dict[str, Any]
    config: dict[str, Any]
    files: dict[str, str]

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
        files = {}
        for file in BESIDE:
            if folder is not None and (folder / file).is_file():
                files[file] = (folder / file).read_text("utf-8")
        document = json.loads(vocabulary.tokenizer.to_str())
        return cls(str(name), vocabulary, document, dict(vocabulary.raw_config), files)

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer itself."""
        return self.vocabulary.tokenizer

    @property
    def model_type(self) -> str:
        """BPE, Unigram, WordPiece or WordLevel."""
        return str(self.document["model"]["type"])

    def changed(self, change: Callable[[dict[str, Any]], None]) -> Tokenizer:
        """Return a tokenizer of a changed copy of the document.

        Raises
        ------
        TokenizerError
            If a hard text does not come back as it does from this one.
        """
        from tokenizers import Tokenizer

        document = json.loads(json.dumps(self.document))
        change(document)
        made = Tokenizer.from_str(json.dumps(document))
        for text in hard_texts():
            before, after = (
                one.decode(one.encode(text, add_special_tokens=False).ids)
                for one in (self.tokenizer, made)
            )
            if before != after and self.decodes_all:
                raise TokenizerError(f"{text[:20]!r} does not come back as from {self.name}")
        return made

    @property
    def decodes_all(self) -> bool:
        """Whether any text is spelled: over bytes, or falling back to them."""
        parts = self.document
        over_bytes = '"ByteLevel"' in json.dumps([parts["decoder"], parts["pre_tokenizer"]])
        return over_bytes or bool(parts["model"].get("byte_fallback"))


def spelled_merges(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the merges of a BPE, which older files write as one string."""
    merges = (
        merge.split(" ", 1) if isinstance(merge, str) else merge
        for merge in document["model"]["merges"]
    )
    return [(left, right) for left, right in merges]
