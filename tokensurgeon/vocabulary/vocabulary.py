"""The `Vocabulary`: what the rest of the package knows about a tokenizer."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from tokensurgeon.errors import TokenizerError, UnknownNameError
from tokensurgeon.vocabulary.cut_facts import number_scheme, segmentation_facts
from tokensurgeon.vocabulary.encode import Encoder, Encoding
from tokensurgeon.vocabulary.kinds import Kind, find_kinds, find_roles, name_markers
from tokensurgeon.vocabulary.parts import Parts, guarded, midtext_copy, read_parts, text_copy
from tokensurgeon.vocabulary.post_processor_ids import post_processor_problems
from tokensurgeon.vocabulary.segment import Segmenter
from tokensurgeon.vocabulary.token_bytes import Speller, find_bytes

MAX_ROWS = 10_000_000
"""Most ids: forty times Gemma 3's. Beyond, an id is a mistake that would fill the memory."""


def most_rows(n_tokens: int) -> int:
    """Return how many rows may come of some tokens: ids may lie apart, but not by millions."""
    return min(MAX_ROWS, 8 * n_tokens + 1_000_000)


class Vocabulary:
    """A tokenizer seen as exact bytes. Make one with `load_vocabulary`; treat it as read-only.

    Attributes
    ----------
    n_rows : int
        Largest id + 1, over the model's tokens and the added ones.
    spellings : tuple of str or None, by id
        How the tokenizer writes each token; None for holes.
    token_bytes : tuple of bytes or None, by id
        The exact bytes of each token inside a text; None for controls, unused ids and holes.
    kinds : uint8 (n_rows,)
        A `Kind` per id.
    roles : mapping of str to int
        'bos', 'eos', 'pad', 'unk', 'mask', 'cls', 'sep' and names of markers ('im_start') → id.
        Two roles may share an id.
    role_of : mapping of int to tuple of str
        The reverse, for ids that have a role.
    joins_with_space : bool
        Whether decoding puts a space between two plain tokens (WordPiece, words without decoder).
    tokenizer : tokenizers.Tokenizer
        Our own copy: truncation, padding and dropout are off.
    raw_config : dict
        tokenizer_config.json, empty where there is none.
    chat_template : str or None
    folder : Path or None
        Where it was loaded from.
    carried : dict of str to bytes
        Files of a folder that is gone, such as one that it was trained into, which go along.
    notes : tuple of str
        Dropout that was stored, and differences from the original library where a tokenizer was
        rebuilt from its file.
    edited : bool
        Whether `tokenizer` is not what tokenizer.json of `folder` says: see `with_tokenizer`;
        besides where another file was named, or dropout is stored.
    """

    notes: tuple[str, ...] = ()
    edited: bool = False

    def __init__(
        self,
        tokenizer: Tokenizer,
        config: Mapping[str, Any] | None = None,
        *,
        special_tokens_map: Mapping[str, Any] | None = None,
        chat_template: str | None = None,
        folder: Path | None = None,
    ) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        dropout = getattr(tokenizer.model, "dropout", None)
        if dropout is not None:
            tokenizer.model.dropout = None
        if dropout:
            self.notes = (
                f"{folder.name if folder is not None else 'the tokenizer'} stores a BPE dropout of "
                f"{dropout:g}, which cuts the same text another way each time; it is off here, and "
                "in what a surgery writes",
            )
            self.edited = True
        self.tokenizer = tokenizer
        self.raw_config: dict[str, Any] = dict(config or {})
        self.special_tokens_map: dict[str, Any] = dict(special_tokens_map or {})
        self.folder = folder
        self.carried: dict[str, bytes] = {}
        self.chat_template = chat_template or _template_of(self.raw_config)
        self._parts: Parts = read_parts(tokenizer)
        self.spellings: tuple[str | None, ...] = _spellings(tokenizer)
        self.n_rows = len(self.spellings)
        self._id_of = {s: i for i, s in enumerate(self.spellings) if s is not None}
        problems = post_processor_problems(self._parts.post_processor, self.spellings)
        if problems:
            where = f"{folder}: " if folder is not None else ""
            raise TokenizerError(f"{where}{problems[0]}; correct post_processor in tokenizer.json")
        named = {**self.special_tokens_map, **self.raw_config}
        roles, special = find_roles(named, self._parts, self._id_of)
        in_model = tokenizer.get_vocab(with_added_tokens=False)
        speller = Speller(tokenizer, self._parts, in_model)
        kinds = find_kinds(self.spellings, self._parts, roles, special, in_model)
        for i in special - set(roles.values()):
            if kinds[i] == Kind.CONTROL and speller.writes_text(i, self.spellings[i] or ""):
                kinds[i] = Kind.ORDINARY
        # Of two ids with one spelling, the tokenizer emits the last.
        kinds[[i for i, s in enumerate(self.spellings) if s and self._id_of[s] != i]] = Kind.UNUSED
        table = find_bytes(speller, self._parts, self.spellings, kinds)
        self.joins_with_space = speller.joins_with_space
        self.token_bytes: tuple[bytes | None, ...] = tuple(table)
        name_markers(roles, self.spellings, kinds)
        kinds.flags.writeable = False
        self.kinds: npt.NDArray[np.uint8] = kinds
        self.roles: Mapping[str, int] = MappingProxyType(roles)
        role_of: dict[int, tuple[str, ...]] = {}
        for role, token in roles.items():
            role_of[token] = (*role_of.get(token, ()), role)
        self.role_of: Mapping[int, tuple[str, ...]] = MappingProxyType(role_of)

    def __len__(self) -> int:
        return self.n_rows

    def __repr__(self) -> str:
        where = f", {self.folder.name!r}" if self.folder is not None else ""
        return f"Vocabulary({self._parts.model_type}, {self.n_rows} rows{where})"

    def with_tokenizer(self, tokenizer: Tokenizer) -> Vocabulary:
        """Return the vocabulary of a changed tokenizer, with this one's configuration and folder.

        The folder's tokenizer.json is then not the tokenizer's, and `edited` says so.
        """
        edited = Vocabulary(
            tokenizer,
            self.raw_config,
            special_tokens_map=self.special_tokens_map,
            chat_template=self.chat_template,
            folder=self.folder,
        )
        edited.notes, edited.edited = self.notes, True
        return edited

    # Ids

    @property
    def bos_id(self) -> int | None:
        """Id of the token that starts a text."""
        return self.roles.get("bos")

    @property
    def eos_id(self) -> int | None:
        """Id of the token that ends a text."""
        return self.roles.get("eos")

    @property
    def start_id(self) -> int | None:
        """Id that a text starts with: bos, else eos, else None."""
        return self.bos_id if self.bos_id is not None else self.eos_id

    @property
    def pad_id(self) -> int | None:
        """Id of the token that fills up a batch."""
        return self.roles.get("pad")

    @property
    def unk_id(self) -> int | None:
        """Id of the unknown token."""
        return self.roles.get("unk")

    def id_of(self, spelling: str) -> int | None:
        """Return the id with that spelling."""
        return self._id_of.get(spelling)

    def require_id(self, spelling: str) -> int:
        """Return the id with that spelling.

        Raises
        ------
        UnknownNameError
            If there is none; the message names the nearest spelling.
        """
        token = self._id_of.get(spelling)
        if token is not None:
            return token
        from difflib import get_close_matches

        near = [s for s in self._id_of if abs(len(s) - len(spelling)) <= 3]
        special = [self.spellings[i] or "" for i in np.flatnonzero(self.kinds >= Kind.CONTROL)]
        nearest = get_close_matches(spelling, special, 1) or get_close_matches(spelling, near, 1)
        hint = f"the nearest is {nearest[0]!r}" if nearest else "nothing is spelled like it"
        raise UnknownNameError(f"no token {spelling!r} among {len(self._id_of)} spellings; {hint}")

    def ids_of_bytes(self, data: bytes) -> tuple[int, ...]:
        """Return all ids with these bytes: ordinary ones before byte tokens."""
        return self._segmenter.ids_of_bytes(data)

    def preferred_ids(self, data: bytes) -> tuple[int, ...]:
        """Return all ids with these bytes; first comes the one that the tokenizer emits."""
        return self._segmenter.preferred(data)

    def repeated_bytes(self) -> dict[bytes, tuple[int, ...]]:
        """Return the bytes that several ids have, with those ids."""
        return self._segmenter.repeated()

    def emits(self, data: bytes) -> int | None:
        """Return the single id that the tokenizer emits for these bytes inside a text, or None."""
        return self._segmenter.emits(data)

    def pieces_of(self, data: bytes, forbid: Collection[int] = ()) -> tuple[int, ...] | None:
        """Return ids that spell exactly these bytes inside a text, none of them in `forbid`.

        The tokenizer's own segmentation (without a dummy prefix), if it spells the bytes without
        forbidden ids; else the fewest ids that do. Controls are never used.

        Returns
        -------
        tuple of int, or None
            None if no sequence of ids spells these bytes.
        """
        return self._segmenter.pieces_of(data, forbid)

    def near_pieces_of(self, data: bytes) -> tuple[int, ...] | None:
        """Return ids for these bytes after the tokenizer's normalisation (lower case, ...).

        Their bytes differ from `data` by normalisation, or by a space at either end. None if the
        tokenizer normalises nothing here, or needs an unknown token.
        """
        return self._segmenter.near_pieces_of(data)

    # Text

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text; no special token is added, none in the text is parsed."""
        return self._encoder.encode(text)

    def encode_with_bytes(self, text: str) -> Encoding:
        """Return the ids of a text with the byte offset at which each ends."""
        return self._encoder.encode_with_bytes(text)

    def encode_many(self, texts: Iterable[str]) -> list[Encoding]:
        """Return the encoding of each text, in order; batched."""
        return self._encoder.encode_many(texts)

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids as the tokenizer decodes them, controls included."""
        wanted = list(ids)
        return guarded(
            f"{len(wanted)} ids cannot be decoded",
            lambda: str(self.tokenizer.decode(wanted, skip_special_tokens=False)),
        )

    def bytes_of(self, ids: Iterable[int]) -> bytes:
        """Return the concatenated bytes of ids; controls have none."""
        return b"".join([self.token_bytes[i] or b"" for i in ids])

    # Facts

    @cached_property
    def number_scheme(self) -> str:
        """How digit runs are cut: see `cut_facts.number_scheme`."""
        return guarded(
            "the tokenizer fails on digits",
            lambda: number_scheme(self.tokenizer, self._encoder, self.token_bytes),
        )

    @cached_property
    def segmentation(self) -> dict[str, Any]:
        """Short facts on how text is cut; JSON values."""
        return guarded(
            "the tokenizer fails on a short text",
            lambda: segmentation_facts(
                self.tokenizer, self._parts, self._encoder, self._segmenter, self.number_scheme
            ),
        )

    @cached_property
    def fingerprint(self) -> str:
        """Sha256 of the table id → (bytes, kind, spelling), in hexadecimal."""
        digest = hashlib.sha256()
        for i, (spelling, data) in enumerate(zip(self.spellings, self.token_bytes, strict=True)):
            digest.update(repr((i, int(self.kinds[i]), spelling, data)).encode())
        return digest.hexdigest()

    # Made when first used

    @cached_property
    def _controls(self) -> frozenset[int]:
        return frozenset(np.flatnonzero(self.kinds != Kind.ORDINARY).tolist())

    @cached_property
    def _encoder(self) -> Encoder:
        text = text_copy(self.tokenizer, self._parts, self._controls)
        level, joins = self._parts.byte_level, self.joins_with_space
        return Encoder(text, self.spellings, self.token_bytes, level, joins)

    @cached_property
    def _segmenter(self) -> Segmenter:
        middle = midtext_copy(self.tokenizer, self._parts, self._controls)
        tables = self.spellings, self.token_bytes, self.kinds
        return Segmenter(middle, self._parts, *tables, self.joins_with_space)


