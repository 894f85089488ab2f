"""Vocabularies drawn at random, as a hypernetwork is to meet them.

As ZeTT samples them (Minixhofer et al., 2024, arXiv 2405.07883): the substrings of a text's words
are scored by count × length, the scores are shaken, and the best become the pieces of a Unigram
tokenizer. Such vocabularies are cut more finely than those in use, and a network that has met no
other does worse on these; so every other vocabulary is a BPE trained on a part of the text. Each
cuts words and numbers by a preset drawn at random.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import regex

from tokensurgeon.alignment import Alignment
from tokensurgeon.arrays import Ids, Mask
from tokensurgeon.errors import InitialiserError
from tokensurgeon.trainers.counting.pretokenizers import counted_pattern, pattern, pretokenizer
from tokensurgeon.vocabulary import Vocabulary
from tokensurgeon.vocabulary.token_bytes import from_alphabet, to_alphabet

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from tokenizers.pre_tokenizers import PreTokenizer

SIZES = (4096, 32768)
"""Tokens of a sample, or half to twice the source's where it has more; a half of the text's
substrings at most. Smaller ones cut text nearly into characters, and teach little of new rows."""
MOST_NOISE = 0.5
"""Standard deviation of the noise on the logarithm of a score, at most."""
PRESETS = ("gpt2", "cl100k", "o200k", None)
"""Of pre-tokenisers: those of most models; None is `LONE_SPACES`."""
LONE_SPACES = r" ?\p{L}+| ?[^\s\p{L}\p{N}]+|\p{N}|\s"
"""Every space of several its own piece, as SentencePiece mostly has them."""
DIGITS = ("left-3", "single", "any")
"""How numbers are cut: the three ways in use."""
TRAINED_BYTES = 1 << 20
"""Characters of text that a trained vocabulary is trained on: it bounds the time of that."""
LEAST = 256
"""Substrings: with fewer there is nothing to draw from."""
LONGEST = 24
"""Bytes of a token; longer words are rare, and each adds a square of substrings."""
_MOST_BYTES = 8 << 20
"""Characters of text whose words are counted; more hardly change the frequent ones."""
_MOST_WORDS = 60_000
"""Words whose substrings are counted, the most frequent ones: it bounds memory."""


@dataclass(frozen=True)
class Sample:
    """A tokenizer and how the source spells its tokens.

    Attributes
    ----------
    encode : callable(texts)
        Ids of each text, without special tokens; None of one that it would not give back.
    source_ids : int64 (n,)
        The source's id where it has the token, else -1.
    spellings : tuple of tuples of int, len n
        Source ids of the other tokens; empty where the source has the token.
    """

    encode: Callable[[Sequence[str]], list[Ids | None]]
    source_ids: Ids
    spellings: tuple[tuple[int, ...], ...]

    @cached_property
    def has_row(self) -> Mask:
        """Which tokens the source has or can spell, bool (n,)."""
        spelled = np.array([bool(one) for one in self.spellings], dtype=np.bool_)
        return np.logical_or(self.source_ids >= 0, spelled)


class OneTarget:
    """The one vocabulary that rows are wanted for, its missing tokens spelled by `pieces`."""

    def __init__(
        self, alignment: Alignment, pieces: Mapping[int, tuple[int, ...]], n_source: int
    ) -> None:
        own = alignment.source_ids
        self._sample = Sample(
            lambda texts: [
                np.array(one.ids, dtype=np.int64) if one.lossless else None
                for one in alignment.target.encode_many(texts)
            ],
            np.where(own < n_source, own, -1),
            tuple(pieces.get(token, ()) for token in range(alignment.target.n_rows)),
        )

    def draw(self, number: int) -> Sample:
        """Return the target, whatever the number."""
        return self._sample


class Sampler:
    """Draws vocabularies from texts; the same number, the same vocabulary.

    Parameters
    ----------
    texts : sequence of str
    source : Vocabulary
    usable : bool (n_source,)
        Source ids that a token may be taken for.
    seed : int

    Raises
    ------
    InitialiserError
        If the text has too few words.
    """

    def __init__(
        self,
        texts: Sequence[str],
        source: Vocabulary,
        usable: Mask,
        seed: int = 0,
    ) -> None:
        self._source, self._usable, self._seed = source, usable, seed
        self._sizes = max(SIZES[0], source.n_rows // 2), max(SIZES[1], 2 * source.n_rows)
        cut = regex.compile(counted_pattern("gpt2", "left-3"))  # words, the space before each
        words: Counter[str] = Counter()
        room = _MOST_BYTES
        for text in texts:
            words.update(match.group() for match in cut.finditer(text[: max(0, room)]))
            room -= len(text)
        counts: Counter[str] = Counter()
        for word, count in words.most_common(_MOST_WORDS):
            for start in range(len(word)):
                for end in range(start + 2, min(len(word), start + LONGEST) + 1):
                    counts[word[start:end]] += count
        # A substring seen once would be a token for one place of the text.
        substrings = [
            (text, count)
            for text, count in counts.items()
            if count > 1 and len(text.encode()) <= LONGEST
        ]
        if len(substrings) < LEAST:
            raise InitialiserError(
                f"the text has {len(substrings):,} substrings to draw vocabularies from, which is "
                "too few: give more text"
            )
        substrings.sort(key=lambda one: (-one[1] * len(one[0]), one[0]))
        del substrings[4 * self._sizes[1] :]
        self._texts = [text for text, _ in substrings]
        self._scores = np.log([float(count * len(text)) for text, count in substrings])
        self._documents = [text for text in texts if text]
        self._trained: dict[int, tuple[Tokenizer, list[bytes]]] = {}
        self._known: dict[bytes, tuple[int, tuple[int, ...]]] = {}

    def draw(self, number: int) -> Sample:
        """Return vocabulary `number` of this seed: even ones are sampled, odd ones trained."""
        generator = np.random.default_rng((self._seed, number))
        size = int(np.exp(generator.uniform(*np.log(self._sizes))))
        preset = PRESETS[int(generator.integers(len(PRESETS)))]
        digits = DIGITS[int(generator.integers(len(DIGITS)))]
        cut = pretokenizer(LONE_SPACES if preset is None else pattern(preset, digits))
        if number % 2:
            if number not in self._trained:
                self._trained[number] = self._train(size, cut, generator)
            tokenizer, tokens = self._trained[number]
        else:
            tokenizer, tokens = self._unigram(size, cut, generator)
        pairs = [self._spell(data) for data in tokens]
        return Sample(
            lambda texts: [
                np.array(one.ids, dtype=np.int64) for one in tokenizer.encode_batch(list(texts))
            ],
            np.array([source_id for source_id, _ in pairs], dtype=np.int64),
            tuple(spelling for _, spelling in pairs),
        )

    def _unigram(
        self, size: int, cut: PreTokenizer, generator: np.random.Generator
    ) -> tuple[Tokenizer, list[bytes]]:
        """Draw a vocabulary as ZeTT does."""
        from tokenizers import Tokenizer, decoders, models

        size = min(size, len(self._texts) // 2)
        noise = generator.uniform(0.0, MOST_NOISE) * generator.standard_normal(len(self._scores))
        scores = self._scores + noise
        best = np.argpartition(-scores, min(size, len(scores)) - 1)[:size]
        logs = scores[best] - np.log(np.exp(scores[best]).sum())
        tokens = [bytes([i]) for i in range(256)]
        vocab = [(to_alphabet(data), float(logs.min()) - 10.0) for data in tokens]
        known = {letter for letter, _ in vocab}
        for i, log in zip(best.tolist(), logs.tolist(), strict=True):
            data = self._texts[i].encode()
            spelled = to_alphabet(data)
            if spelled not in known:
                known.add(spelled)
                vocab.append((spelled, log))
                tokens.append(data)
        tokenizer = Tokenizer(models.Unigram(vocab, unk_id=None, byte_fallback=False))
        tokenizer.pre_tokenizer, tokenizer.decoder = cut, decoders.ByteLevel()
        return tokenizer, tokens

    def _train(
        self, size: int, cut: PreTokenizer, generator: np.random.Generator
    ) -> tuple[Tokenizer, list[bytes]]:
        """Train a BPE on a part of the text."""
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer, tokenizer.decoder = cut, decoders.ByteLevel()
        room, part = TRAINED_BYTES, []
        for i in generator.permutation(len(self._documents)).tolist():
            part.append(self._documents[i][:room])
            room -= len(part[-1])
            if room <= 0:
                break
        trainer = trainers.BpeTrainer(
            vocab_size=size,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(part, trainer)
        spellings = sorted(tokenizer.get_vocab().items(), key=lambda one: one[1])
        return tokenizer, [from_alphabet(spelling) for spelling, _ in spellings]

    def _spell(self, data: bytes) -> tuple[int, tuple[int, ...]]:
        """Return the source's id of these bytes, or -1 and pieces, where there are any."""
        if data not in self._known:
            own = self._source.emits(data)
            if own is not None and self._usable[own]:
                self._known[data] = own, ()
            else:
                pieces = self._source.pieces_of(data) or ()
                fits = all(piece < len(self._usable) for piece in pieces)
                self._known[data] = -1, pieces if fits else ()
        return self._known[data]
