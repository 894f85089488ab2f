"""The parts of a `tokenizers.Tokenizer` as JSON, and copies of it with some parts changed.

Two copies are made; both share the model. One encodes a whole *text*: it parses no special tokens,
and neither truncates nor pads. The other encodes the *middle of* a text: besides, it neither
prepends nor strips. This module does not look at single tokens.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import tokenizers
from tokenizers import AddedToken, Tokenizer

from tokensurgeon.errors import TokenizerError, reason

Json = dict[str, Any]
T = TypeVar("T")

SPACE_MARK = "\N{LOWER ONE EIGHTH BLOCK}"
"""The visible space of SentencePiece-style vocabularies, U+2581."""


@dataclass(frozen=True)
class Parts:
    """The components of a tokenizer, without its tables.

    Attributes
    ----------
    model : dict
        The model's JSON without `vocab` and `merges`.
    normalizer, pre_tokenizer, decoder, post_processor : dict or None
    added : mapping of id to AddedToken
    """

    model: Json
    normalizer: Json | None
    pre_tokenizer: Json | None
    decoder: Json | None
    post_processor: Json | None
    added: Mapping[int, AddedToken]

    @property
    def model_type(self) -> str:
        """BPE, Unigram, WordPiece or WordLevel."""
        return str(self.model.get("type", ""))

    @property
    def byte_fallback(self) -> bool:
        """Whether the model writes unknown characters as tokens such as <0x41>."""
        return bool(self.model.get("byte_fallback"))

    @property
    def byte_level(self) -> bool:
        """Whether tokens are written in the byte alphabet of GPT-2."""
        if self.decoder is not None:
            return has_type(self.decoder, "ByteLevel")
        return has_type(self.pre_tokenizer, "ByteLevel") or has_type(self.normalizer, "ByteLevel")

    @property
    def marks_spaces(self) -> bool:
        """Whether a space of the text is U+2581 in the model."""
        replaces = any(map(is_space_mark, walk(self.normalizer)))
        return replaces or has_type(self.pre_tokenizer, "Metaspace")


def read_parts(tokenizer: Tokenizer) -> Parts:
    """Return the parts of a tokenizer."""
    document = json.loads(tokenizer.to_str())
    model = {k: v for k, v in document["model"].items() if k not in ("vocab", "merges")}
    if "unk_id" in model and model["unk_id"] is not None:
        model["unk_token"] = document["model"]["vocab"][model["unk_id"]][0]
    return Parts(
        model=model,
        normalizer=document.get("normalizer"),
        pre_tokenizer=document.get("pre_tokenizer"),
        decoder=document.get("decoder"),
        post_processor=document.get("post_processor"),
        added=dict(tokenizer.get_added_tokens_decoder()),
    )


def walk(part: Any) -> Iterator[Json]:
    """Yield a component and every component inside it, outermost first."""
    return (inner for inner in _objects(part) if "type" in inner)


def regexes(part: Any) -> Iterator[str]:
    """Yield every regular expression of a component, at any depth."""
    patterns = (inner.get("Regex") for inner in _objects(part))
    return (pattern for pattern in patterns if isinstance(pattern, str))


def _objects(part: Any) -> Iterator[Json]:
    stack = [part]  # a file may be nested too deeply for recursion
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            yield value
            stack += reversed(value.values())
        elif isinstance(value, list):
            stack += reversed(value)


def has_type(part: Json | None, name: str) -> bool:
    """Return whether `part` is or contains a component of that type."""
    return any(inner.get("type") == name for inner in walk(part))


def is_space_mark(part: Json) -> bool:
    """Return whether a component replaces the plain space by U+2581."""
    return (
        part.get("type") == "Replace"
        and part.get("content") == SPACE_MARK
        and part.get("pattern") == {"String": " "}
    )


def is_edge(part: Json) -> bool:
    """Return whether a normalizer acts on the edges of a text only."""
    return part.get("type") in ("Prepend", "Strip")


def rewrite(part: Json | None, drop: Callable[[Json], bool]) -> Json | None:
    """Return a normalizer without the components that `drop` selects; None if none is left."""
    if part is None or drop(part):
        return None
    if part.get("type") == "Sequence":
        rewritten = (rewrite(normalizer, drop) for normalizer in part.get("normalizers", []))
        left = [normalizer for normalizer in rewritten if normalizer is not None]
        return {**part, "normalizers": left} if left else None
    return part


def without_prefix(part: Any) -> Any:
    """Return a pre-tokenizer that puts no space in front of a text."""
    if isinstance(part, list):
        return [without_prefix(value) for value in part]
    if not isinstance(part, dict):
        return part
    changed = {key: without_prefix(value) for key, value in part.items()}
    if changed.get("type") == "Metaspace":
        changed["prepend_scheme"] = "never"
        changed.pop("add_prefix_space", None)
    elif "add_prefix_space" in changed:
        changed["add_prefix_space"] = False
    return changed


def shell(normalizer: Json | None, pre_tokenizer: Json | None) -> Tokenizer:
    """Return an empty tokenizer that has these two components."""
    document: Json = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": {}, "unk_token": "?"},
    }
    return Tokenizer.from_str(json.dumps(document))


def text_copy(tokenizer: Tokenizer, parts: Parts, controls: frozenset[int]) -> Tokenizer:
    """Return a copy that spells markers in a text instead of parsing them.

    The copy shares the model. Added tokens that are text, such as runs of spaces, are kept.
    """
    copy = Tokenizer(tokenizer.model)
    copy.normalizer = tokenizer.normalizer
    copy.pre_tokenizer = tokenizer.pre_tokenizer
    copy.decoder = tokenizer.decoder
    spellings = {i: token.content for i, token in parts.added.items()}
    model_id = tokenizer.model.token_to_id
    order = sorted(spellings, key=lambda i: (model_id(spellings[i]) != i, i))
    copy.add_tokens([_flagged(parts.added[i], i in controls) for i in order])
    if {i: token.content for i, token in copy.get_added_tokens_decoder().items()} != spellings:
        # Adding tokens one after the other does not reproduce these ids.
        document = json.loads(tokenizer.to_str())
        document["truncation"] = document["padding"] = document["post_processor"] = None
        for token in document["added_tokens"]:
            token["special"] = token["id"] in controls
        copy = Tokenizer.from_str(json.dumps(document))
    copy.encode_special_tokens = True
    return copy


def _flagged(token: AddedToken, special: bool) -> AddedToken:
    return AddedToken(
        token.content,
        single_word=token.single_word,
        lstrip=token.lstrip,
        rstrip=token.rstrip,
        normalized=token.normalized,
        special=special,
    )


def midtext_copy(text: Tokenizer, parts: Parts, controls: frozenset[int]) -> Tokenizer:
    """Return a copy of the text tokenizer that encodes its input as the middle of a text."""
    copy = text_copy(text, parts, controls)
    middle = shell(rewrite(parts.normalizer, is_edge), without_prefix(parts.pre_tokenizer))
    copy.normalizer, copy.pre_tokenizer = middle.normalizer, middle.pre_tokenizer
    return copy


def plain_normalizer(parts: Parts) -> tokenizers.normalizers.Normalizer | None:
    """Return the normalizer without its prefix and its space marks."""

    def drop(part: Json) -> bool:
        return is_edge(part) or is_space_mark(part) or part.get("type") == "ByteLevel"

    plain: tokenizers.normalizers.Normalizer | None
    plain = shell(rewrite(parts.normalizer, drop), None).normalizer
    return plain


def pre_tokens(tokenizer: Tokenizer, text: str) -> list[str]:
    """Return the pieces that a tokenizer's normalizer and pre-tokenizer pass to its model."""
    if tokenizer.normalizer is not None:
        text = tokenizer.normalizer.normalize_str(text)
    if tokenizer.pre_tokenizer is None:
        return [text]
    return [piece for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text)]


def guarded(what: str, call: Callable[[], T]) -> T:
    """Return call(); turn any failure of the tokenizers library into a TokenizerError.

    A Rust panic is a BaseException, which `except Exception` misses.
    """
    try:
        return call()
    except (KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError, TokenizerError):
        raise
    except BaseException as error:
        raise TokenizerError(f"{what}: {reason(error)}; mend what it names") from error
