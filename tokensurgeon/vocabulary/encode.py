"""From text to ids, with the byte offset at which each token ends.

Where the ids' bytes spell the text, offsets are sums of token lengths: exact even inside a
character that several byte-level tokens share. Elsewhere the tokenizer's own character offsets are
turned into bytes, and the encoding is marked as not lossless.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import tokenizers
from tokenizers import Tokenizer

from tokensurgeon.arrays import Ids
from tokensurgeon.vocabulary.parts import guarded

_BATCH = 256
"""Texts of one call to the library: enough to occupy its threads, few enough to be held."""


@dataclass(frozen=True)
class Encoding:
    """The ids of a text.

    Attributes
    ----------
    ids : list of int
        No special token is added, and none in the text is parsed.
    ends : int64 (len(ids),)
        Byte offset in the text's UTF-8 at which each token ends; ascending. The last one is
        `n_bytes`.
    lossless : bool
        Whether decoding gives the text back byte for byte, up to a space that the tokenizer puts
        in front of every text.
    n_bytes : int
        Length of the text in UTF-8.
    """

    ids: list[int]
    ends: Ids
    lossless: bool
    n_bytes: int

    def __len__(self) -> int:
        return len(self.ids)


class Encoder:
    """Encodes texts under one vocabulary.

    Parameters
    ----------
    tokenizer : Tokenizer
        The copy that encodes text as text.
    spellings, token_bytes
        The vocabulary's tables, by id.
    byte_level : bool
        Whether tokens are written in the byte alphabet: decoding then strips nothing.
    joins_with_space : bool
        Whether plain tokens are joined with spaces when decoded.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        spellings: Sequence[str | None],
        token_bytes: Sequence[bytes | None],
        byte_level: bool,
        joins_with_space: bool,
    ) -> None:
        self._tokenizer = tokenizer
        self._token_bytes = token_bytes
        self._lengths = np.array([len(data or b"") for data in token_bytes], dtype=np.int64)
        spelled = (b"".join(token_bytes[i] or b"" for i in self.encode(c)) for c in "xae1")
        self.adds_prefix = joins_with_space or any(data.startswith(b" ") for data in spelled)
        """Whether the tokenizer puts a space in front of a text."""
        self._strips_front = not byte_level and self._strips(spellings, front=True)
        self._strips_back = not byte_level and self._strips(spellings, front=False)

    def _strips(self, spellings: Sequence[str | None], front: bool) -> bool:
        """Return whether decoding a whole text removes a space from one of its ends."""
        for spelling, data in zip(spellings, self._token_bytes, strict=True):
            if data is None or spelling is None or len(data) < 2 or not data.strip(b" ").isalpha():
                continue
            if data.startswith(b" ") if front else data.endswith(b" "):
                decoder = self._tokenizer.decoder
                text = decoder.decode([spelling]) if decoder is not None else spelling
                return not (text.startswith(" ") if front else text.endswith(" "))
        return False

    def _encode(self, text: str) -> tokenizers.Encoding:
        return guarded(
            f"a text of {len(text)} characters cannot be encoded",
            lambda: self._tokenizer.encode(text, add_special_tokens=False),
        )

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text."""
        return self._encode(text).ids

    def encode_with_bytes(self, text: str) -> Encoding:
        """Return the ids of a text and the byte offset at which each ends."""
        return self._with_ends(text, self._encode(text))

    def encode_many(self, texts: Iterable[str]) -> list[Encoding]:
        """Return the encoding of each text; batched."""
        results: list[Encoding] = []
        remaining = iter(texts)
        while batch := list(islice(remaining, _BATCH)):
            encoded = guarded(
                f"one of {len(batch)} texts cannot be encoded",
                lambda batch=batch: self._tokenizer.encode_batch(  # type: ignore[misc]
                    batch, add_special_tokens=False
                ),
            )
            results.extend(map(self._with_ends, batch, encoded))
        return results

    def _with_ends(self, text: str, encoded: tokenizers.Encoding) -> Encoding:
        """Return an encoding with ends from token lengths, where its ids spell the text."""
        data, ids = text.encode(), encoded.ids
        table = self._token_bytes
        parts = [part for i in ids if (part := table[i]) is not None]
        if len(parts) < len(ids):
            return self._by_offsets(text, encoded)
        joined = b"".join(parts)
        lossless = True
        offset = 0
        if joined == data:
            # Where the decoder strips a space that encoding did not add, two texts share their ids.
            lossless = not (
                (self._strips_front and data.startswith(b" "))
                or (self._strips_back and data.endswith(b" "))
            )
        elif self.adds_prefix and joined == b" " + data:
            offset = 1
        elif not (self._strips_back and joined == data + b" "):
            return self._by_offsets(text, encoded)
        ends = np.cumsum(self._lengths[np.asarray(ids, dtype=np.int64)]) - offset
        return Encoding(ids, np.clip(ends, 0, len(data)), lossless, len(data))

    def _by_offsets(self, text: str, encoded: tokenizers.Encoding) -> Encoding:
        """Return the encoding from the tokenizer's character offsets."""
        data = text.encode()
        ids = list(encoded.ids)
        if not ids:
            return Encoding(ids, np.zeros(0, dtype=np.int64), not data, len(data))
        widths = np.fromiter((len(c.encode()) for c in text), dtype=np.int64, count=len(text))
        before = np.concatenate([[0], np.cumsum(widths)])
        ends = np.array([end for _, end in encoded.offsets], dtype=np.int64)
        ends = np.maximum.accumulate(before[np.clip(ends, 0, len(text))])
        ends[-1] = len(data)
        return Encoding(ids, ends, False, len(data))
