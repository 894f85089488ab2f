"""Vocabularies of given or small units: terms, morphemes, short tokens, motifs, bytes; and parity.

`characters`  BPE whose tokens have few characters (as KL3M's, for OCR and spelling)
`terms`       BPE, and every term of a list as one token, with and without a space before it
`morphemes`   BPE inside morphemes first, then inside words. A list gives morphemes or segmented
              words (after CompoundPiece and "Tokens with Meaning", arXiv 2508.14292)
`dna`         BPE over letters without words (as DNABERT-2, arXiv 2306.15006)
`bytes`       the 256 bytes
`parity`      each merge is chosen for the language that takes the most tokens so far (Foroutan et
              al., "Parity-aware BPE", arXiv 2508.04796)
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from tokensurgeon.errors import CorpusError, SettingError
from tokensurgeon.progress import Progress
from tokensurgeon.trainers.counting.sequences import Sequences
from tokensurgeon.trainers.counting.weighted import WeightedSegments, WeightedText
from tokensurgeon.trainers.encoders import byte_level_bpe
from tokensurgeon.trainers.learned import Learned, Merges
from tokensurgeon.trainers.learners.merging import REPORT_EVERY, Merger
from tokensurgeon.trainers.learners.superwords import learn_words, spell_merged
from tokensurgeon.trainers.plan import Plan

LONGEST_TOKEN = 48
"""Bytes of a token of `bpe` without a pre-tokenizer: otherwise boilerplate would become tokens."""
LETTERS = r"[A-Za-z]{1,512}|[^A-Za-z]+"
"""How `dna` cuts."""
MOST_CHARACTERS = 3
"""Characters of a token of `characters`, by default."""
MOST_ROUNDS = 20
"""Rounds of merging terms. Each makes every shortest term whole, so a few are enough; this bound
only ends the loop."""
LONGEST_WORD = 64
"""Letters of a word that is segmented into morphemes; the time grows with the square."""
LONGEST_MOTIF = 16
"""Bytes of a token of `dna`, by default: without words, a repeat of any length could be a token."""
MORPHEME_SHARE = 0.5
"""Share of the tokens that `morphemes` learns inside morphemes, by default; as for `superbpe`."""
EVEN = 0.25
"""Share of the merges of `parity` that are chosen for all languages together, before the others are
chosen for one language each. On FLORES, Gini is 0.0051 with it and 0.0047 with a share of 0.05."""
SAME_LINES = 1.1
"""Parts count as translations of each other if their numbers of lines differ by at most this
factor."""


def bpe(text: WeightedText, plan: Plan, progress: Progress) -> Learned:
    """Learn words."""
    longest = plan.shape.longest or (LONGEST_TOKEN if plan.preset == "none" else None)
    allow = None if longest is None else lambda token: len(token) <= longest
    return Learned.of(learn_words(text, plan.n_tokens, progress, allow), plan.cut)


def characters(text: WeightedText, plan: Plan, progress: Progress) -> Learned:
    """Learn tokens of few characters."""
    most = plan.shape.longest or MOST_CHARACTERS

    def short(token: bytes) -> bool:
        # Counts the bytes that begin a character.
        return sum(byte & 0xC0 != 0x80 for byte in token) <= most

    return Learned.of(learn_words(text, plan.n_tokens, progress, short), plan.cut)


def dna(text: WeightedText, plan: Plan, progress: Progress) -> Learned:
    """Learn motifs of text without words."""
    longest = plan.shape.longest or LONGEST_MOTIF
    merges = learn_words(text, plan.n_tokens, progress, lambda token: len(token) <= longest)
    return Learned.of(merges, LETTERS)


def only_bytes(text: WeightedText, plan: Plan, progress: Progress) -> Learned:
    """Learn nothing."""
    return Learned.of(Merges(), plan.cut)


def terms(text: WeightedText, plan: Plan, progress: Progress) -> Learned:
    """Learn words, then the merges that make each term one token.

    The merges of terms rank last, so text without terms is spelled as by BPE. The intermediate
    tokens of a term take ids too.
    """
    wanted = [form for term in plan.shape.terms for form in (term, f" {term}")]
    whole = learn_words(text, plan.n_tokens, progress)
    several = any(" " in term.strip() for term in plan.shape.terms)
    cut = plan.joined if several and plan.preset != "none" else plan.cut
    # The more merges in words there are, the fewer the terms need: take the most that leave room.
    low, high = 256, len(whole.tokens)
    while low < high:
        middle = (low + high + 1) // 2
        if len(_with_terms(whole.copy(middle), wanted).tokens) <= plan.n_tokens:
            low = middle
        else:
            high = middle - 1
    merges = _with_terms(whole.copy(low), wanted)
    if len(merges.tokens) > plan.n_tokens:
        raise SettingError(
            f"{len(plan.shape.terms):,} terms need "
            f"{len(merges.tokens) + len(plan.controls):,} tokens; give a larger size or fewer terms"
        )
    # Ids that are left go to the next merges in words.
    merges.fill(whole, plan.n_tokens)
    return Learned.of(merges, cut)


def _with_terms(merges: Merges, wanted: list[str]) -> Merges:
    """Add merges until each wanted string is one token."""
    ids = merges.ids
    # The merges of one term can change how another is spelled, so all are encoded in each round.
    for _ in range(MOST_ROUNDS):
        tokenizer = byte_level_bpe(merges, (), None)
        encodings = tokenizer.encode_batch_fast(wanted, add_special_tokens=False)
        unmerged = [encoding.ids for encoding in encodings if len(encoding.ids) > 1]
        if not unmerged:
            break
        shortest = min(map(len, unmerged))
        for left, *rest in unmerged:
            # The shortest first: longer terms may contain them.
            if len(rest) <= shortest:
                for right in rest:
                    left = merges.add(left, right, 0, ids)
    return merges


def morphemes(text: WeightedText, plan: Plan, progress: Progress) -> Learned:
    """Learn inside morphemes, then inside words."""
    words = text.table("words")
    segmented, morphemes = read_morphemes(plan.shape.terms)
    known = {morpheme.encode("utf-8") for morpheme in morphemes}
    parts: Counter[str] = Counter()
    for word, weight in zip(words.segments, words.weights.tolist(), strict=True):
        for part in segment_word(word, segmented, known):
            parts[part] += weight
    first = WeightedSegments.of_table(parts)
    merges = Merger(first.sequences(), Merges()).run(plan.n_first(MORPHEME_SHARE))
    sequences = spell_merged(merges, words, progress)
    Merger(sequences, merges).run(plan.n_tokens, progress, "merging in words")
    return Learned.of(merges, plan.cut)


def read_morphemes(lines: tuple[str, ...]) -> tuple[dict[str, tuple[str, ...]], set[str]]:
    """Return segmented words (``Haus|tür``) with their parts, and morphemes, parts included.

    Raises
    ------
    CorpusError
        If a line has an empty part.
    """
    segmented: dict[str, tuple[str, ...]] = {}
    morphemes: set[str] = set()
    for line in lines:
        parts = tuple(part.strip() for part in line.split("|"))
        if not all(parts):
            raise CorpusError(f"the line {line!r} has an empty part; write Haus|tür or a morpheme")
        morphemes.update(parts)
        if len(parts) > 1:
            segmented["".join(parts)] = parts
    return segmented, morphemes


def segment_word(
    word: str, segmented: dict[str, tuple[str, ...]], morphemes: set[bytes]
) -> list[str]:
    """Return the morphemes of a word; a sign or space before it stays with the first."""
    start = next((i for i, character in enumerate(word) if character.isalpha()), len(word))
    before, body = word[:start], word[start:]
    lower = (
        segmented.get(body) or segmented.get(body.lower()) or _best_segmentation(body, morphemes)
    )
    if lower is None:
        return [word]
    parts, start = [], 0
    for part in lower:
        parts.append(body[start : start + len(part)])
        start += len(part)
    return [before + parts[0], *parts[1:]]


def _best_segmentation(body: str, morphemes: set[bytes]) -> tuple[str, ...] | None:
    """Segment a word with the fewest letters outside morphemes, then with the fewest parts."""
    data = body.lower()
    if not 0 < len(data) == len(body) <= LONGEST_WORD:
        return None
    best = [(0, 0, 0)]  # letters outside morphemes, number of parts, start of the last part
    for end in range(1, len(data) + 1):
        options = []
        for start in range(end):
            other = data[start:end].encode("utf-8") not in morphemes
            options.append((best[start][0] + (end - start) * other, best[start][1] + 1, start))
        best.append(min(options))
    parts: list[str] = []
    end = len(data)
    while end:
        start = best[end][2]
        parts.append(data[start:end])
        end = start
    return tuple(reversed(parts)) if len(parts) > 1 else None


def parity(text: WeightedText, plan: Plan, progress: Progress) -> Learned:
    """Learn for all languages together, then each merge for the one that takes the most tokens."""
    names, lines = text.counted.parts, text.counted.n_lines
    if len(names) < 2:
        raise SettingError("parity needs languages; give --mixture NAME=SHARE:FILES for each")
    if plan.shape.parallel:
        amounts = [1] * len(names)
    elif max(lines) <= SAME_LINES * max(1, min(lines)):
        amounts = lines
    else:
        amounts = text.counted.n_bytes
    units = np.array(amounts, float) * np.array(text.factors)
    words = text.table("words", grouped=True)
    first = Merger(words.sequences(), Merges())
    first.run(plan.n_first(EVEN), progress, "merging for all")
    ids, segment = first.ids()
    lengths = np.bincount(segment, minlength=len(words.segments))
    merger = Merger(Sequences.of_flat(ids, lengths, words.weights, words.groups), first.merges)
    tokens = merger.n_tokens.astype(float)
    while len(merger.merges.tokens) < plan.n_tokens:
        best = None
        for group in np.argsort(-tokens / units, kind="stable").tolist():
            best = best or merger.best(group)
        if best is None:
            break
        tokens -= merger.merge(*best)[1]
        if len(merger.merges.pairs) % REPORT_EVERY == 0:
            done = len(merger.merges.tokens)
            progress(done, plan.n_tokens, "merging for the language of the most tokens")
    return Learned.of(merger.merges, plan.cut)
