"""Facts about how a tokenizer cuts text, found by trying it.

How digit runs are cut, which bytes can be written, whether case survives. Facts, no judgement:
`tokensurgeon.alignment` says where two tokenizers disagree.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from tokensurgeon.vocabulary.parts import Parts, walk

if TYPE_CHECKING:
    from tokensurgeon.vocabulary.vocabulary import Vocabulary

_N_PROBES = 48


def number_scheme(vocabulary: Vocabulary) -> str:
    """Return how digit runs are cut.

    'single' (each digit its own token), 'left-3' (groups of three from the left: 123|456|7),
    'right-3' (from the right: 1|234|567; other group sizes alike), 'whole' (never cut),
    'any' (merges decide), 'none' (digits cannot be written).
    """
    generator = random.Random(7)
    runs: list[tuple[int, set[int]]] = []
    for n in range(_N_PROBES):
        length = 2 + n % 8
        digits = str(generator.randrange(10 ** (length - 1), 10**length))
        head = ("abc ", "x = ", "in ")[n % 3]
        encoding = vocabulary.encode_with_bytes(f"{head}{digits} more")
        if any(vocabulary.token_bytes[i] is None for i in encoding.ids):
            return "none"
        ends = set((encoding.ends - len(head)).tolist())
        runs.append((length, {end for end in ends if 0 < end < length}))
    if all(len(cuts) == length - 1 for length, cuts in runs):
        return "single"
    if not any(cuts for _, cuts in runs):
        return "whole"
    # A group may be cut further where the vocabulary lacks it, so the borders between groups are
    # what tells; the largest size whose borders are always there.
    for size in (4, 3, 2):
        if all(set(range(size, length, size)) <= cuts for length, cuts in runs):
            return f"left-{size}"
        if all({length - k for k in range(size, length, size)} <= cuts for length, cuts in runs):
            return f"right-{size}"
    return "any"


def segmentation_facts(vocabulary: Vocabulary, parts: Parts, adds_prefix: bool) -> dict[str, Any]:
    """Return short facts for people and reports; all values are JSON."""
    covered = sum(vocabulary.pieces_of(bytes([byte])) is not None for byte in range(256))
    return {
        "model": parts.model_type,
        "pre_tokenizer": _types(parts.pre_tokenizer),
        "normalizer": _types(parts.normalizer),
        "decoder": _types(parts.decoder),
        "byte_level": parts.byte_level,
        "byte_fallback": parts.byte_fallback,
        "byte_coverage": covered,
        "prefix_space": adds_prefix,
        "joins_with_space": vocabulary.joins_with_space,
        "lower_cases": _same(vocabulary, "amid Word XYZ", "amid word xyz"),
        "strips_accents": _same(vocabulary, "amid caf\u00e9 d\u00e9j\u00e0", "amid cafe deja"),
        "numbers": vocabulary.number_scheme,
        "longest_token": max((len(d) for d in vocabulary.token_bytes if d is not None), default=0),
        "lossless": vocabulary.encode_with_bytes("Plain  text,\n\tkept? 1.\n").lossless,
    }


def _types(part: dict[str, Any] | None) -> list[str]:
    return [str(each["type"]) for each in walk(part) if each["type"] != "Sequence"]


def _same(vocabulary: Vocabulary, first: str, second: str) -> bool:
    """Return whether two texts are one to the tokenizer (and are written at all)."""
    ids = vocabulary.encode(first)
    written = all(vocabulary.token_bytes[i] is not None for i in ids)
    return bool(ids) and written and ids == vocabulary.encode(second)
