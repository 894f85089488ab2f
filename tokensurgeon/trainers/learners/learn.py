"""The methods by name, and two models of their own: Unigram, by the stock trainer, and WordPiece.

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
from collections.abc import Callable, Iterator, Sequence
from itertools import repeat
from typing import TYPE_CHECKING

import numpy as np

from tokensurgeon.errors import CorpusError, SettingError
from tokensurgeon.progress import Progress, no_progress
from tokensurgeon.trainers.counting.cutters import Chunks, Cutter, Pieces
from tokensurgeon.trainers.counting.pretokenizers import (
    check_choice,
    counted_pattern,
    pretokenizer,
)
from tokensurgeon.trainers.counting.weighted import Text, Weighted
from tokensurgeon.trainers.encoders import Learned, encoder
from tokensurgeon.trainers.learners import phrases, superwords, units
from tokensurgeon.trainers.learners.merging import Merger, Merges
from tokensurgeon.trainers.plan import Plan
from tokensurgeon.trainers.training_methods import METHODS_BY_NAME
from tokensurgeon.vocabulary.token_bytes import byte_alphabet, to_alphabet

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Learn = Callable[[Text, Plan, Progress], Learned]

LONGEST_PIECE = 24
"""In bytes, for Unigram: its seeds are all substrings up to this length."""
ROUNDS = 5
"""Of estimating Unigram scores again; they have settled after three or four."""
CONTINUES = "⁃"
"""Before a WordPiece token that continues a word: no byte is written so, as ``##`` would be."""
LONGEST_WORD = 64
"""In characters, for WordPiece, whose time grows with the square."""

_SHORT = rf"[\s\S]{{1,{LONGEST_WORD}}}"


LEARN: dict[str, Learn] = {
    "bpe": units.bpe,
    "superbpe": superwords.superbpe,
    "boundless": superwords.boundless,
    "supertoken": superwords.supertoken,
    "mwt": superwords.mwt,
    "lzw": phrases.lzw,
    "pathpiece": phrases.pathpiece,
    "lib": phrases.lib,
    "parity": units.parity,
    "characters": units.characters,
    "terms": units.terms,
    "morphemes": units.morphemes,
    "dna": units.dna,
    "bytes": units.only_bytes,
}
"""What each method learns; the others have a model of their own."""


def cutters(plan: Plan) -> dict[str, Cutter]:
    """Return what a method counts, by name of the table."""
    method = METHODS_BY_NAME[plan.method]
    if plan.method == "dna":
        return {"words": Pieces(units.LETTERS)}
    if plan.preset == "none" and method.needs_words:
        raise SettingError(f"{plan.method} needs words; take a pre-tokenizer other than 'none'")
    words = counted_pattern(plan.preset, plan.digits)
    made: dict[str, Callable[[], Cutter]] = {
        "words": lambda: Pieces(words),
        "runs": lambda: Pieces(plan.joined, once=True),
        "chunks": lambda: Chunks(plan.joined, words, superwords.CHUNK_WORDS, plan.seed),
    }
    return {name: made[name]() for name in method.tables}


def train_tokenizer(text: Text, plan: Plan, progress: Progress = no_progress) -> Tokenizer:
    """Train a tokenizer of exactly `plan.size` ids: controls, bytes, then what was learned.

    Parameters
    ----------
    text : Text
        Counted with `cutters` of the plan; its tables are used up.
    plan : Plan
    progress : callable(done, total, what)

    Raises
    ------
    CorpusError
        If the text is too little for that many tokens.
    SettingError
        If the method cannot be run by the encoder, or needs what the plan lacks.
    """
    method = METHODS_BY_NAME[plan.method]
    check_choice(f"encoder for {plan.method}", plan.encoder, method.encoders)
    if plan.method not in LEARN:
        own = {"unigram": _unigram, "wordpiece": _wordpiece}[plan.method]
        tokenizer = own(text.table("words"), plan)
    else:
        learned = LEARN[plan.method](text, plan, progress)
        progress(0, 0, "writing the tokenizer")
        tokenizer = encoder(learned, plan.encoder, plan.controls)
    found = tokenizer.get_vocab_size(with_added_tokens=True)
    if found < plan.size:
        raise CorpusError(
            f"{sum(text.counted.n_bytes):,} bytes of text give {found:,} of {plan.size:,} tokens; "
            f"give more text, or a size of at most {found:,}"
        )
    return tokenizer


