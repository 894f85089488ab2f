"""What each id is: text, a byte, a control token, unused or a hole; and which role a control has.

An added token is judged by its flag, by the configuration and by its spelling. A token of the model
is judged by the configuration alone, but for the model's unknown token and reserved spellings.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from tokensurgeon.vocabulary.parts import Parts


class Kind(IntEnum):
    """What an id stands for."""

    ORDINARY = 0
    """Text."""
    BYTE = 1
    """A byte-fallback token such as <0x41>."""
    CONTROL = 2
    """Not text: a role or a marker; never spelled."""
    UNUSED = 3
    """Reserved, or can never be produced."""
    PADDING = 4
    """An id without a token."""


STANDARD_ROLES = ("bos", "eos", "pad", "unk", "mask", "cls", "sep")

BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>\Z")

_UNUSED = re.compile(
    r"(?:[<\[][|｜]?[ _]*(?:unused|reserved|not[_ -]?used|extra_?(?=\d)|dummy|placeholder|"
    r"special_(?=\d))[\w ▁-]*[|｜]?[>\]]|madeupword\d+)\Z",
    re.IGNORECASE,
)
_MARKER = re.compile(
    r"(?:</?[|｜].*[|｜]>|<(?P<tag>/?[A-Za-z_][\w.:/-]*)>|<</?\w+>>|"
    r"\[/?[A-Z][A-Z_ ]*\]|\|\|\|\w+\|\|\|)\Z"
)
_HTML_TAGS = """
a article audio b blockquote body br button canvas caption code column dd del div dl dt em
figcaption figure footer form h1 h2 h3 h4 h5 h6 head header hr html i iframe img input ins label li
link main meta nav ol option p pre q row script section select small span strong style sub sup svg
table tbody td textarea tfoot th thead title tr u ul video xml
"""
_HTML = frozenset(_HTML_TAGS.split())
_SPELLED_ROLES = {
    "bos": ("<s>", "<bos>", "<|begin_of_text|>", "<|startoftext|>", "<|bos|>", "[BOS]"),
    "eos": ("</s>", "<eos>", "<|end_of_text|>", "<|endoftext|>", "<|eos|>", "[EOS]"),
    "pad": ("<pad>", "[PAD]", "<|pad|>", "<|padding|>", "<|PAD|>"),
    "unk": ("<unk>", "[UNK]", "<|unk|>", "<|UNK|>"),
    "mask": ("[MASK]", "<mask>", "<|mask|>"),
    "cls": ("[CLS]", "<cls>", "<|cls|>"),
    "sep": ("[SEP]", "<sep>", "<|sep|>"),
}


def looks_like_marker(spelling: str) -> bool:
    """Return whether an added token is spelled like a marker rather than like text.

    HTML tags are text: vocabularies for code and the web add them.
    """
    marker = _MARKER.match(spelling)
    if marker is None:
        return False
    tag = marker.group("tag")
    return tag is None or tag.strip("/").lower() not in _HTML


def looks_unused(spelling: str) -> bool:
    """Return whether a token is spelled like a reserved one: [unused12], <|reserved_3|>."""
    return _UNUSED.match(spelling) is not None


def _named(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (role, spelling) for every `*_token` of a tokenizer configuration."""
    for key, value in config.items():
        content = value.get("content") if isinstance(value, dict) else value
        if key.endswith("_token") and isinstance(content, str) and content:
            yield key[: -len("_token")], content


def _listed(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield the spellings in additional_special_tokens and its successors."""
    for key in ("additional_special_tokens", "extra_special_tokens"):
        value = config.get(key)
        entries = value.values() if isinstance(value, dict) else value
        for entry in entries if isinstance(entries, (list, type({}.values()))) else ():
            content = entry.get("content") if isinstance(entry, dict) else entry
            if isinstance(content, str):
                yield content


def _processed(parts: Parts) -> Iterator[tuple[str, str]]:
    """Yield (role, spelling) of what the post-processor puts around a text."""
    post = parts.post_processor
    stages = post.get("processors", []) if post and post.get("type") == "Sequence" else [post]
    for stage in stages:
        if not stage:
            continue
        if stage.get("type") in ("BertProcessing", "RobertaProcessing"):
            yield "cls", stage["cls"][0]
            yield "sep", stage["sep"][0]
        elif stage.get("type") == "TemplateProcessing":
            seen_text = False
            for item in stage.get("single", []):
                if "Sequence" in item:
                    seen_text = True
                    continue
                spelling = item["SpecialToken"]["id"]
                is_encoder = "cls" in spelling.lower() or "sep" in spelling.lower()
                first, last = ("cls", "sep") if is_encoder else ("bos", "eos")
                yield (last if seen_text else first), spelling


def find_roles(
    config: Mapping[str, Any], parts: Parts, ids: Mapping[str, int]
) -> tuple[dict[str, int], set[int]]:
    """Return role → id, and the ids that the configuration or the tokenizer calls special.

    A role comes from the configuration, else from the model and the post-processor, else from a
    special added token's customary spelling.
    """
    roles: dict[str, int] = {}
    special = {i for i, token in parts.added.items() if token.special}
    unknown = parts.model.get("unk_token")
    sources: Sequence[tuple[str, str]] = [
        *_named(config),
        *([("unk", unknown)] if isinstance(unknown, str) else []),
        *_processed(parts),
    ]
    for role, spelling in sources:
        if spelling in ids:
            roles.setdefault(role, ids[spelling])
            special.add(ids[spelling])
    special.update(ids[s] for s in _listed(config) if s in ids)
    for role, spellings in _SPELLED_ROLES.items():
        known = [ids[s] for s in spellings if ids.get(s) in special]
        if role not in roles and known and f"{role}_token" not in config:
            roles[role] = known[0]
    return roles, special


def find_kinds(
    spellings: Sequence[str | None],
    parts: Parts,
    roles: Mapping[str, int],
    special: set[int],
    in_model: Mapping[str, int],
) -> npt.NDArray[np.uint8]:
    """Return the kind of every id, uint8 (n_rows,)."""
    kinds = np.zeros(len(spellings), dtype=np.uint8)
    # Spellings that begin otherwise cannot be reserved ones; the pattern costs time.
    openings = ("<", "[", "m", "M")
    with_role = set(roles.values())
    for i, spelling in enumerate(spellings):
        if spelling is None:
            kinds[i] = Kind.PADDING
        elif i in with_role:
            kinds[i] = Kind.CONTROL
        elif spelling.startswith(openings) and looks_unused(spelling):
            kinds[i] = Kind.UNUSED
        elif i in special or (i in parts.added and looks_like_marker(spelling)):
            kinds[i] = Kind.CONTROL
        elif parts.byte_fallback and spelling in in_model and BYTE_TOKEN.match(spelling):
            kinds[i] = Kind.BYTE
    return kinds


def name_markers(
    roles: dict[str, int], spellings: Sequence[str | None], kinds: npt.NDArray[np.uint8]
) -> None:
    """Add to `roles` the names in the spellings of controls: 'im_start' for <|im_start|>."""
    taken = set(roles.values())
    for i in np.flatnonzero(kinds == Kind.CONTROL).tolist():
        spelling = spellings[i] or ""
        if i not in taken or spelling.startswith(("<|", "<｜")):
            name = spelling.strip("<>[]|｜◁▷ ").replace("▁", "_").strip("_")
            if name and name not in STANDARD_ROLES:
                roles.setdefault(name, i)
