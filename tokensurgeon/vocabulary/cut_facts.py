"""Facts about how a tokenizer cuts text, found by encoding short texts with it.

How digit runs are cut, which bytes can be written, whether case survives. `tokensurgeon.alignment`
compares these facts of two tokenizers.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from tokenizers import Tokenizer

from tokensurgeon.vocabulary.encode import Encoder
from tokensurgeon.vocabulary.parts import Parts, pre_tokens, walk
from tokensurgeon.vocabulary.patterns import gguf_name
from tokensurgeon.vocabulary.segment import Segmenter

_N_PROBES = 48
"""Numbers tried: six of each length from 2 to 9, twice in each of three surroundings."""


def number_scheme(
    tokenizer: Tokenizer, encoder: Encoder, token_bytes: Sequence[bytes | None]
) -> str:
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
        encoding = encoder.encode_with_bytes(text)
        ends = [end - len(head) for end in encoding.ends.tolist()]
        covering = [i for i, end in zip(encoding.ids, ends, strict=True) if 0 < end <= length]
        if not covering or any(token_bytes[i] is None for i in covering):
            return "none"
        single = single and len({end for end in ends if 0 < end < length}) == length - 1
        groups.append((length, _pre_token_cuts(tokenizer, text, digits)))
    if single:
        return "single"
    for size in (2, 3, 4):
        if all(cuts == set(range(size, length, size)) for length, cuts in groups):
            return f"left-{size}"
        if all(cuts == {length - k for k in range(size, length, size)} for length, cuts in groups):
            return f"right-{size}"
    return "any"


def _pre_token_cuts(tokenizer: Tokenizer, text: str, digits: str) -> set[int]:
    """Return where the pre-tokenizer cuts a run of digits, as offsets into the run."""
    pieces = pre_tokens(tokenizer, text)
    start = "".join(pieces).find(digits)
    ends = accumulate(map(len, pieces))
    return {end - start for end in ends if 0 < end - start < len(digits)}


def segmentation_facts(
    tokenizer: Tokenizer, parts: Parts, encoder: Encoder, segmenter: Segmenter, numbers: str
) -> dict[str, Any]:
    """Return short facts on how text is cut, as JSON values; `numbers` is the `number_scheme`."""
    return {
        "model": parts.model_type,
        "pre_tokenizer": _types(parts.pre_tokenizer),
        "normalizer": _types(parts.normalizer),
        "decoder": _types(parts.decoder),
        "gguf": gguf_name(parts),
        "byte_level": parts.byte_level,
        "byte_fallback": parts.byte_fallback,
        "byte_coverage": sum(segmenter.pieces_of(bytes([i])) is not None for i in range(256)),
        "prefix_space": encoder.adds_prefix,
        "joins_with_space": segmenter.joins_with_space,
        "lower_cases": _normalises(tokenizer, "WORD", "word"),
        "strips_accents": _normalises(tokenizer, "caf\u00e9", "cafe"),
        "numbers": numbers,
        "longest_token": segmenter.longest,
        "lossless": encoder.encode_with_bytes("Plain  text,\n\tkept? 1.\n").lossless,
    }


def _types(part: dict[str, Any] | None) -> list[str]:
    return [str(inner["type"]) for inner in walk(part) if inner["type"] != "Sequence"]


def _normalises(tokenizer: Tokenizer, text: str, result: str) -> bool:
    """Return whether the normalizer turns one word into another."""
    normalizer = tokenizer.normalizer
    return normalizer is not None and result in str(normalizer.normalize_str(text))
