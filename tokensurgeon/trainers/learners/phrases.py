"""Vocabularies of phrases: LZW's dictionary, and two that grow or shrink by the tokens they save.

`lzw`        the phrases that LZW finds in the tokens of the text (Geng et al., "zip2zip", arXiv
             2506.01084, for the idea; there the dictionary is made anew for each text), pruned to a
             fixed vocabulary
`pathpiece`  twice as many BPE tokens as wanted, pruned (Schmidt et al., arXiv 2402.18376)
`lib`        less is better (Yang et al., arXiv 2403.00417): units grow from frequent neighbours and
             stay only where they shorten what text is spelled with
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from tokensurgeon.progress import Progress, no_progress
from tokensurgeon.trainers.counting.weighted import Text
from tokensurgeon.trainers.encoders import Learned, byte_level_bpe, bytes_first, min_tokens, spell
from tokensurgeon.trainers.learners.merging import SHIFT, Merger, Sequences
from tokensurgeon.trainers.learners.pruner import prune
from tokensurgeon.trainers.learners.superwords import learn_words
from tokensurgeon.trainers.plan import Plan, few_words

CANDIDATES = 12
"""Phrases for each token wanted."""
MOST_PHRASES = 3_000_000
LZW_TRANSITION = 0.7
"""Of `lzw` with merges; with min-tokens the pruner decides."""
LIB_ROUNDS = 12
LIB_PRUNING = (1.5, 1.0)
"""Rounds of pruning after each growth: six of them, as elsewhere, buy nothing here."""
LIB_SAMPLE_BYTES = 12_000_000


def lzw(text: Text, plan: Plan, progress: Progress) -> Learned:
    """Learn words, then the phrases of their tokens that LZW finds and that pay."""
    whole = learn_words(text, plan.n_tokens, progress)
    stage = whole.copy(plan.within(LZW_TRANSITION))
    runs = text.table("runs")
    progress(0, 0, "spelling runs of words")
    sequences = spell(byte_level_bpe(stage, (), None), runs, fewest=2)
    progress(0, 0, "finding phrases")
    allow = few_words(plan)
    found = lzw_phrases(sequences, stage.tokens, plan.shape.longest or 64)
    phrases = [phrase for phrase in found if allow(phrase)][: CANDIDATES * plan.n_tokens]
    if plan.encoder == "min-tokens":
        candidates = [*whole.tokens, *phrases]
        return Learned(prune(candidates, runs, plan.n_tokens, progress), plan.joined)
    wanted = set(phrases)
    merger = Merger(sequences, stage, allow=wanted.__contains__)
    merger.run(plan.n_tokens, lambda done: progress(done, plan.n_tokens, "merging phrases"))
    stage.fill(whole, plan.n_tokens)
    return Learned.of(stage, plan.joined)


def lzw_phrases(sequences: Sequences, tokens: list[bytes], longest: int) -> list[bytes]:
    """Return the phrases that LZW finds, those that save the most tokens first.

    One dictionary grows over all segments. They are then spelled again with all of it, since what
    an early phrase is used for shows only late.
    """
    ids = sequences.ids.tolist()
    bases = sequences.segment.tolist()
    weights = sequences.weights.tolist()
    n = len(tokens)
    lengths = [len(token) for token in tokens]  # in bytes
    table: dict[int, int] = {}
    parents: list[int] = []
    lasts: list[int] = []
    for growing in (True, False):
        uses = [0] * (n + len(parents))
        current = -1
        for place, token in enumerate(ids):
            if token < 0:
                if current >= 0 and not growing:
                    uses[current] += weights[bases[place - 1]]
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
                uses[current] += weights[bases[place]]
            current = token
    spelled: list[bytes] = list(tokens)
    pieces = [1] * n
    saved: defaultdict[bytes, int] = defaultdict(int)
    for number, (parent, last) in enumerate(zip(parents, lasts, strict=True)):
        spelled.append(spelled[parent] + tokens[last])
        pieces.append(pieces[parent] + 1)
        # Several spellings of one string are one phrase.
        saved[spelled[-1]] += uses[n + number] * pieces[parent]
    known = set(tokens)
    return sorted(
        (phrase for phrase, count in saved.items() if count and phrase not in known),
        key=lambda phrase: (-saved[phrase], phrase),
    )


def pathpiece(text: Text, plan: Plan, progress: Progress) -> Learned:
    """Learn twice as many words' tokens as wanted, and prune them."""
    words = text.table("words", keep=True)
    merges = learn_words(text, 2 * plan.n_tokens, progress)
    return Learned(prune(merges.tokens, words, plan.n_tokens, progress), plan.cut)


def lib(text: Text, plan: Plan, progress: Progress) -> Learned:
    """Grow units from neighbours, and drop those that do not shorten the text, in turns."""
    runs = text.table("runs").sample(LIB_SAMPLE_BYTES)
    allow = few_words(plan)
    tokens = bytes_first(())
    for number in range(1, LIB_ROUNDS + 1):
        progress(number - 1, LIB_ROUNDS, "growing units")
        size = 256 + (plan.n_tokens - 256) * number // LIB_ROUNDS
        spelled = spell(min_tokens(tokens, (), None), runs)
        ids, at = spelled.ids.astype(np.int64), spelled.segment
        places = np.flatnonzero((ids[:-1] >= 0) & (ids[1:] >= 0))
        keys, numbers = np.unique((ids[places] << SHIFT) | ids[places + 1], return_inverse=True)
        counts = np.bincount(numbers, spelled.weights[at[places]].astype(float), len(keys))
        grown = []
        for key in keys[np.argsort(-counts, kind="stable")[: 2 * size]].tolist():
            unit = tokens[key >> SHIFT] + tokens[key & ((1 << SHIFT) - 1)]
            if allow(unit):
                grown.append(unit)
        tokens = prune([*tokens, *grown], runs, size, no_progress, rounds=LIB_PRUNING)
    return Learned(tokens, plan.joined)
