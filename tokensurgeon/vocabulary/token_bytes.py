"""The exact bytes of each token, from the tokenizer's own decoder.

A token's bytes are what it adds between two other tokens: " the" for SentencePiece's ▁the, " the"
for WordPiece's `the` and "the" for its `##the`, "the " for `the</w>`. A space that a decoder puts
between two words belongs to the right one. What happens at the edges of a text (a stripped first
space, a missing last one) is not a token's business.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from tokensurgeon.vocabulary.kinds import BYTE_TOKEN, Kind
from tokensurgeon.vocabulary.parts import SPACE_MARK, Parts


def byte_alphabet() -> dict[int, str]:
    """Return GPT-2's byte → character table: printable bytes stand for themselves.

    >>> byte_alphabet()[32]
    'Ġ'
    """
    kept = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {byte: chr(byte) for byte in kept}
    moved = [byte for byte in range(256) if byte not in table]
    table.update({byte: chr(256 + n) for n, byte in enumerate(moved)})
    return table


_TO_CHARACTER = byte_alphabet()
_TO_BYTE = {character: byte for byte, character in _TO_CHARACTER.items()}


def to_alphabet(data: bytes) -> str:
    """Write bytes in the byte alphabet."""
    return "".join(_TO_CHARACTER[byte] for byte in data)


def from_alphabet(spelling: str) -> bytes:
    """Read a token written in the byte alphabet; one that is not is taken as its own UTF-8."""
    try:
        return bytes([_TO_BYTE[character] for character in spelling])
    except KeyError:
        return spelling.encode("utf-8", "surrogatepass")


class Speller:
    """Says which bytes a model token stands for."""

    def __init__(self, tokenizer: Tokenizer, parts: Parts) -> None:
        self._decoder = tokenizer.decoder
        self._byte_level = parts.byte_level
        # A WordPiece over bytes marks what continues a word, as any WordPiece does.
        wordpiece = parts.byte_level and parts.model_type == "WordPiece"
        self._continues = parts.model["continuing_subword_prefix"] if wordpiece else ""
        self._marks_spaces = parts.marks_spaces
        self.joins_with_space = False
        """Whether decoding puts a space between two plain tokens."""
        if self._byte_level:
            return
        if self._decoder is not None:
            self._right = self._decode(["x", "y"])[1:]
            self.joins_with_space = self._right == " y"
        else:
            # Without a decoder tokens are joined with spaces; yet where the pre-tokenizer keeps
            # the spaces of the text, the tokens hold them already.
            pre_tokenizer = tokenizer.pre_tokenizer
            cut = pre_tokenizer.pre_tokenize_str("x y") if pre_tokenizer is not None else None
            self.joins_with_space = (
                not self._marks_spaces
                and cut is not None
                and sum(end - start for _, (start, end) in cut) < len("x y")
            )

    def _decode(self, tokens: list[str]) -> str:
        return str(self._decoder.decode(tokens))

    def spell(self, spelling: str) -> bytes:
        """Return the bytes of a model token that is neither control nor byte token."""
        if self._byte_level:
            return from_alphabet(spelling.removeprefix(self._continues))
        if self._decoder is None:
            text = spelling.replace(SPACE_MARK, " ") if self._marks_spaces else spelling
            return (" " + text if self.joins_with_space else text).encode("utf-8", "surrogatepass")
        if BYTE_TOKEN.match(spelling):
            # Not a byte token of this model, so the text <0x41> is what it was learnt from.
            return spelling.encode()
        between = self._decode(["x", spelling, "y"])
        if not between.startswith("x") or not between.endswith("y"):
            return spelling.encode("utf-8", "surrogatepass")
        end = len(self._right) if between.endswith(self._right) else 1
        return between[1 : max(1, len(between) - end)].encode("utf-8", "surrogatepass")


def find_bytes(
    tokenizer: Tokenizer,
    parts: Parts,
    spellings: Sequence[str | None],
    kinds: npt.NDArray[np.uint8],
) -> tuple[list[bytes | None], bool]:
    """Return each id's bytes (None for controls, unused ids and holes).

    Ids that add nothing at all are made `UNUSED` in `kinds`. The second value says whether plain
    tokens are joined with spaces.
    """
    speller = Speller(tokenizer, parts)
    table: list[bytes | None] = []
    text, byte = int(Kind.ORDINARY), int(Kind.BYTE)
    for i, (spelling, kind) in enumerate(zip(spellings, kinds.tolist(), strict=True)):
        if spelling is None or kind not in (text, byte):
            table.append(None)
            continue
        if kind == byte:
            data = bytes.fromhex(spelling[3:5])
        elif i in parts.added:
            data = spelling.encode("utf-8", "surrogatepass")
        else:
            data = speller.spell(spelling)
        if not data:
            kinds[i] = Kind.UNUSED
        table.append(data or None)
    return table, speller.joins_with_space
