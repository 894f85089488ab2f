"""Superwords: tokens of several words, as a byte-level BPE that any library can run.

All learn merges inside words first, then read the text in longer segments (by default up to a
line's end or a number) and learn merges that may cross from word to word. Merges of the first stage
rank before those of the second, so one stock BPE over the longer segments spells text as the two
stages did. They differ in what the second stage may merge:

`superbpe`    anything, up to a number of words (Liu et al., arXiv 2503.13423)
`boundless`   words that are single tokens, whole (Schmidt et al., arXiv 2504.00178)
`supertoken`  what lies in random chunks of words (Sharthak et al., arXiv 2505.09738; a variant: we
              cut at words, seeded, and the tokenizer's own cut deletes nothing)
`mwt`         nothing: the most frequent word n-grams become tokens (Gee et al., arXiv 2402.09949)

In the second stage a segment counts once per document that holds it: else what is repeated down a
page becomes the first tokens. Lifting the cuts between words can change how a text is spelled even
where no superword is used; it stays lossless. A stock BPE knows no words: a token of `boundless` or
`mwt` may also end inside a longer word that happens to be spelled so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import regex

from tokensurgeon.progress import Progress
from tokensurgeon.trainers.counting.cutters import pieces
from tokensurgeon.trainers.counting.weighted import Text, Weighted
from tokensurgeon.trainers.encoders import Learned, byte_level_bpe, spell
from tokensurgeon.trainers.learners.merging import SHIFT, Merger, Merges, Sequences
from tokensurgeon.trainers.plan import Plan, few_words

TRANSITION = 0.5
"""Of `superbpe`. On technical English, 32,768 tokens, 0.5 to 0.7 differ by 0.2 % of the bytes per
token, and at 8,192 tokens by less."""
TRANSITIONS = (0.5, 0.6, 0.7, 0.8, 0.9)
"""What `boundless` and `mwt` try."""
SAMPLE_BYTES = 24_000_000
TRIED_OF = 8
"""One segment in so many tells which transition is best; the others are learned from."""
FIRST_MERGES = 1024
"""Of words, before `supertoken` merges in chunks: without them chunks are merged from bytes, which
costs three times the memory and gains nothing."""
CHUNK_WORDS = 4


def learn_words(text: Text, n_tokens: int, progress: Progress) -> Merges:
    """Return merges inside words."""
    merger = Merger(text.table("words").sequences(), Merges())
    return merger.run(n_tokens, lambda done: progress(done, n_tokens, "merging in words"))


def superbpe(text: Text, plan: Plan, progress: Progress) -> Learned:
    """Learn words, then whatever is frequent across them."""
    merges = learn_words(text, plan.within(TRANSITION), progress)
    sequences = _spelled(merges, text.table("runs"), progress)
    return Learned.of(_across(sequences, merges, plan, progress), plan.joined)


def supertoken(text: Text, plan: Plan, progress: Progress) -> Learned:
    """Learn a thousand merges in words, then whatever is frequent in random chunks."""
    learned = plan.n_tokens - 256
    merges = learn_words(text, 256 + max(1, min(FIRST_MERGES, learned // 4)), progress)
    sequences = _spelled(merges, text.table("chunks"), progress)
    return Learned.of(_across(sequences, merges, plan, progress), plan.joined)


def boundless(text: Text, plan: Plan, progress: Progress) -> Learned:
    """Learn words, then merge those that are single tokens."""

    def second(merges: Merges, runs: Weighted) -> Merges:
        return _across(whole_words(merges, plan, runs), merges, plan, progress)

    return _at_best_transition(text, plan, second, progress)


def mwt(text: Text, plan: Plan, progress: Progress) -> Learned:
    """Learn words, then take the most frequent n-grams of those that are single tokens."""
    allow = few_words(plan)

    def second(merges: Merges, runs: Weighted) -> Merges:
        known = {token: number for number, token in enumerate(merges.tokens)}
        made: dict[tuple[int, ...], int] = {}
        for gram, count in frequent_ngrams(whole_words(merges, plan, runs), plan.shape.most_words):
            if len(merges.tokens) >= plan.n_tokens:
                break
            left = made.get(gram[:-1]) if len(gram) > 2 else gram[0]
            if left is not None and allow(merges.tokens[left] + merges.tokens[gram[-1]]):
                made[gram] = merges.add(left, gram[-1], count, known)
        return merges

    return _at_best_transition(text, plan, second, progress)


def whole_words(merges: Merges, plan: Plan, runs: Weighted) -> Sequences:
    """Return the runs of words that are single tokens, equal ones added up."""
    cut = regex.compile(str(plan.cut))
    number_of = {token: number for number, token in enumerate(merges.tokens)}
    known: dict[str, int] = {}
    counts: Counter[tuple[int, ...]] = Counter()
    for segment, weight in zip(runs.segments, runs.weights.tolist(), strict=True):
        run: list[int] = []
        for word in pieces(cut, segment):
            found = known.get(word)
            if found is None:
                found = known[word] = number_of.get(word.encode("utf-8"), -1)
            if found >= 0:
                run.append(found)
                continue
            if len(run) > 1:
                counts[tuple(run)] += weight
            run = []
        if len(run) > 1:
            counts[tuple(run)] += weight
    ordered = sorted(counts)
    lengths = np.fromiter(map(len, ordered), np.int64, len(ordered))
    flat = np.fromiter((each for run in ordered for each in run), np.int32, int(lengths.sum()))
    weights = np.fromiter((counts[run] for run in ordered), np.int64, len(ordered))
    return Sequences.of_flat(flat, lengths, weights)


def frequent_ngrams(sequences: Sequences, most: int) -> list[tuple[tuple[int, ...], int]]:
    """Return n-grams of ids, of 2 to `most`, by falling count; each comes after its prefix.

    An n-gram is looked at only where its prefix is among the most frequent (Apriori).
    """
    ids, at = sequences.ids, sequences.segment
    weights = sequences.weights
    places = np.flatnonzero(ids >= 0)
    prefix = ids[places].astype(np.int64)
    spelled: dict[int, tuple[int, ...]] = {i: (i,) for i in np.unique(prefix).tolist()}
    found: list[tuple[tuple[int, ...], int]] = []
    for length in range(2, most + 1):
        ends = places + length - 1
        inside = (ends < len(ids)) & (ids[np.minimum(ends, len(ids) - 1)] >= 0)
        places, prefix = places[inside], prefix[inside]
        if not len(places):
            break
        keys = (prefix << SHIFT) | ids[places + length - 1]
        names, numbers = np.unique(keys, return_inverse=True)
        counts = np.bincount(numbers, weights[at[places]].astype(float), len(names))
        frequent = np.flatnonzero(counts >= 2)
        best = frequent[np.argsort(-counts[frequent], kind="stable")][: 1 << (SHIFT - 1)]
        number_of = np.full(len(names), -1, np.int64)
        number_of[best] = np.arange(len(best))
        renamed: dict[int, tuple[int, ...]] = {}
        for new, name in enumerate(names[best].tolist()):
            renamed[new] = (*spelled[name >> SHIFT], name & ((1 << SHIFT) - 1))
            found.append((renamed[new], int(counts[best[new]])))
        kept = number_of[numbers] >= 0
        places, prefix, spelled = places[kept], number_of[numbers][kept], renamed
    return sorted(found, key=lambda each: (-each[1], len(each[0]), each[0]))


def _at_best_transition(
    text: Text,
    plan: Plan,
    second: Callable[[Merges, Weighted], Merges],
    progress: Progress,
) -> Learned:
    """Learn both stages, the transition chosen by what segments not learned from cost."""
    whole = learn_words(text, plan.n_tokens, progress)
    runs = text.table("runs")
    shares = TRANSITIONS if plan.shape.transition is None else (plan.shape.transition,)
    costs: dict[float, tuple[int, int]] = {}
    sample = runs.sample(SAMPLE_BYTES)
    tried = np.arange(len(sample.segments)) % TRIED_OF == 0
    for number, share in enumerate(shares if len(shares) > 1 else ()):
        progress(number, len(shares), "choosing the transition")
        merges = second(whole.copy(_part(plan, share)), sample.take(~tried))
        stage = byte_level_bpe(merges, (), None)
        # Where whole words have too few pairs left, the vocabulary would not be full.
        short = plan.n_tokens - len(merges.tokens)
        costs[share] = short, spell(stage, sample.take(tried)).weight
    share = min(costs, key=lambda each: (costs[each], each)) if costs else shares[0]
    merges = second(whole.copy(_part(plan, share)), runs)
    # Where pairs of whole words ran out, words are learned on.
    merges.fill(whole, plan.n_tokens)
    return Learned.of(merges, plan.joined)


def _part(plan: Plan, share: float) -> int:
    return 256 + max(1, round(share * (plan.n_tokens - 256)))


def _spelled(merges: Merges, table: Weighted, progress: Progress) -> Sequences:
    progress(0, 0, "spelling runs of words")
    # Of one token there is nothing to merge.
    return spell(byte_level_bpe(merges, (), None), table, fewest=2)


def _across(sequences: Sequences, merges: Merges, plan: Plan, progress: Progress) -> Merges:
    merger = Merger(sequences, merges, allow=few_words(plan))
    return merger.run(
        plan.n_tokens, lambda done: progress(done, plan.n_tokens, "merging across words")
    )
