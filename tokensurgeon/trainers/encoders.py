"""From what was learned to a stock tokenizer that any library can run.

`bpe` applies merges in the order learned. `min_tokens` spells each segment with the fewest tokens
there are for it, whatever merges made them (Schmidt et al., "Tokenization Is More Than
Compression", arXiv 2402.18376): a Unigram model in which every token scores −1. Both hold all 256
bytes and no unknown token, so any text is spelled exactly. BPE exports everywhere and is the
default.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tokensurgeon.trainers.counting.pretokenizers import pretokenizer
from tokensurgeon.trainers.counting.weighted import Weighted
from tokensurgeon.trainers.learners.merging import Merges, Positions, Sequences, byte_order
from tokensurgeon.vocabulary.token_bytes import to_alphabet

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BATCH = 10_000


@dataclass(frozen=True)
class Learned:
    """What a method learned.

    Attributes
    ----------
    tokens : sequence of bytes
        The 256 bytes in `byte_order`, then the others.
    merges : Merges or None
        That make them; None where a method knows tokens alone, which only `min-tokens` can use.
    cut : str or None
        The pattern of the pre-tokenizer.
    """

    tokens: Sequence[bytes]
    cut: str | None
    merges: Merges | None = None

    @classmethod
    def of(cls, merges: Merges, cut: str | None) -> Learned:
        """Return what merges make."""
        return cls(merges.tokens, cut, merges)


def encoder(learned: Learned, name: str, controls: Sequence[str]) -> Tokenizer:
    """Return what was learned as a stock tokenizer: controls first, then tokens as learned."""
    if name == "bpe":
        if learned.merges is None:
            raise ValueError("these tokens have no merges; they need the min-tokens encoder")
        return byte_level_bpe(learned.merges, controls, learned.cut)
    return min_tokens(learned.tokens, controls, learned.cut)


def byte_level_bpe(merges: Merges, controls: Sequence[str], cut: str | None) -> Tokenizer:
    """Return merges as a stock BPE: controls first, then tokens in the order learned."""
    from tokenizers import Tokenizer, models

    names = [to_alphabet(token) for token in merges.tokens]
    vocabulary = {token: number for number, token in enumerate([*controls, *names])}
    pairs = [(names[left], names[right]) for left, right in merges.pairs]
    return _over_bytes(Tokenizer(models.BPE(vocab=vocabulary, merges=pairs)), controls, cut)


def min_tokens(tokens: Sequence[bytes], controls: Sequence[str], cut: str | None) -> Tokenizer:
    """Return tokens as a stock Unigram that spells every segment with the fewest of them."""
    from tokenizers import Tokenizer, models

    # A control is matched before the model sees text, so its score only has to be too low to win.
    scores = [(control, -1e6) for control in controls]
    scores += [(to_alphabet(token), -1.0) for token in tokens]
    return _over_bytes(Tokenizer(models.Unigram(scores)), controls, cut)


def _over_bytes(tokenizer: Tokenizer, controls: Sequence[str], cut: str | None) -> Tokenizer:
    from tokenizers import decoders, processors

    tokenizer.pre_tokenizer = pretokenizer(cut)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.add_special_tokens(list(controls))
    return tokenizer


def spell(stage: Tokenizer, weighted: Weighted, *, fewest: int = 1) -> Sequences:
    """Return segments as ids of a tokenizer without controls, those of `fewest` ids and more."""
    ids: list[Positions] = []
    lengths: list[int] = []
    kept: list[int] = []
    for start in range(0, len(weighted.segments), BATCH):
        batch = weighted.segments[start : start + BATCH]
        found: list[int] = []
        encoded = stage.encode_batch_fast(batch, add_special_tokens=False)
        for number, encoding in enumerate(encoded, start):
            one = encoding.ids
            if len(one) >= fewest:
                found += one
                lengths.append(len(one))
                kept.append(number)
        ids.append(np.array(found, np.int32))
    flat = np.concatenate(ids) if ids else np.zeros(0, np.int32)
    return Sequences.of_flat(flat, np.array(lengths, np.int64), weighted.weights[kept])


def bytes_first(tokens: Iterable[bytes]) -> list[bytes]:
    """Return the 256 bytes in `byte_order`, then the other tokens as they come."""
    alphabet = [bytes([byte]) for byte in byte_order()]
    return [*alphabet, *(token for token in tokens if len(token) > 1)]
