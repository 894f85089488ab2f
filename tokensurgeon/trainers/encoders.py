"""From what was learned to a stock tokenizer that any library can run.

`bpe` applies merges in the order learned. `min_tokens` spells each segment with the fewest tokens,
whatever merges made them (Schmidt et al., "Tokenization Is More Than Compression", arXiv
2402.18376): a Unigram model in which every token scores −1. Both contain all 256 bytes and no
unknown token, so any text is spelled exactly. Every runtime can load a BPE; it is the default.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from tokenizers import Tokenizer, decoders, models, processors

from tokensurgeon.arrays import Int32, blocks
from tokensurgeon.trainers.counting.pretokenizers import pretokenizer
from tokensurgeon.trainers.counting.sequences import Sequences
from tokensurgeon.trainers.counting.weighted import WeightedSegments
from tokensurgeon.trainers.learned import Learned, Merges
from tokensurgeon.vocabulary.token_bytes import byte_order, to_alphabet

BATCH = 10_000
"""Segments encoded at once; bounds the number of encodings held in memory."""


def encoder(learned: Learned, name: str, controls: Sequence[str]) -> Tokenizer:
    """Return what was learned as a stock tokenizer: controls first, then tokens in order."""
    if name == "bpe":
        if learned.merges is None:
            raise ValueError("these tokens have no merges; they need the min-tokens encoder")
        return byte_level_bpe(learned.merges, controls, learned.cut)
    return min_tokens(learned.tokens, controls, learned.cut)


def byte_level_bpe(merges: Merges, controls: Sequence[str], cut: str | None) -> Tokenizer:
    """Return merges as a stock BPE: controls first, then tokens in the order learned."""
    names = [to_alphabet(token) for token in merges.tokens]
    vocabulary = {token: number for number, token in enumerate([*controls, *names])}
    pairs = [(names[left], names[right]) for left, right in merges.pairs]
    return over_bytes(Tokenizer(models.BPE(vocab=vocabulary, merges=pairs)), controls, cut)


def min_tokens(tokens: Sequence[bytes], controls: Sequence[str], cut: str | None) -> Tokenizer:
    """Return tokens as a stock Unigram that spells every segment with the fewest of them."""
    # A control is matched before the model gets the text; its score only must never win.
    scores = [(control, -1e6) for control in controls]
    scores += [(to_alphabet(token), -1.0) for token in tokens]
    return over_bytes(Tokenizer(models.Unigram(scores)), controls, cut)


def over_bytes(tokenizer: Tokenizer, controls: Sequence[str], cut: str | None) -> Tokenizer:
    """Add controls to a tokenizer, and the parts that write bytes as characters; return it."""
    tokenizer.pre_tokenizer = pretokenizer(cut)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.add_special_tokens(list(controls))
    return tokenizer


def spell(tokenizer: Tokenizer, text: WeightedSegments, *, min_ids: int = 1) -> Sequences:
    """Encode segments with a tokenizer without controls; leave out those of fewer ids."""
    batches: list[Int32] = []
    lengths: list[int] = []
    numbers: list[int] = []
    for block in blocks(len(text.segments), BATCH):
        encodings = tokenizer.encode_batch_fast(text.segments[block], add_special_tokens=False)
        batch: list[int] = []
        for number, encoding in enumerate(encodings, block.start):
            ids = encoding.ids
            if len(ids) >= min_ids:
                batch += ids
                lengths.append(len(ids))
                numbers.append(number)
        batches.append(np.array(batch, np.int32))
    flat = np.concatenate(batches) if batches else np.zeros(0, np.int32)
    return Sequences.of_flat(flat, np.array(lengths, np.int64), text.weights[numbers])


def bytes_first(tokens: Iterable[bytes]) -> list[bytes]:
    """Return the 256 bytes in `byte_order`, then the longer tokens in the order given."""
    return [*(bytes([byte]) for byte in byte_order()), *(t for t in tokens if len(t) > 1)]
