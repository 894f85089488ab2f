"""Where a tokenizer cuts a text, token by token, and how bytes are made visible."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tokensurgeon.vocabulary import Vocabulary

_VISIBLE = {" ": "·", "\t": "→", "\n": "⏎", "\r": "␍", "\u00a0": "⍽"}


@dataclass(frozen=True)
class Span:
    """A token and the part of the text that it covers.

    Attributes
    ----------
    id : int
    data : bytes
        The bytes of the text that it covers; the spans together cover the text. Empty for a token
        of what the normalizer inserted.
    token : bytes or None
        The token's own bytes. They differ from `data` if the tokenizer loses text or adds a space.
    """

    id: int
    data: bytes
    token: bytes | None

    @property
    def shown(self) -> str:
        """The text covered, with visible white space."""
        return visible(self.data)

    @property
    def about(self) -> str:
        """The id and the token's bytes."""
        if self.token is None:
            return f"id {self.id}, not text"
        size = f"{len(self.token)} byte{'' if len(self.token) == 1 else 's'}"
        more = " …" if len(self.token) > 24 else ""
        return f"id {self.id}, {size}: {self.token[:24].hex(' ')}{more}"


@dataclass(frozen=True)
class Excerpt:
    """A part of a text, and its spans in each tokenizer."""

    name: str
    text: str
    cuts: tuple[tuple[Span, ...], ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the text with each tokenizer's ids and the lengths in bytes that they cover."""
        return {
            "name": self.name,
            "text": self.text,
            "cuts": [
                {"ids": [s.id for s in spans], "bytes": [len(s.data) for s in spans]}
                for spans in self.cuts
            ],
        }


def spans_of(vocabulary: Vocabulary, text: str) -> tuple[Span, ...]:
    """Return the tokens of a text with the part that each covers.

    The first one covers everything up to its end, so that no text is left out.
    """
    encoding = vocabulary.encode_with_bytes(text)
    data = text.encode()
    spans, start = [], 0
    for token, end in zip(encoding.ids, encoding.ends.tolist(), strict=True):
        spans.append(Span(token, data[start:end], vocabulary.token_bytes[token]))
        start = end
    return tuple(spans)


def excerpt(name: str, text: str, size: int, vocabularies: Sequence[Vocabulary]) -> Excerpt:
    """Return the first bytes of a text, up to a line end or a space, in each vocabulary."""
    data = text.encode()
    if len(data) > size:
        text = data[:size].decode("utf-8", "ignore")
        cut = max(text.rfind("\n") + 1, text.rfind(" "))
        text = text[:cut] if cut > size // 2 else text
    return Excerpt(name, text, tuple(spans_of(vocabulary, text) for vocabulary in vocabularies))


def visible(data: bytes) -> str:
    r"""Return bytes as text with visible white space; bytes outside UTF-8 are in ⟨hexadecimal⟩.

    A line end becomes a sign and a line end.

    Examples
    --------
    >>> visible(b" a\tb"), visible("é".encode()[:1])
    ('·a→b', '⟨c3⟩')
    """
    shown = []
    for character in data.decode("utf-8", "surrogateescape"):
        code = ord(character)
        if 0xDC80 <= code <= 0xDCFF:
            shown.append(f"⟨{code - 0xDC00:02x}⟩")
        elif character in _VISIBLE:
            shown.append(_VISIBLE[character] + ("\n" if character == "\n" else ""))
        elif character.isprintable():
            shown.append(character)
        else:
            shown.append(f"⟨U+{code:04X}⟩")
    return "".join(shown)


def quoted(data: bytes, limit: int = 40) -> str:
    r"""Return bytes as a short quoted text, or as hexadecimal if they are not UTF-8.

    Examples
    --------
    >>> quoted(b" the"), quoted(b"\xe3\x81"), quoted(b"-" * 50, limit=5)
    ("' the'", '0xe381', "'-----…'")
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return f"0x{data[:limit].hex()}{'…' if len(data) > limit else ''}"
    return repr(text if len(text) <= limit else text[:limit] + "…")
