"""The exact bytes of each token, from the tokenizer's own decoder.

A token's bytes are what it adds between two other tokens: " the" for SentencePiece's ▁the, " the"
for WordPiece's `the` and "the" for its `##the`, "the " for `the</w>`. A space that a decoder puts
between two words belongs to the right one. What a decoder does at the ends of a text (it may strip
the first or last space) is not counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from tokensurgeon.errors import TokenizerError
from tokensurgeon.vocabulary.kinds import BYTE_TOKEN, Kind, looks_like_marker
from tokensurgeon.vocabulary.parts import SPACE_MARK, Parts, guarded


def byte_alphabet() -> dict[int, str]:
    """Return GPT-2's byte → character table: printable bytes stand for themselves.

    >>> byte_alphabet()[32]
    'Ġ'
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {byte: chr(byte) for byte in printable}
    others = [byte for byte in range(256) if byte not in table]
    table.update({byte: chr(256 + n) for n, byte in enumerate(others)})
    return table


@lru_cache(maxsize=1)
def byte_order() -> tuple[int, ...]:
    """Return the 256 bytes in the order of the characters that stand for them."""
    return tuple(byte for _, byte in sorted((c, b) for b, c in byte_alphabet().items()))


_TO_CHARACTER = byte_alphabet()
_TO_BYTE = {character: byte for byte, character in _TO_CHARACTER.items()}


def to_alphabet(data: bytes) -> str:
    """Write bytes in the byte alphabet."""
    return "".join(_TO_CHARACTER[byte] for byte in data)


def from_alphabet(spelling: str) -> bytes:
    """Read a token written in the byte alphabet; return any other token as UTF-8."""
    try:
        return bytes([_TO_BYTE[character] for character in spelling])
    except KeyError:
        return spelling.encode("utf-8", "surrogatepass")


class Speller:
    """Spells tokens as bytes.

    Parameters
    ----------
    tokenizer : Tokenizer
    parts : Parts
        Of that tokenizer.
    in_model : mapping of str to int
        The ids of the model's own tokens, without the added ones.
    """

    def __init__(self, tokenizer: Tokenizer, parts: Parts, in_model: Mapping[str, int]) -> None:
        self._tokenizer = tokenizer
        self._in_model = in_model
        self._model = parts.model
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
            # Without a decoder, tokens are joined with spaces, unless the pre-tokenizer keeps the
            # spaces of the text: then the tokens contain them already.
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
            # This model has no byte fallback, so the token stands for the text <0x41> itself.
            return spelling.encode()
        between = self._decode(["x", spelling, "y"])
        if not between.startswith("x") or not between.endswith("y"):
            return spelling.encode("utf-8", "surrogatepass")
        end = len(self._right) if between.endswith(self._right) else 1
        return between[1 : max(1, len(between) - end)].encode("utf-8", "surrogatepass")

    def spell_added(self, token: int, spelling: str) -> bytes:
        """Return the bytes of an added token: those of the text for which it is emitted.

        An added token stands for its spelling as it is, unless the model has it too and makes it of
        other text ('Ġthe' of " the"), or normalisation makes its spelling of other text.
        """
        literal = spelling.encode("utf-8", "surrogatepass")
        own = self.spell(spelling)
        if own == literal or self._model_makes(token, spelling):
            return own
        if spelling in self._in_model or self.joins_with_space:
            return literal
        text = own.decode("utf-8", "ignore")
        emitted = text.encode() == own and any(
            token in self._ids(before + text) for before in ("", "x")
        )
        return own if emitted else literal

    def writes_text(self, token: int, spelling: str) -> bool:
        """Say whether the model makes a token of plain text, even if the file calls it special.

        Controls stand in a model's table too, so that it finds them by their spelling. It is text
        where it is made of *other* text ('Ġthe' of " the"), or by merges, which controls have none.
        """
        own, literal = self.spell(spelling), spelling.encode("utf-8", "surrogatepass")
        other = own not in (literal, b" " + literal)
        if looks_like_marker(own.decode("utf-8", "replace").strip()):
            return False
        return (other or self._merges_make(spelling)) and self._model_makes(token, spelling)

    def _merges_make(self, spelling: str) -> bool:
        """Say whether only merges can give such a token."""
        model = self._model
        return model.get("type") == "BPE" and not model.get("ignore_merges") and len(spelling) > 1

    def _model_makes(self, token: int, spelling: str) -> bool:
        """Say whether the model makes this token of its own spelling, with the merges it has."""
        if self._in_model.get(spelling) != token:
            return False
        word = spelling.removesuffix(self._model.get("end_of_word_suffix") or "")
        try:
            pieces = guarded("a token", lambda: self._tokenizer.model.tokenize(word))
        except TokenizerError:
            return False
        return [piece.id for piece in pieces] == [token]

    def _ids(self, text: str) -> list[int]:
        try:
            return guarded(
                "a token", lambda: list(self._tokenizer.encode(text, add_special_tokens=False).ids)
            )
        except TokenizerError:
            return []


def find_bytes(
    speller: Speller,
    parts: Parts,
    spellings: Sequence[str | None],
    kinds: npt.NDArray[np.uint8],
) -> list[bytes | None]:
    """Return each id's bytes (None for controls, unused ids and holes).

    Ids without any bytes become `UNUSED` in `kinds`.
    """
    table: list[bytes | None] = []
    ordinary, byte = int(Kind.ORDINARY), int(Kind.BYTE)
    for i, (spelling, kind) in enumerate(zip(spellings, kinds.tolist(), strict=True)):
        if spelling is None or kind not in (ordinary, byte):
            table.append(None)
            continue
        if kind == byte:
            data = bytes.fromhex(spelling[3:5])
        elif i in parts.added:
            data = speller.spell_added(i, spelling)
        else:
            data = speller.spell(spelling)
        if not data:
            kinds[i] = Kind.UNUSED
        table.append(data or None)
    return table
