"""Vocabularies of given or small units: terms, morphemes, short tokens, bases, bytes; and parity.

`characters`  BPE whose tokens have few characters (as KL3M's, for OCR and spelling)
`terms`       BPE, and every term of a list as one token, with and without a space before it
`morphemes`   BPE inside morphemes first, as a list of them or of parted words says, then inside
              words (as CompoundPiece and "Tokens with Meaning", arXiv 2508.14292, ask for)
`dna`         BPE over letters without words (as DNABERT-2, arXiv 2306.15006)
`bytes`       the 256 bytes
`parity`      each merge serves the language that is worst off (Foroutan et al., "Parity-aware
              BPE", arXiv 2508.04796)
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from tokensurgeon.errors import CorpusError, SettingError
from tokensurgeon.progress import Progress
from tokensurgeon.trainers.counting.weighted import Text, Weighted
from tokensurgeon.trainers.encoders import Learned, byte_level_bpe, spell
from tokensurgeon.trainers.learners.merging import REPORT_EVERY, Merger, Merges, Rule, Sequences
from tokensurgeon.trainers.learners.superwords import learn_words
from tokensurgeon.trainers.plan import Plan

LONGEST_TOKEN = 48
"""In bytes, of `bpe` without a pre-tokenizer: boilerplate would else become whole tokens."""
LETTERS = r"[A-Za-z]{1,512}|[^A-Za-z]+"
"""How `dna` cuts."""
MOST_CHARACTERS = 3
MOST_ROUNDS = 20
LONGEST_WORD = 64
"""In letters, that is parted by a list of morphemes."""
LONGEST_MOTIF = 16
MORPHEME_SHARE = 0.5
EVEN = 0.25
"""Share of merges of `parity` that serve all languages alike, before the worst one is served."""
SAME_LINES = 1.1
"""Languages whose numbers of lines differ by less than this are taken for translations."""


def bpe(text: Text, plan: Plan, progress: Progress) -> Learned:
    """Learn words."""
    longest = plan.shape.longest or (LONGEST_TOKEN if plan.preset == "none" else None)
    if longest is None:
        return Learned.of(learn_words(text, plan.n_tokens, progress), plan.cut)
    return _limited(text, plan, plan.cut, lambda token: len(token) <= longest, progress)


def characters(text: Text, plan: Plan, progress: Progress) -> Learned:
    """Learn tokens of few characters."""
    most = plan.shape.longest or MOST_CHARACTERS

    def short(token: bytes) -> bool:
        # Bytes that begin a character; parts of one are always short.
        return sum(byte & 0xC0 != 0x80 for byte in token) <= most

    return _limited(text, plan, plan.cut, short, progress)


def dna(text: Text, plan: Plan, progress: Progress) -> Learned:
    """Learn motifs of text without words."""
    longest = plan.shape.longest or LONGEST_MOTIF
    return _limited(text, plan, LETTERS, lambda token: len(token) <= longest, progress)


def _limited(text: Text, plan: Plan, cut: str | None, allow: Rule, progress: Progress) -> Learned:
    merger = Merger(text.table("words").sequences(), Merges(), allow=allow)
    merges = merger.run(plan.n_tokens, lambda done: progress(done, plan.n_tokens, "merging"))
    return Learned.of(merges, cut)


def only_bytes(text: Text, plan: Plan, progress: Progress) -> Learned:
    """Learn nothing."""
    return Learned.of(Merges(), plan.cut)


def terms(text: Text, plan: Plan, progress: Progress) -> Learned:
    """Learn words, then what makes each term one token.

    The merges of terms rank last, so text without them is spelled as by BPE. What a term is made of
    on the way costs ids too.
    """
    wanted = [form for term in plan.shape.terms for form in (term, f" {term}")]
    whole = learn_words(text, plan.n_tokens, progress)
    several = any(" " in term.strip() for term in plan.shape.terms)
    cut = plan.joined if several and plan.preset != "none" else plan.cut
    # The more words' merges are kept, the fewer the terms need: take the most that leave room.
    low, high = 256, len(whole.tokens)
    while low < high:
        middle = (low + high + 1) // 2
        if len(_with_terms(whole.copy(middle), wanted).tokens) <= plan.n_tokens:
            low = middle
        else:
            high = middle - 1
    made = _with_terms(whole.copy(low), wanted)
    if len(made.tokens) > plan.n_tokens:
        raise SettingError(
            f"{len(plan.shape.terms):,} terms need "
            f"{len(made.tokens) + len(plan.controls):,} tokens; give a larger size or fewer terms"
        )
    # What is left over goes to the words' merges that were cut off.
    made.fill(whole, plan.n_tokens)
    return Learned.of(made, cut)


def _with_terms(merges: Merges, wanted: list[str]) -> Merges:
    known = {token: number for number, token in enumerate(merges.tokens)}
    # The merges of one term can change how another is spelled: again, until each is one token.
    for _ in range(MOST_ROUNDS):
        stage = byte_level_bpe(merges, (), None)
        found = stage.encode_batch_fast(wanted, add_special_tokens=False)
        apart = [encoding.ids for encoding in found if len(encoding.ids) > 1]
        if not apart:
            break
        shortest = min(map(len, apart))
        for left, *rest in apart:
            # Those nearest to being whole first: others may be made of them.
            if len(rest) <= shortest:
                for right in rest:
                    left = merges.add(left, right, 0, known)
    return merges


def morphemes(text: Text, plan: Plan, progress: Progress) -> Learned:
    """Learn inside morphemes, then inside words."""
    words = text.table("words")
    parted, units = read_morphemes(plan.shape.terms)
    known = {unit.encode("utf-8") for unit in units}
    inside: Counter[str] = Counter()
    for word, weight in zip(words.segments, words.weights.tolist(), strict=True):
        for part in part_word(word, parted, known):
            inside[part] += weight
    parts = sorted(inside)
    weights = np.array([inside[part] for part in parts], np.int64)
    first = Weighted(parts, weights, np.zeros(len(parts), np.int32))
    merges = Merger(first.sequences(), Merges()).run(plan.within(MORPHEME_SHARE))
    spelled = spell(byte_level_bpe(merges, (), None), words, fewest=2)
    merger = Merger(spelled, merges)
    merger.run(plan.n_tokens, lambda done: progress(done, plan.n_tokens, "merging in words"))
    return Learned.of(merges, plan.cut)


def read_morphemes(lines: tuple[str, ...]) -> tuple[dict[str, tuple[str, ...]], set[str]]:
    """Return words with their parts (``Haus|tür``), and morphemes, of which all parts are.

    Raises
    ------
    CorpusError
        If a line has an empty part.
    """
    parted: dict[str, tuple[str, ...]] = {}
    units: set[str] = set()
    for line in lines:
        parts = tuple(part.strip() for part in line.split("|"))
        if not all(parts):
            raise CorpusError(f"the line {line!r} has an empty part; write Haus|tür or a morpheme")
        units.update(parts)
        if len(parts) > 1:
            parted["".join(parts)] = parts
    return parted, units


def part_word(word: str, parted: dict[str, tuple[str, ...]], units: set[bytes]) -> list[str]:
    """Return a word in morphemes, a leading sign or space with the first; alone if it has none."""
    start = next((i for i, character in enumerate(word) if character.isalpha()), len(word))
    before, body = word[:start], word[start:]
    found = parted.get(body) or parted.get(body.lower())
    if found is None:
        found = _greedy(body, units)
    if found is None:
        return [word]
    parts, place = [], 0
    for part in found:
        parts.append(body[place : place + len(part)])
        place += len(part)
    return [before + parts[0], *parts[1:]]


def _greedy(body: str, units: set[bytes]) -> tuple[str, ...] | None:
    """Part a word so that the fewest letters are in no unit, then in the fewest parts."""
    data = body.lower()
    if not 0 < len(data) == len(body) <= LONGEST_WORD:
        return None
    best = [(0, 0, 0)]  # letters in no unit, parts, where the last part starts
    for end in range(1, len(data) + 1):
        options = []
        for start in range(end):
            other = data[start:end].encode("utf-8") not in units
            options.append((best[start][0] + (end - start) * other, best[start][1] + 1, start))
        best.append(min(options))
    parts: list[str] = []
    end = len(data)
    while end:
        start = best[end][2]
        parts.append(data[start:end])
        end = start
    return tuple(reversed(parts)) if len(parts) > 1 else None


def parity(text: Text, plan: Plan, progress: Progress) -> Learned:
    """Learn for all languages alike, then at each merge for the one that takes the most tokens."""
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
    first.run(plan.within(EVEN), lambda done: progress(done, plan.n_tokens, "merging for all"))
    ids, segment = first.ids()
    lengths = np.bincount(segment, minlength=len(words.segments))
    merger = Merger(Sequences.of_flat(ids, lengths, words.weights, words.groups), first.merges)
    tokens = merger.n_tokens.astype(float)
    while len(merger.merges.tokens) < plan.n_tokens:
        found = None
        for group in np.argsort(-tokens / units, kind="stable").tolist():
            found = found or merger.best(group)
        if found is None:
            break
        tokens -= merger.merge(*found)[1]
        if len(merger.merges.pairs) % REPORT_EVERY == 0:
            done = len(merger.merges.tokens)
            progress(done, plan.n_tokens, "merging for the language that is worst off")
    return Learned.of(merger.merges, plan.cut)