def _spellings(tokenizer: Tokenizer) -> tuple[str | None, ...]:
    """Return every id's spelling."""
    ids = tokenizer.get_vocab(with_added_tokens=True)
    if not ids:
        raise TokenizerError("the tokenizer has no tokens; give one with a vocabulary")
    largest = max(ids.values())
    if largest >= most_rows(len(ids)):
        raise TokenizerError(
            f"the largest id of {len(ids)} tokens is {largest}; correct it, for ids are below "
            f"{most_rows(len(ids))} there"
        )
    if len(set(ids.values())) != len(ids):
        raise TokenizerError(
            f"{len(ids)} tokens share {len(set(ids.values()))} ids; give every token its own"
        )
    table: list[str | None] = [None] * (largest + 1)
    for spelling, token in ids.items():
        table[token] = spelling
    if len(ids) <= largest:
        # A Unigram list may contain a spelling twice; only the last of the two is in the mapping.
        for token, known in enumerate(table):
            if known is None:
                table[token] = tokenizer.id_to_token(token)
    return tuple(table)


def _template_of(config: Mapping[str, Any]) -> str | None:
    """Return the (default) chat template of a tokenizer configuration."""
    template = config.get("chat_template")
    if isinstance(template, list):
        named = {t.get("name"): t.get("template") for t in template if isinstance(t, dict)}
        template = named.get("default")
    return template if isinstance(template, str) else None
