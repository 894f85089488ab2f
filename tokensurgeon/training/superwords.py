"""Superwords: tokens of several words, as a byte-level BPE that any library can run.

Liu et al., "SuperBPE: Space Travel for Language Models" (arXiv 2503.13423). A first stage learns
merges inside words. A second one reads the text in longer segments (lines, cut at numbers), as the
first stage spells them, and learns merges that may cross from word to word. All merges of the first
stage rank before those of the second, so one stock BPE over the longer segments spells text exactly
as the two stages did.

In the second stage a segment counts once per document that holds it: else what is repeated down a
page becomes the first tokens. Lifting the cuts between words can change how a text is spelled even
where no superword is used; it stays lossless.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import regex

from tokensurgeon.errors import SettingError
from tokensurgeon.training.merging import Merger, Merges, Sequences, spelling
from tokensurgeon.training.pretokenizers import joined_pattern, pattern, pretokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TRANSITION = 0.7
"""Share of what is learned that is learned inside words."""
MOST_WORDS = 4
"""Of a token, counted in pieces of the pre-tokenizer; as published."""
LONGEST_SUPERWORD = 64
"""In bytes: rules and tables drawn with punctuation would else become tokens."""
BATCH = 10_000


def train_superwords(
    texts: Sequence[str], size: int, preset: str, digits: str, controls: Sequence[str]
) -> Tokenizer:
    """Train a tokenizer of at most `size` ids: controls, bytes, words, then superwords.

    Parameters
    ----------
    texts : sequence of str
        Documents.
    size : int
    preset, digits : str
        How text is cut into words; any preset but ``none``.
    controls : sequence of str
        The first ids.

    Raises
    ------
    SettingError
        If the preset has no words.
    """
    if preset == "none":
        raise SettingError("superwords need words; take a pre-tokenizer other than 'none'")
    cut, joined = regex.compile(str(pattern(preset, digits))), joined_pattern(preset, digits)
    learned = size - len(controls) - 256
    words = Counter(word for text in texts for word in _pieces(cut, text))
    merges = Merger(_sequences(words), Merges()).run(256 + max(1, round(TRANSITION * learned)))
    del words
    longer = regex.compile(joined)
    segments = Counter(piece for text in texts for piece in set(_pieces(longer, text)))

    def few_words(token: bytes) -> bool:
        if len(token) > LONGEST_SUPERWORD:
            return False
        # A token may begin or end inside a character; its parts then count as any other text.
        return len(cut.findall(token.decode("utf-8", errors="replace"))) <= MOST_WORDS

    spelled = _spelled(byte_level_bpe(merges, (), None), segments)
    Merger(spelled, merges, allow=few_words).run(256 + learned)
    return byte_level_bpe(merges, controls, joined)


def byte_level_bpe(merges: Merges, controls: Sequence[str], cut: str | None) -> Tokenizer:
    """Return merges as a stock tokenizer: controls first, then tokens in the order learned."""
    from tokenizers import Tokenizer, decoders, models, processors

    names = [spelling(token) for token in merges.tokens]
    vocabulary = {token: number for number, token in enumerate([*controls, *names])}
    pairs = [(names[left], names[right]) for left, right in merges.pairs]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=pairs))
    tokenizer.pre_tokenizer = pretokenizer(cut)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.add_special_tokens(list(controls))
    return tokenizer


def _pieces(cut: regex.Pattern[str], text: str) -> Iterator[str]:
    """Yield the pieces of a text; what the pattern does not match is a piece too."""
    end = 0
    for match in cut.finditer(text):
        if match.start() > end:
            yield text[end : match.start()]
        yield match[0]
        end = match.end()
    if end < len(text):
        yield text[end:]


def _sequences(counts: Counter[str]) -> Sequences:
    pieces = sorted(counts)
    weights = np.fromiter((counts[piece] for piece in pieces), np.int64, len(pieces))
    return Sequences.of_bytes(pieces, weights)


def _spelled(stage: Tokenizer, counts: Counter[str]) -> Sequences:
    """Return counted segments as ids of a tokenizer without controls."""
    pieces = iter(sorted(counts))
    ids: list[np.ndarray[tuple[int], np.dtype[np.int32]]] = []
    weights: list[int] = []
    while batch := list(islice(pieces, BATCH)):
        for piece, encoding in zip(batch, stage.encode_batch_fast(batch), strict=True):
            found = np.array(encoding.ids, np.int32)
            if len(found) > 1:  # else there is nothing to merge
                ids.append(found)
                weights.append(counts[piece])
    lengths = np.fromiter(map(len, ids), np.int64, len(ids))
    flat = np.concatenate(ids) if ids else np.zeros(0, np.int32)
    return Sequences.of_flat(flat, lengths, np.array(weights, np.int64))
