"""From bytes to the ids that spell them.

The natural route asks the tokenizer itself, as if the bytes were in the middle of a text: no dummy
prefix, no BOS, its own pre-tokenizer and merges. Its answer is taken if the concatenated bytes of
the ids are exactly the bytes asked for. Otherwise dynamic programming finds the fewest ids that
spell the bytes. Which token the bytes came from plays no part.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from tokensurgeon.errors import TokenizerError
from tokensurgeon.vocabulary.kinds import Kind
from tokensurgeon.vocabulary.parts import Parts, guarded, plain_normalizer
from tokensurgeon.vocabulary.token_bytes import to_alphabet

_CACHE_LIMIT = 1 << 18
"""Natural routes kept in memory: as many as a large vocabulary has tokens."""

Pieces = tuple[int, ...]


class Segmenter:
    """Spells bytes with the ids of one vocabulary.

    Parameters
    ----------
    tokenizer : Tokenizer
        The copy that encodes its input as the middle of a text.
    parts : Parts
    spellings, token_bytes, kinds
        The vocabulary's tables, by id.
    joins_with_space : bool
        Whether plain tokens are joined with spaces when decoded.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        parts: Parts,
        spellings: Sequence[str | None],
        token_bytes: Sequence[bytes | None],
        kinds: npt.NDArray[np.uint8],
        joins_with_space: bool,
    ) -> None:
        self._tokenizer = tokenizer
        self._parts = parts
        self._token_bytes = token_bytes
        self._spellings = spellings
        self._kinds = kinds
        self.joins_with_space = joins_with_space
        self._loose_edges = joins_with_space or bool(parts.model.get("end_of_word_suffix"))
        self._normalizer = plain_normalizer(parts)
        self.natural: Callable[[bytes], Pieces | None]
        self.natural = lru_cache(maxsize=_CACHE_LIMIT)(self._find_natural)
        """Returns the tokenizer's own ids for bytes inside a text, if these spell them."""
        self.longest = max((len(data) for data in token_bytes if data), default=0)
        """Bytes of the longest token."""
        table: dict[bytes, list[int]] = {}
        for i, data in enumerate(token_bytes):
            if data is not None:
                table.setdefault(data, []).append(i)
        self._ids: dict[bytes, Pieces] = {}
        for data, ids in table.items():
            if len(ids) > 1:
                ids.sort(key=lambda i: (int(kinds[i]), spellings[i] or "", i))
            self._ids[data] = tuple(ids)
        self._byte_ids: dict[int, Pieces] = {
            data[0]: ids[-1:]
            for data, ids in self._ids.items()
            if len(data) == 1 and kinds[ids[-1]] == Kind.BYTE
        }

    def ids_of_bytes(self, data: bytes) -> Pieces:
        """Return all ids with these bytes: ordinary before byte tokens, then by spelling."""
        return self._ids.get(data, ())

    def repeated(self) -> dict[bytes, Pieces]:
        """Return the bytes that several ids have, with those ids."""
        return {data: ids for data, ids in self._ids.items() if len(ids) > 1}

    def preferred(self, data: bytes) -> Pieces:
        """Return all ids with these bytes; first comes the one that the tokenizer emits."""
        ids = self._ids.get(data, ())
        if len(ids) < 2:
            return ids
        emitted = self.emits(data)
        return tuple(sorted(ids, key=lambda i: i != emitted))

    def emits(self, data: bytes) -> int | None:
        """Return the single id that the tokenizer emits for these bytes inside a text, or None."""
        pieces = self.natural(data)
        return pieces[0] if pieces is not None and len(pieces) == 1 else None

    def pieces_of(self, data: bytes, forbid: Collection[int] = ()) -> Pieces | None:
        """Return ids that spell exactly these bytes, or None if there are none."""
        if not data:
            return ()
        banned = forbid if isinstance(forbid, (set, frozenset)) else frozenset(forbid)
        natural = self.natural(data)
        if natural is not None and not (banned and banned.intersection(natural)):
            return natural
        if self._parts.model_type == "WordPiece":
            greedy = self._greedy(data, banned)
            if greedy is not None:
                return greedy
        return self._fewest(data, banned)

    def near_pieces_of(self, data: bytes) -> Pieces | None:
        """Return the ids that the tokenizer gives for the bytes after its normalisation.

        They spell the normalised bytes, except for a space at either end where the tokenizer has
        the token in one state only (word-initial or continuing). None if the tokenizer normalises
        nothing here, or needs an unknown token.
        """
        if self._normalizer is None and not self._loose_edges:
            return None
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            return None
        wanted = text if self._normalizer is None else self._normalizer.normalize_str(text)
        ids = self._encode(text)
        spelled, goal = self._spelled(ids), wanted.encode()
        if spelled is None:
            return None
        loosely = self._loose_edges and wanted.strip(" ") and _trim(spelled) == _trim(goal)
        return ids if spelled == goal or loosely else None

    # The natural route

    def _find_natural(self, data: bytes) -> Pieces | None:
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            return self._natural_of_broken(data)
        return self._checked(self._encode(text), data)

    def _checked(self, ids: Pieces | None, data: bytes) -> Pieces | None:
        return ids if self._spelled(ids) == data else None

    def _spelled(self, ids: Pieces | None) -> bytes | None:
        """Return the bytes of ids; None if there are no ids, or one has no bytes."""
        table = self._token_bytes
        parts = [part for i in ids or () if i < len(table) and (part := table[i]) is not None]
        return b"".join(parts) if ids and len(parts) == len(ids) else None

    def _encode(self, text: str) -> Pieces | None:
        """Encode a text as the middle of a text; None if the tokenizer cannot write it."""
        try:
            encoded = guarded(
                "encoding", lambda: self._tokenizer.encode(text, add_special_tokens=False)
            )
        except TokenizerError:  # a Unigram model without unknown token cannot write it
            return None
        return tuple(encoded.ids)

    def _natural_of_broken(self, data: bytes) -> Pieces | None:
        """Return ids of bytes that are not valid UTF-8."""
        if self._parts.byte_level:
            spelled = to_alphabet(data)
            try:
                tokens = guarded("encoding", lambda: self._tokenizer.model.tokenize(spelled))
            except TokenizerError:
                return None
            return self._checked(tuple(token.id for token in tokens), data)
        pieces: Pieces = ()
        for part in _stretches(data):
            inner = self.natural(part) if isinstance(part, bytes) else self._byte_ids.get(part)
            if inner is None:
                return None
            pieces += inner
        return pieces

    # Where the natural route does not spell the bytes

    def _allowed(self, data: bytes, banned: Collection[int]) -> int | None:
        ids = self.preferred(data)
        return next((i for i in ids if i not in banned), None) if ids else None

    def _greedy(self, data: bytes, banned: Collection[int]) -> Pieces | None:
        """Take the longest token again and again, as a WordPiece model does."""
        pieces: list[int] = []
        start = 0
        while start < len(data):
            for end in range(min(len(data), start + self.longest), start, -1):
                token = self._allowed(data[start:end], banned)
                if token is not None:
                    pieces.append(token)
                    start = end
                    break
            else:
                return None
        return tuple(pieces)

    def _fewest(self, data: bytes, banned: Collection[int]) -> Pieces | None:
        """Return the fewest ids; among equals, fewer byte tokens, then the longest first piece."""
        n = len(data)
        # best[s] = (count, byte tokens, end of the first piece, its id) for data[s:]
        best: list[tuple[int, int, int, int] | None] = [None] * n + [(0, 0, n, -1)]
        for start in range(n - 1, -1, -1):
            winner: tuple[int, int, int, int] | None = None
            for end in range(min(n, start + self.longest), start, -1):
                rest = best[end]
                if rest is None or (winner is not None and rest[0] + 1 > winner[0]):
                    continue
                token = self._allowed(data[start:end], banned)
                if token is None:
                    continue
                cost = (rest[0] + 1, rest[1] + int(self._kinds[token] == Kind.BYTE))
                if winner is None or cost < winner[:2]:
                    winner = (*cost, end, token)
            best[start] = winner
        pieces: list[int] = []
        start = 0
        while start < n:
            step = best[start]
            if step is None:
                return None
            pieces.append(step[3])
            start = step[2]
        return tuple(pieces)


def _trim(data: bytes) -> bytes:
    """Return the bytes without one space at either end."""
    return data.removeprefix(b" ").removesuffix(b" ")


def _stretches(data: bytes) -> list[bytes | int]:
    """Cut bytes into stretches of valid UTF-8 and single bytes that are in none.

    >>> _stretches(bytes([65, 66, 0xE3, 67]))
    [b'AB', 227, b'C']
    """
    stretches: list[bytes | int] = []
    for character in data.decode("utf-8", "surrogateescape"):
        code = ord(character)
        if 0xDC80 <= code <= 0xDCFF:
            stretches.append(code - 0xDC00)
        elif stretches and isinstance(stretches[-1], bytes):
            stretches[-1] += character.encode()
        else:
            stretches.append(character.encode())
    return stretches
