"""Vocabularies of phrases: LZW's dictionary, and two that select by the number of tokens saved.

`lzw`        the phrases that LZW finds in the tokens of the text, pruned to a fixed vocabulary. The
             idea is of Geng et al., "zip2zip", arXiv 2506.01084, who build a dictionary per text.
`pathpiece`  twice as many BPE tokens as wanted, pruned (Schmidt et al., arXiv 2402.18376)
`lib`        less is better (Yang et al., arXiv 2403.00417): frequent neighbours join to units, and
             only units that shorten the text are kept
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from tokensurgeon.progress import Progress, no_progress
from tokensurgeon.trainers.counting.sequences import ID_BITS, ID_MASK, Sequences
from tokensurgeon.trainers.counting.weighted import WeightedText
from tokensurgeon.trainers.encoders import bytes_first, min_tokens, spell
from tokensurgeon.trainers.learned import Learned
from tokensurgeon.trainers.learners.merging import Merger
from tokensurgeon.trainers.learners.pruner import prune
from tokensurgeon.trainers.learners.superwords import few_words, learn_words, spell_merged
from tokensurgeon.trainers.plan import LONGEST_SUPERWORD, Plan

CANDIDATES = 12
"""Phrases kept as candidates for each token wanted; phrases come best first."""
MOST_PHRASES = 3_000_000
"""Entries of LZW's dictionary; bounds the memory."""
LZW_TRANSITION = 0.7
"""Share of the tokens that `lzw` with merges learns inside words; with min-tokens the pruner
decides."""
LIB_ROUNDS = 12
"""Rounds in which `lib` grows units and prunes them: a unit of n tokens needs log2(n) rounds."""
LIB_PRUNING = (1.5, 1.0)
"""Rounds of pruning after each growth, as in `pruner.ROUNDS`. Six of them gain nothing here."""
LIB_SAMPLE_BYTES = 12_000_000
"""Bytes of runs that `lib` learns from; bounds the time, as each round spells them three times."""


def lzw(text: WeightedText, plan: Plan, progress: Progress) -> Learned:
    """Learn words, then the phrases of their tokens that LZW finds and that pay."""
    whole = learn_words(text, plan.n_tokens, progress)
    merges = whole.copy(plan.n_first(LZW_TRANSITION))
    runs = text.table("runs")
    sequences = spell_merged(merges, runs, progress)
    progress(0, 0, "finding phrases")
    allow = few_words(plan)
    longest = plan.shape.longest or LONGEST_SUPERWORD
    phrases = [p for p in lzw_phrases(sequences, merges.tokens, longest) if allow(p)]
    phrases = phrases[: CANDIDATES * plan.n_tokens]
    if plan.encoder == "min-tokens":
        candidates = [*whole.tokens, *phrases]
        return Learned(prune(candidates, runs, plan.n_tokens, progress), plan.joined)
    merger = Merger(sequences, merges, allow=set(phrases).__contains__)
    merger.run(plan.n_tokens, progress, "merging phrases")
    merges.fill(whole, plan.n_tokens)
    return Learned.of(merges, plan.joined)


def lzw_phrases(sequences: Sequences, tokens: list[bytes], longest: int) -> list[bytes]:
    """Return the phrases that LZW finds; those that save the most tokens come first.

    One dictionary grows over all segments. Then all segments are spelled again with the complete
    dictionary, to count the uses of each phrase.
    """
    ids = sequences.ids.tolist()
    segment = sequences.segment.tolist()
    weights = sequences.weights.tolist()
    n = len(tokens)
    lengths = [len(token) for token in tokens]  # in bytes
    table: dict[int, int] = {}
    parents: list[int] = []
    lasts: list[int] = []
    for growing in (True, False):
        uses = [0] * (n + len(parents))
        current = -1
        for position, token in enumerate(ids):
            if token < 0:
                if current >= 0 and not growing:
                    uses[current] += weights[segment[position - 1]]
                current = -1
                continue
            if current < 0:
                current = token
                continue
            key = current * n + token
            longer = table.get(key)
            if longer is not None:
                current = longer
                continue
            if growing:
                size = lengths[current] + lengths[token]
                if size <= longest and len(parents) < MOST_PHRASES:
                    table[key] = n + len(parents)
                    parents.append(current)
                    lasts.append(token)
                    lengths.append(size)
            else:
                uses[current] += weights[segment[position]]
            current = token
    spelled: list[bytes] = list(tokens)
    pieces = [1] * n
    saved: defaultdict[bytes, int] = defaultdict(int)
    for number, (parent, last) in enumerate(zip(parents, lasts, strict=True)):
        spelled.append(spelled[parent] + tokens[last])
        pieces.append(pieces[parent] + 1)
        # Different pieces that spell the same bytes are one phrase.
        saved[spelled[-1]] += uses[n + number] * pieces[parent]
    known = set(tokens)
    return sorted(
        (phrase for phrase, count in saved.items() if count and phrase not in known),
        key=lambda phrase: (-saved[phrase], phrase),
    )


def pathpiece(text: WeightedText, plan: Plan, progress: Progress) -> Learned:
    """Learn twice as many words' tokens as wanted, and prune them."""
    words = text.table("words", keep=True)
    merges = learn_words(text, 2 * plan.n_tokens, progress)
    return Learned(prune(merges.tokens, words, plan.n_tokens, progress), plan.cut)


def lib(text: WeightedText, plan: Plan, progress: Progress) -> Learned:
    """Join frequent neighbours to units and drop units that do not shorten the text, in turns."""
    runs = text.table("runs").sample(LIB_SAMPLE_BYTES)
    allow = few_words(plan)
    tokens = bytes_first(())
    for number in range(1, LIB_ROUNDS + 1):
        progress(number - 1, LIB_ROUNDS, "growing units")
        size = 256 + (plan.n_tokens - 256) * number // LIB_ROUNDS
        spelled = spell(min_tokens(tokens, (), None), runs)
        ids, segment = spelled.ids.astype(np.int64), spelled.segment
        starts = np.flatnonzero((ids[:-1] >= 0) & (ids[1:] >= 0))
        pairs, pair_at = np.unique((ids[starts] << ID_BITS) | ids[starts + 1], return_inverse=True)
        counts = np.bincount(pair_at, spelled.weights[segment[starts]].astype(float), len(pairs))
        frequent = pairs[np.argsort(-counts, kind="stable")[: 2 * size]].tolist()
        units = [tokens[pair >> ID_BITS] + tokens[pair & ID_MASK] for pair in frequent]
        tokens = [*tokens, *(unit for unit in units if allow(unit))]
        tokens = prune(tokens, runs, size, no_progress, rounds=LIB_PRUNING)
    return Learned(tokens, plan.joined)
