r"""Which parts of a tokenizer.json are plain, and which are tried before they are used.

A part is plain if its kind is known to take time and memory in proportion to the text, and to fail
on none. Nothing is run here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import prod
from typing import Any

from tokensurgeon.vocabulary.parts import walk

MOST_GROWTH = 8
"""Bytes that replacements may make of one, unless tried: U+2581 for a space has three."""
MOST_EDGE = 64
"""Characters put in front of a text, or taken from its ends, unless tried: published are one."""

PLAIN = {
    "normalizer": "Sequence BertNormalizer NFC NFD NFKC NFKD Nmt Lowercase Strip StripAccents "
    "Prepend Replace Precompiled ByteLevel",
    "pre_tokenizer": "Sequence BertPreTokenizer ByteLevel Metaspace Whitespace WhitespaceSplit "
    "Digits Punctuation UnicodeScripts CharDelimiterSplit Split",
    "decoder": "Sequence BPEDecoder ByteLevel ByteFallback CTC Fuse Metaspace Replace Strip "
    "WordPiece",
    "post_processor": "Sequence BertProcessing RobertaProcessing TemplateProcessing ByteLevel",
}
"""By part, the kinds that are plain unless `_odd` says something of their settings."""

_PUBLISHED = (r" {2,}", r"\s+", r"^ +| +$", r"[\n\r\t]")
"""Patterns of replacements in published tokenizers; each matches at least one character."""


def odd_part(document: Mapping[str, Any]) -> str | None:
    """Return what is not plain in the parts of a tokenizer.json; None if all are."""
    for name, kinds in PLAIN.items():
        parts = list(walk(document.get(name)))
        for part in parts:
            if not isinstance(part["type"], str) or part["type"] not in kinds.split():
                return f"a {name} of the kind {str(part['type'])[:40]!r}"
        growth = prod(max(1.0, _growth(part)) for part in parts)
        if growth > MOST_GROWTH:
            return f"replacements that make up to {growth:,.0f} bytes of one"
        odd = next(filter(None, map(_odd, parts)), None)
        if odd is not None:
            return odd
    return None


def odd_model(model: Any) -> str | None:
    """Return what is not plain in a model, apart from its tables."""
    prefix = model.get("continuing_subword_prefix") if isinstance(model, dict) else None
    if prefix and model.get("type") == "BPE":
        return f"merges of pieces that begin with {str(prefix)[:40]!r}"
    return None


def _odd(part: Mapping[str, Any]) -> str | None:
    """Return what is not plain in the settings of a part."""
    pattern, kind = part.get("pattern"), part["type"]
    if isinstance(pattern, dict):
        if pattern.get("String") == "":
            return f"the empty text as what {kind} looks for"
        regex = pattern.get("Regex")
        known = kind != "Replace" or regex in _PUBLISHED
        if isinstance(regex, str) and (may_backtrack(regex) or not known):
            return f"the pattern {regex[:60]!r}"
    if kind == "Prepend" and len(str(part.get("prepend"))) > MOST_EDGE:
        return f"{len(str(part['prepend'])):,} characters put in front of every text"
    stripped = max(_number(part.get("start")), _number(part.get("stop")))
    if kind == "Strip" and stripped > MOST_EDGE:
        return f"{stripped:,} characters taken from the ends of a text"
    return None


def _growth(part: Mapping[str, Any]) -> float:
    """Return how many bytes a replacement makes of one, at most."""
    content, pattern = part.get("content"), part.get("pattern")
    if part["type"] != "Replace" or not isinstance(content, str) or not isinstance(pattern, dict):
        return 1.0
    looked_for = pattern.get("String")
    shortest = len(looked_for.encode("utf-8", "replace")) if isinstance(looked_for, str) else 1
    return len(content.encode("utf-8", "replace")) / max(1, shortest)


def _number(value: Any) -> float:
    return value if isinstance(value, (int, float)) else 0


_ATOM = re.compile(r"\\.|\[(?:\\.|[^\]\\])*\]", re.DOTALL)
"""An escape or a class of characters: neither contains a group or a repeat."""
_REPEAT = re.compile(r"[*+]|\{\d*,\d*\}")


def may_backtrack(pattern: str) -> bool:
    r"""Return whether a pattern may take exponential time: repeats in repeats, or back references.

    Examples
    --------
    >>> may_backtrack(r"(a+)+$"), may_backtrack(r"(?i:'s|'t)|[^\r\n]?\p{L}+|\s+(?!\S)")
    (True, False)
    """
    if re.search(r"\\[1-9kg]", pattern):
        return True
    plain = _ATOM.sub("a", re.sub(r"\\[pP]\{[^}]*\}", "a", pattern))
    varies = [False]  # for each open group, whether it contains a repeat or a choice
    for at, letter in enumerate(plain):
        if letter == "(":
            varies.append(False)
        elif letter == ")":
            inner_varies = len(varies) > 1 and varies.pop()
            repeated = _REPEAT.match(plain, at + 1) is not None
            if inner_varies and repeated:
                return True
            varies[-1] |= inner_varies
        elif letter == "|" or _REPEAT.match(plain, at) is not None:
            varies[-1] = True
    return False
