"""Superwords: tokens of several words, as a byte-level BPE that any library can run.

All methods learn merges inside words first. Then they read the text in longer segments (by default
up to a line end or a number) and learn merges that may cross from word to word. Merges of the first
stage rank before those of the second, so one stock BPE over the longer segments spells text as the
two stages did. The methods differ in what the second stage may merge:

`superbpe`    anything, up to a number of words (Liu et al., arXiv 2503.13423)
`boundless`   whole words that are single tokens (Schmidt et al., arXiv 2504.00178)
`supertoken`  what lies in random chunks of words (Sharthak et al., arXiv 2505.09738; a variant: we
              cut at words, with a seed, and the tokenizer's own cut deletes nothing)
`mwt`         nothing: the most frequent word n-grams become tokens (Gee et al., arXiv 2402.09949)

In the second stage a segment counts once per document that contains it. Otherwise what is repeated
down a page would give the first tokens. Removing the cuts between words can change how a text is
spelled even if it contains no superword; it stays lossless. A stock BPE does not know words: a
token of `boundless` or `mwt` can also match a part of a longer word.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import groupby

import numpy as np
import regex

from tokensurgeon.progress import Progress
from tokensurgeon.trainers.counting.cut_engines import Cut
from tokensurgeon.trainers.counting.cutters import pieces
from tokensurgeon.trainers.counting.sequences import ID_BITS, ID_MASK, Sequences
from tokensurgeon.trainers.counting.weighted import WeightedSegments, WeightedText
from tokensurgeon.trainers.encoders import byte_level_bpe, spell
from tokensurgeon.trainers.learned import Learned, Merges
from tokensurgeon.trainers.learners.merging import Merger, Rule
from tokensurgeon.trainers.plan import LONGEST_SUPERWORD, Plan

TRANSITION = 0.5
"""Share of the tokens that `superbpe` learns inside words. On technical English, shares from 0.5 to
0.7 differ by 0.2 % in bytes per token with 32,768 tokens, and by less with 8,192."""
TRANSITIONS = (0.5, 0.6, 0.7, 0.8, 0.9)
"""The shares that `boundless` and `mwt` try."""
SAMPLE_BYTES = 24_000_000
"""Bytes of segments on which they are tried; bounds the time of five trainings."""
TRIED_OF = 8
"""One in eight segments of the sample measures a share; the others are learned from."""
FIRST_MERGES = 1024
"""Merges in words before `supertoken` merges in chunks. Without them chunks are merged from bytes,
which takes three times the memory and gains nothing."""
CHUNK_WORDS = 4
"""Most words of a chunk of `supertoken`: as many as a token may have by default."""


def few_words(plan: Plan) -> Rule:
    """Return a rule for `Merger`: a token has few words, and is not too long."""
    cut = regex.compile(str(plan.cut))
    longest = plan.shape.longest or LONGEST_SUPERWORD

    def allow(token: bytes) -> bool:
        if len(token) > longest:
            return False
        # A token may begin or end inside a character; such parts count like any other text.
        return len(cut.findall(token.decode("utf-8", errors="replace"))) <= plan.shape.most_words

    return allow


def learn_words(
    text: WeightedText, n_tokens: int, progress: Progress, allow: Rule | None = None
) -> Merges:
    """Learn merges inside words."""
    return Merger(text.table("words").sequences(), Merges(), allow=allow).run(n_tokens, progress)


def superbpe(text: WeightedText, plan: Plan, progress: Progress) -> Learned:
    """Learn words, then whatever is frequent across them."""
    merges = learn_words(text, plan.n_first(TRANSITION), progress)
    sequences = spell_merged(merges, text.table("runs"), progress)
    return Learned.of(_across(sequences, merges, plan, progress), plan.joined)


def supertoken(text: WeightedText, plan: Plan, progress: Progress) -> Learned:
    """Learn a thousand merges in words, then whatever is frequent in random chunks."""
    n_merges = max(1, min(FIRST_MERGES, (plan.n_tokens - 256) // 4))
    merges = learn_words(text, 256 + n_merges, progress)
    sequences = spell_merged(merges, text.table("chunks"), progress)
    return Learned.of(_across(sequences, merges, plan, progress), plan.joined)


def boundless(text: WeightedText, plan: Plan, progress: Progress) -> Learned:
    """Learn words, then merge those that are single tokens."""

    def second(merges: Merges, runs: WeightedSegments) -> Merges:
        return _across(whole_words(merges, plan, runs), merges, plan, progress)

    return _at_best_transition(text, plan, second, progress)


def mwt(text: WeightedText, plan: Plan, progress: Progress) -> Learned:
    """Learn words, then take the most frequent n-grams of those that are single tokens."""
    allow = few_words(plan)

    def second(merges: Merges, runs: WeightedSegments) -> Merges:
        ids = merges.ids
        id_of_gram: dict[tuple[int, ...], int] = {}
        for gram, count in frequent_ngrams(whole_words(merges, plan, runs), plan.shape.most_words):
            if len(merges.tokens) >= plan.n_tokens:
                break
            left = id_of_gram.get(gram[:-1]) if len(gram) > 2 else gram[0]
            if left is not None and allow(merges.tokens[left] + merges.tokens[gram[-1]]):
                id_of_gram[gram] = merges.add(left, gram[-1], count, ids)
        return merges

    return _at_best_transition(text, plan, second, progress)


def whole_words(merges: Merges, plan: Plan, runs: WeightedSegments) -> Sequences:
    """Return the runs of words that are single tokens, with the weights of equal runs added up."""
    cut = Cut(str(plan.cut))
    id_of_word = {token.decode("utf-8", "surrogateescape"): i for token, i in merges.ids.items()}
    counts: Counter[tuple[int, ...]] = Counter()
    for segment, weight in zip(runs.segments, runs.weights.tolist(), strict=True):
        tokens = (id_of_word.get(word, -1) for word in pieces(cut, segment))
        for are_single, group in groupby(tokens, key=lambda token: token >= 0):
            run = tuple(group)
            if are_single and len(run) > 1:
                counts[run] += weight
    ordered = sorted(counts)
    lengths = np.fromiter(map(len, ordered), np.int64, len(ordered))
    flat = np.fromiter((token for run in ordered for token in run), np.int32, int(lengths.sum()))
    weights = np.fromiter((counts[run] for run in ordered), np.int64, len(ordered))
    return Sequences.of_flat(flat, lengths, weights)


def frequent_ngrams(sequences: Sequences, most: int) -> list[tuple[tuple[int, ...], int]]:
    """Return n-grams of 2 to `most` ids, by falling count; each comes after its prefix.

    An n-gram is counted only if its prefix is among the most frequent (Apriori).
    """
    ids, segment, weights = sequences.ids, sequences.segment, sequences.weights
    starts = np.flatnonzero(ids >= 0)
    prefix = ids[starts].astype(np.int64)
    gram_of_prefix: dict[int, tuple[int, ...]] = {i: (i,) for i in np.unique(prefix).tolist()}
    ngrams: list[tuple[tuple[int, ...], int]] = []
    for length in range(2, most + 1):
        ends = starts + length - 1
        inside = (ends < len(ids)) & (ids[np.minimum(ends, len(ids) - 1)] >= 0)
        starts, prefix = starts[inside], prefix[inside]
        if not len(starts):
            break
        packed = (prefix << ID_BITS) | ids[starts + length - 1]
        keys, key_at = np.unique(packed, return_inverse=True)
        counts = np.bincount(key_at, weights[segment[starts]].astype(float), len(keys))
        frequent = np.flatnonzero(counts >= 2)
        best = frequent[np.argsort(-counts[frequent], kind="stable")][: 1 << (ID_BITS - 1)]
        rank_of_key = np.full(len(keys), -1, np.int64)
        rank_of_key[best] = np.arange(len(best))
        longer: dict[int, tuple[int, ...]] = {}
        for rank, key in enumerate(keys[best].tolist()):
            longer[rank] = (*gram_of_prefix[key >> ID_BITS], key & ID_MASK)
            ngrams.append((longer[rank], int(counts[best[rank]])))
        rank_at = rank_of_key[key_at]
        starts, prefix, gram_of_prefix = starts[rank_at >= 0], rank_at[rank_at >= 0], longer
    return sorted(ngrams, key=lambda entry: (-entry[1], len(entry[0]), entry[0]))


def _at_best_transition(
    text: WeightedText,
    plan: Plan,
    second: Callable[[Merges, WeightedSegments], Merges],
    progress: Progress,
) -> Learned:
    """Learn both stages; choose the transition by the tokens that other segments take."""
    whole = learn_words(text, plan.n_tokens, progress)
    runs = text.table("runs")
    shares = TRANSITIONS if plan.shape.transition is None else (plan.shape.transition,)
    costs: dict[float, tuple[int, int]] = {}
    sample = runs.sample(SAMPLE_BYTES)
    tried = np.arange(len(sample.segments)) % TRIED_OF == 0
    for number, share in enumerate(shares if len(shares) > 1 else ()):
        progress(number, len(shares), "choosing the transition")
        merges = second(whole.copy(plan.n_at(share)), sample.take(~tried))
        tokenizer = byte_level_bpe(merges, (), None)
        # A transition that leaves too few pairs of whole words to fill the vocabulary comes last.
        n_lacking = plan.n_tokens - len(merges.tokens)
        costs[share] = n_lacking, spell(tokenizer, sample.take(tried)).weight
    share = min(costs, key=lambda share: (costs[share], share)) if costs else shares[0]
    merges = second(whole.copy(plan.n_at(share)), runs)
    # If there were too few pairs of whole words, further merges in words fill the vocabulary.
    merges.fill(whole, plan.n_tokens)
    return Learned.of(merges, plan.joined)


def spell_merged(merges: Merges, table: WeightedSegments, progress: Progress) -> Sequences:
    """Return segments as ids after merges, without those of one token: nothing is left to merge."""
    progress(0, 0, "spelling the text")
    return spell(byte_level_bpe(merges, (), None), table, min_ids=2)


def _across(sequences: Sequences, merges: Merges, plan: Plan, progress: Progress) -> Merges:
    merger = Merger(sequences, merges, allow=few_words(plan))
    return merger.run(plan.n_tokens, progress, "merging across words")
