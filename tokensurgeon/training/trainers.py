"""The trainers by name: stock byte-level BPE and Unigram, and superwords.

All work on bytes written as characters, hold all 256 of them, and know no unknown token, so that
any text is spelled exactly. A Unigram vocabulary with ``▁`` for the space would not do: text that
holds this character itself does not come back.

What is trained is a `tokenizers.Tokenizer` that needs no code of ours to run. The same text and
settings give the same one: the stock Unigram trainer adds up in the order of a randomly seeded
hash table, which leaves its tokens alone but moves their scores by thousandths of a nat, so the
scores are estimated again here.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from tokensurgeon.errors import CorpusError
from tokensurgeon.training.pretokenizers import pattern, pretokenizer
from tokensurgeon.training.superwords import train_superwords

if TYPE_CHECKING:
    from tokenizers import Tokenizer

METHODS = ("bpe", "unigram", "superbpe")
LONGEST_TOKEN = 48
"""In bytes, for `none`: without cuts, boilerplate would become tokens of a sentence."""
LONGEST_PIECE = 24
"""In bytes, for Unigram: its seeds are all substrings up to this length."""

ROUNDS = 5
"""Of estimating Unigram scores again; they have settled after three or four."""

_LINE = re.compile(r"[^\n]*\n+|[^\n]+")


def train_tokenizer(
    texts: Sequence[str],
    *,
    method: str,
    size: int,
    preset: str,
    digits: str,
    controls: Sequence[str],
) -> Tokenizer:
    """Train a tokenizer of exactly `size` ids: controls, bytes, then what was learned.

    Raises
    ------
    CorpusError
        If the text is too little for that many tokens.
    """
    make: dict[str, Callable[..., Tokenizer]] = {
        "bpe": _bpe,
        "unigram": _unigram,
        "superbpe": train_superwords,
    }
    feed = list(_lines(texts)) if preset == "none" else texts
    tokenizer = make[method](feed, size, preset, digits, list(controls))
    found = tokenizer.get_vocab_size(with_added_tokens=True)
    if found < size:
        n_bytes = sum(len(text.encode("utf-8")) for text in texts)
        raise CorpusError(
            f"{n_bytes:,} bytes of text give {found:,} of {size:,} tokens; "
            f"give more text, or a size of at most {found:,}"
        )
    return tokenizer


def _lines(texts: Sequence[str]) -> Iterator[str]:
    """Yield lines: without a pre-tokenizer the trainer takes each as one word."""
    for text in texts:
        for match in _LINE.finditer(text):
            yield match[0]


def _empty(tokenizer: Tokenizer, preset: str, digits: str) -> Tokenizer:
    from tokenizers import decoders, processors

    tokenizer.pre_tokenizer = pretokenizer(pattern(preset, digits))
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return tokenizer


def _alphabet() -> list[str]:
    from tokenizers.pre_tokenizers import ByteLevel

    return sorted(ByteLevel.alphabet())


def _bpe(
    feed: Sequence[str], size: int, preset: str, digits: str, controls: list[str]
) -> Tokenizer:
    from tokenizers import Tokenizer, models, trainers

    tokenizer = _empty(Tokenizer(models.BPE()), preset, digits)
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=controls,
        initial_alphabet=_alphabet(),
        max_token_length=LONGEST_TOKEN if preset == "none" else None,
        show_progress=False,
    )
    tokenizer.train_from_iterator(feed, trainer=trainer)
    return tokenizer


def _unigram(
    feed: Sequence[str], size: int, preset: str, digits: str, controls: list[str]
) -> Tokenizer:
    from tokenizers import Tokenizer, models, trainers

    tokenizer = _empty(Tokenizer(models.Unigram()), preset, digits)
    trainer = trainers.UnigramTrainer(
        vocab_size=size,
        special_tokens=controls,
        initial_alphabet=_alphabet(),
        max_piece_length=LONGEST_PIECE,
        show_progress=False,
    )
    tokenizer.train_from_iterator(feed, trainer=trainer)
    return _settled(tokenizer, feed, controls)


def _settled(tokenizer: Tokenizer, feed: Sequence[str], controls: list[str]) -> Tokenizer:
    """Estimate the scores of a Unigram model again, from nothing but its tokens and the text.

    Hard expectation–maximisation: all scores equal at first (the fewest tokens), then the log
    share of each token in the best segmentation of the text, until it has settled.
    """
    from tokenizers import Tokenizer, models

    state = json.loads(tokenizer.to_str())
    pieces = sorted(piece for piece, _ in state["model"]["vocab"] if piece not in controls)
    counts: Counter[str] = Counter()
    for text in feed:
        counts.update(piece for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text))
    words = sorted(counts)
    repeats = [counts[word] for word in words]
    scores = [-1.0] * len(pieces)
    for _ in range(ROUNDS):
        model = Tokenizer(models.Unigram(list(zip(pieces, scores, strict=True))))
        used = [0] * len(pieces)
        for start in range(0, len(words), 10_000):
            batch = model.encode_batch(words[start : start + 10_000])
            for encoding, count in zip(batch, repeats[start : start + 10_000], strict=True):
                for piece in encoding.ids:
                    used[piece] += count
        # Half a count more each, so that a byte the text lacks has a score too.
        total = math.log(sum(used) + 0.5 * len(used))
        scores = [math.log(count + 0.5) - total for count in used]
    order = sorted(range(len(pieces)), key=lambda i: (-scores[i], pieces[i]))
    state["model"]["vocab"] = [
        *([control, 0.0] for control in controls),
        *([pieces[i], round(scores[i], 6)] for i in order),
    ]
    return Tokenizer.from_str(json.dumps(state))
