"""Facts about how a tokenizer cuts text, found by trying it.

How digit runs are cut, which bytes can be written, whether case survives. Facts, no judgement:
`tokensurgeon.alignment` says where two tokenizers disagree.
"""

from __future__ import annotations

import random
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from tokensurgeon.vocabulary.parts import Parts, walk
from tokensurgeon.vocabulary.patterns import gguf_name

if TYPE_CHECKING:
    from tokensurgeon.vocabulary.vocabulary import Vocabulary

_N_PROBES = 48


def number_scheme(vocabulary: Vocabulary) -> str:
    """Return how digit runs are cut.

    'single' (each digit its own token), 'left-3' (groups of three from the left: 123|456|7),
    'right-3' (from the right: 1|234|567; other group sizes alike), 'any' (merges decide), 'none'
    (digits cannot be written). Groups are what the pre-tokenizer cuts: tokens may be smaller.
    """
    generator = random.Random(7)
    single = True
    groups: list[tuple[int, set[int]]] = []
    for n in range(_N_PROBES):
        length = 2 + n % 8
        digits = str(generator.randrange(10 ** (length - 1), 10**length))
        head = ("abc ", "x = ", "in ")[n % 3]
        text = f"{head}{digits} more"
        encoding = vocabulary.encode_with_bytes(text)
        inside = [end - len(head) for end in encoding.ends.tolist()]
        covering = [i for i, end in zip(encoding.ids, inside, strict=True) if 0 < end <= length]
        if not covering or any(vocabulary.token_bytes[i] is None for i in covering):
            return "none"
        single = single and len({end for end in inside if 0 < end < length}) == length - 1
        groups.append((length, _pre_token_cuts(vocabulary, text, digits)))
    if single:
        return "single"
    for size in (2, 3, 4):
        if all(cuts == set(range(size, length, size)) for length, cuts in groups):
            return f"left-{size}"
        if all(cuts == {length - k for k in range(size, length, size)} for length, cuts in groups):
            return f"right-{size}"
    return "any"


def _pre_token_cuts(vocabulary: Vocabulary, text: str, digits: str) -> set[int]:
    """Return where the pre-tokenizer cuts a run of digits, as offsets into the run."""
    tokenizer = vocabulary.tokenizer
    if tokenizer.normalizer is not None:
        text = tokenizer.normalizer.normalize_str(text)
    if tokenizer.pre_tokenizer is None:
        return set()
    pieces = [piece for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text)]
    start = "".join(pieces).find(digits)
    ends = accumulate(len(piece) for piece in pieces)
    return {end - start for end in ends if 0 < end - start < len(digits)}


def segmentation_facts(vocabulary: Vocabulary, parts: Parts, adds_prefix: bool) -> dict[str, Any]:
    """Return short facts for people and reports; all values are JSON."""
    covered = sum(vocabulary.pieces_of(bytes([byte])) is not None for byte in range(256))
    return {
        "model": parts.model_type,
        "pre_tokenizer": _types(parts.pre_tokenizer),
        "normalizer": _types(parts.normalizer),
        "decoder": _types(parts.decoder),
        "gguf": gguf_name(parts),
        "byte_level": parts.byte_level,
        "byte_fallback": parts.byte_fallback,
        "byte_coverage": covered,
        "prefix_space": adds_prefix,
        "joins_with_space": vocabulary.joins_with_space,
        "lower_cases": _normalises(vocabulary, "WORD", "word"),
        "strips_accents": _normalises(vocabulary, "caf\u00e9", "cafe"),
        "numbers": vocabulary.number_scheme,
        "longest_token": max((len(d) for d in vocabulary.token_bytes if d is not None), default=0),
        "lossless": vocabulary.encode_with_bytes("Plain  text,\n\tkept? 1.\n").lossless,
    }


def _types(part: dict[str, Any] | None) -> list[str]:
    return [str(each["type"]) for each in walk(part) if each["type"] != "Sequence"]


def _normalises(vocabulary: Vocabulary, text: str, result: str) -> bool:
    """Return whether the normalizer turns one word into another."""
    normalizer = vocabulary.tokenizer.normalizer
    return normalizer is not None and result in str(normalizer.normalize_str(text))