def _repeated(words: Weighted) -> Iterator[str]:
    """Yield each word as often as it occurs: a stock trainer takes no counts."""
    for word, weight in zip(words.segments, words.weights.tolist(), strict=True):
        yield from repeat(word, weight)


def _empty(tokenizer: Tokenizer) -> Tokenizer:
    from tokenizers import decoders, processors

    # Words are cut already; the tokenizer's own cut is put in once it is trained.
    tokenizer.pre_tokenizer = pretokenizer(None)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return tokenizer


def _alphabet() -> list[str]:
    return sorted(byte_alphabet().values())


def _unigram(words: Weighted, plan: Plan) -> Tokenizer:
    from tokenizers import Tokenizer, models, trainers

    tokenizer = _empty(Tokenizer(models.Unigram()))
    trainer = trainers.UnigramTrainer(
        vocab_size=plan.size,
        special_tokens=list(plan.controls),
        initial_alphabet=_alphabet(),
        max_piece_length=plan.shape.longest or LONGEST_PIECE,
        show_progress=False,
    )
    tokenizer.train_from_iterator(_repeated(words), trainer=trainer)
    tokenizer.pre_tokenizer = pretokenizer(plan.cut)
    return _settled(tokenizer, words, plan.controls)


def _settled(tokenizer: Tokenizer, words: Weighted, controls: Sequence[str]) -> Tokenizer:
    """Estimate the scores of a Unigram model again, from nothing but its tokens and the text.

    Hard expectation–maximisation: all scores equal at first (the fewest tokens), then the log
    share of each token in the best segmentation of the text, until it has settled.
    """
    from tokenizers import Tokenizer, models

    state = json.loads(tokenizer.to_str())
    pieces = sorted(piece for piece, _ in state["model"]["vocab"] if piece not in controls)
    spelled = [to_alphabet(word.encode("utf-8")) for word in words.segments]
    repeats = words.weights.tolist()
    scores = [-1.0] * len(pieces)
    for _ in range(ROUNDS):
        model = Tokenizer(models.Unigram(list(zip(pieces, scores, strict=True))))
        used = [0] * len(pieces)
        for start in range(0, len(spelled), 10_000):
            batch = model.encode_batch(spelled[start : start + 10_000])
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


def _wordpiece(words: Weighted, plan: Plan) -> Tokenizer:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    least = 512 + len(plan.controls) + 1
    if plan.size < least:
        raise SettingError(
            f"size is {plan.size:,}; WordPiece has each byte twice, so take {least:,} or more"
        )
    merger = Merger(words.sequences(), Merges())
    merges = merger.run(plan.n_tokens)
    ids, segment = merger.ids()
    first = np.concatenate([[True], segment[1:] != segment[:-1]])
    begins, continues = (set(ids[where].tolist()) for where in (first, ~first))
    kept = [*plan.controls, *_alphabet(), *(CONTINUES + byte for byte in _alphabet())]
    # A token is taken in the form, or both, in which the merges leave it standing in text.
    for number in range(256, len(merges.tokens)):
        name = to_alphabet(merges.tokens[number])
        kept += [name] * (number in begins) + [CONTINUES + name] * (number in continues)
    kept = kept[: plan.size]
    model = models.WordPiece(
        vocab={token: number for number, token in enumerate(kept)},
        unk_token=plan.controls[0],
        continuing_subword_prefix=CONTINUES,
        max_input_chars_per_word=4 * LONGEST_WORD,
    )
    tokenizer = _empty(Tokenizer(model))
    cuts = [_SHORT] if plan.cut is None else [plan.cut, _SHORT]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            *(pre_tokenizers.Split(Regex(cut), behavior="isolated") for cut in cuts),
            pretokenizer(None),
        ]
    )
    tokenizer.decoder = decoders.Sequence([decoders.Replace(CONTINUES, ""), decoders.ByteLevel()])
    tokenizer.add_special_tokens(list(plan.controls))
    return tokenizer
