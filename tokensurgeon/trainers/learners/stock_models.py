"""Unigram, learned by the stock trainer, and WordPiece, made of our merges.

Both work on bytes written as characters, contain all 256 of them and no unknown token, so any text
is spelled exactly. A Unigram vocabulary with ``▁`` for the space would not do: text that contains
this character itself would not come back.

The stock Unigram trainer adds up numbers in the order of a randomly seeded hash table. That leaves
its tokens alone but changes their scores by thousandths of a nat. So the scores are estimated again
here: the same text and settings give the same tokenizer.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from itertools import chain, repeat

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from tokensurgeon.arrays import blocks
from tokensurgeon.errors import SettingError
from tokensurgeon.trainers.counting.pretokenizers import pretokenizer
from tokensurgeon.trainers.counting.weighted import WeightedSegments
from tokensurgeon.trainers.encoders import BATCH, over_bytes
from tokensurgeon.trainers.learned import Merges
from tokensurgeon.trainers.learners.merging import Merger
from tokensurgeon.trainers.plan import Plan
from tokensurgeon.vocabulary.token_bytes import byte_alphabet, to_alphabet

LONGEST_PIECE = 24
"""Bytes of a Unigram token: the trainer starts from all substrings up to this length."""
MOST_FED = 500_000_000
"""Words that the stock trainer is fed, each as often as it occurs: it reads some million a second,
and counts them with 32 bits."""
ROUNDS = 5
"""Rounds of estimating Unigram scores; they no longer change after three or four."""
CONTINUES = "⁃"
"""Prefix of a WordPiece token that continues a word: no byte is written so, as ``##`` would be."""
LONGEST_WORD = 64
"""Characters of a WordPiece word: encoding takes time with the square of it."""
_ALPHABET = sorted(byte_alphabet().values())
_SHORT = rf"[\s\S]{{1,{LONGEST_WORD}}}"


def divisor(words: WeightedSegments) -> int:
    """Return by what counts are divided before a stock trainer is fed; 1 where they are few."""
    return max(1, -(-int(words.weights.sum()) // MOST_FED))


def unigram(words: WeightedSegments, plan: Plan) -> Tokenizer:
    """Train a byte-level Unigram model."""
    # Words are cut already; the tokenizer's own cut is set once it is trained.
    tokenizer = over_bytes(Tokenizer(models.Unigram()), (), None)
    trainer = trainers.UnigramTrainer(
        vocab_size=plan.size,
        special_tokens=list(plan.controls),
        initial_alphabet=_ALPHABET,
        max_piece_length=plan.shape.longest or LONGEST_PIECE,
        show_progress=False,
    )
    # A stock trainer takes no counts: each word is given as often as it occurs.
    fed = np.rint(words.weights / divisor(words)).astype(np.int64)
    repeated = chain.from_iterable(map(repeat, words.segments, fed.tolist()))
    tokenizer.train_from_iterator(repeated, trainer=trainer)
    tokenizer.pre_tokenizer = pretokenizer(plan.cut)
    return _rescored(tokenizer, words, plan.controls)


def _rescored(tokenizer: Tokenizer, words: WeightedSegments, controls: Sequence[str]) -> Tokenizer:
    """Estimate the scores of a Unigram model from its tokens and the text alone.

    Hard expectation–maximisation: all scores are equal at first (which gives the fewest tokens),
    then the log share of each token in the best segmentation of the text.
    """
    state = json.loads(tokenizer.to_str())
    pieces = sorted(piece for piece, _ in state["model"]["vocab"] if piece not in controls)
    spelled = [to_alphabet(word.encode("utf-8")) for word in words.segments]
    repeats = words.weights.tolist()
    scores = [-1.0] * len(pieces)
    for _ in range(ROUNDS):
        model = Tokenizer(models.Unigram(list(zip(pieces, scores, strict=True))))
        uses = [0] * len(pieces)
        for block in blocks(len(spelled), BATCH):
            encodings = model.encode_batch(spelled[block])
            for encoding, count in zip(encodings, repeats[block], strict=True):
                for piece in encoding.ids:
                    uses[piece] += count
        # Half a use is added to each, so that a byte that the text lacks has a score too.
        total = math.log(sum(uses) + 0.5 * len(uses))
        scores = [math.log(count + 0.5) - total for count in uses]
    order = sorted(range(len(pieces)), key=lambda i: (-scores[i], pieces[i]))
    state["model"]["vocab"] = [
        *([control, 0.0] for control in controls),
        *([pieces[i], round(scores[i], 6)] for i in order),
    ]
    return Tokenizer.from_str(json.dumps(state))


def wordpiece(words: WeightedSegments, plan: Plan) -> Tokenizer:
    """Train a byte-level WordPiece model from merges.

    Raises
    ------
    SettingError
        If the size is too small for each byte in both forms.
    """
    least = 512 + len(plan.controls) + 1
    if plan.size < least:
        raise SettingError(
            f"size is {plan.size:,}; WordPiece has each byte twice; take {least:,} or more"
        )
    merger = Merger(words.sequences(), Merges())
    merges = merger.run(plan.n_tokens)
    ids, segment = merger.ids()
    is_first = np.concatenate([[True], segment[1:] != segment[:-1]])
    begins, continues = (set(ids[mask].tolist()) for mask in (is_first, ~is_first))
    tokens = [*plan.controls, *_ALPHABET, *(CONTINUES + byte for byte in _ALPHABET)]
    # A token is added in the forms in which it occurs in the merged text: one, or both.
    for number in range(256, len(merges.tokens)):
        name = to_alphabet(merges.tokens[number])
        tokens += [name] * (number in begins) + [CONTINUES + name] * (number in continues)
    model = models.WordPiece(
        vocab={token: number for number, token in enumerate(tokens[: plan.size])},
        unk_token=plan.controls[0],
        continuing_subword_prefix=CONTINUES,
        max_input_chars_per_word=4 * LONGEST_WORD,
    )
    tokenizer = over_bytes(Tokenizer(model), plan.controls, None)
    cuts = [_SHORT] if plan.cut is None else [plan.cut, _SHORT]
    splits = [pre_tokenizers.Split(Regex(cut), behavior="isolated") for cut in cuts]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*splits, pretokenizer(None)])
    tokenizer.decoder = decoders.Sequence([decoders.Replace(CONTINUES, ""), decoders.ByteLevel()])
    return tokenizer
