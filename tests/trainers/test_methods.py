"""Laws of the methods: what each one promises, on planted text."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from tokensurgeon.errors import CorpusError, SettingError, UnknownNameError
from tokensurgeon.progress import no_progress
from tokensurgeon.text.corpus import corpus_of_texts
from tokensurgeon.trainers import METHODS, Shape, train_vocabulary
from tokensurgeon.trainers.counting.sequences import Sequences
from tokensurgeon.trainers.counting.weighted import WeightedSegments
from tokensurgeon.trainers.encoders import bytes_first, min_tokens
from tokensurgeon.trainers.learned import Merges
from tokensurgeon.trainers.learners.learn import LEARN, OWN_MODELS
from tokensurgeon.trainers.learners.merging import Merger
from tokensurgeon.trainers.learners.phrases import lzw_phrases
from tokensurgeon.trainers.learners.pruner import pieces_without, prune, token_worth
from tokensurgeon.trainers.learners.superwords import frequent_ngrams
from tokensurgeon.trainers.learners.units import read_morphemes, segment_word
from tokensurgeon.trainers.plan import make_plan
from tokensurgeon.trainers.training_methods import METHODS_BY_NAME

PHRASE = "as a result of the change"
SYLLABLES = ("ta", "ble", "in", "dex", "va", "lue", "que", "ry", "row", "let", "mo", "gra")
WORDS = [a + b + c for a in SYLLABLES for b in SYLLABLES[::2] for c in SYLLABLES[1::3]]
LINES = [
    f"{WORDS[i % 288].title()} {PHRASE} the {WORDS[i * 7 % 288]} is {WORDS[i * 5 % 288]}, "
    f"{PHRASE} or not\n"
    for i in range(300)
]
CORPUS = corpus_of_texts(LINES)
ACROSS = [n for n, each in METHODS_BY_NAME.items() if each.needs_words and n != "morphemes"]


def tokens_of(trained):
    tokenizer = trained.tokenizer
    return {tokenizer.decode([i], skip_special_tokens=False) for i in range(trained.size)}


def test_every_method_is_learned_or_has_a_model_of_its_own():
    assert {*LEARN, *OWN_MODELS} == set(METHODS)
    assert not LEARN.keys() & OWN_MODELS


@pytest.mark.parametrize("method", ACROSS)
def test_what_is_repeated_becomes_a_token_of_several_words(method):
    trained = train_vocabulary(CORPUS, method=method, size=340)
    assert any(" " in token.strip() for token in tokens_of(trained))
    if method != "lzw":  # needs more text than this
        assert trained.figures["bytes_per_token"] > trained.figures["stock_bpe_bytes_per_token"]


@pytest.mark.parametrize("method", ACROSS)
def test_no_token_has_more_words_or_bytes_or_crosses_more_than_asked(method):
    shape = Shape(most_words=2, longest=14, no_cross=("newline", "digits", "punctuation"))
    trained = train_vocabulary(CORPUS, method=method, size=370, shape=shape)
    for token in tokens_of(trained):
        assert len(token.encode()) <= 14
        assert len(regex.findall(r"\w+", token)) <= 2
        assert "," not in token or token == ","


def test_boundless_tokens_of_several_words_are_whole_words():
    trained = train_vocabulary(CORPUS, method="boundless", size=340)
    tokens = tokens_of(trained)
    for token in tokens:
        words = regex.findall(r" ?\w+|[^\w\s]+", token)
        assert len(words) < 2 or "<|" in token or all(word in tokens for word in words)


def test_boundless_chooses_its_transition():
    several = {}
    for share in (None, 0.9):
        shape = Shape(transition=share)
        trained = train_vocabulary(CORPUS, method="boundless", size=330, shape=shape)
        several[share] = trained.figures["bytes_per_token"]
    assert several[None] >= several[0.9]


def test_the_most_frequent_ngrams_are_found_with_their_prefixes():
    runs = [[1, 2, 3], [1, 2, 3], [1, 2], [4, 1, 2, 3]]
    flat = np.array([i for run in runs for i in run], np.int32)
    sequences = Sequences.of_flat(flat, np.array([3, 3, 2, 4]), np.array([1, 1, 5, 1]))
    found = frequent_ngrams(sequences, 3)
    assert found == [((1, 2), 8), ((2, 3), 3), ((1, 2, 3), 3)]


def test_lzw_finds_the_phrase_that_saves_most():
    tokens = [b"x", b"a", b"b", b"c"]
    flat = np.array([1, 2, 3] * 40, np.int32)
    sequences = Sequences.of_flat(flat, np.array([3] * 40), np.ones(40, np.int64))
    assert lzw_phrases(sequences, tokens, 64)[0] == b"abc"
    assert b"abc" not in lzw_phrases(sequences, tokens, 2)


@settings(max_examples=50, deadline=None)
@given(st.text("ab", min_size=1, max_size=12), st.sets(st.text("ab", min_size=1, max_size=5)))
def test_min_tokens_spells_with_the_fewest(text, words):
    known = {word.encode() for word in words} | {b"a", b"b"}
    tokenizer = min_tokens(bytes_first(sorted(known)), (), None)
    found = len(tokenizer.encode(text).ids)
    fewest = [0]
    data = text.encode()
    for end in range(1, len(data) + 1):
        fewest.append(min(fewest[s] + 1 for s in range(end) if data[s:end] in known))
    assert found == fewest[-1]


@settings(max_examples=50, deadline=None)
@given(st.text("ab", min_size=2, max_size=8), st.sets(st.text("ab", min_size=2, max_size=4)))
def test_what_a_token_is_worth_is_what_the_text_costs_without_it(token, others):
    text = WeightedSegments.of_table({token: 3})
    known = [token.encode(), *(other.encode() for other in sorted(others - {token}))]
    tokens = bytes_first(known)
    worth = token_worth(tokens, text)[tokens.index(token.encode())]
    without = min_tokens(bytes_first(known[1:]), (), None)
    assert worth == 3 * (len(without.encode(token).ids) - 1)
    assert pieces_without(b"a", {b"a"}) == 1


def test_the_pruner_keeps_what_pays_and_the_bytes():
    text = WeightedSegments.of_table({"abab": 10, "cd": 4, "ef": 3})
    candidates = [b"ab", b"abab", b"cd", b"ef", b"xyz"]
    kept = prune(candidates, text, 258, no_progress)
    assert kept[:256] == bytes_first(())
    assert kept[256:] == [b"abab", b"cd"]


def test_terms_become_single_tokens_and_other_text_is_spelled_as_by_bpe():
    terms = ("hyperlipidaemia", "mitral valve")
    size = 420
    plain = train_vocabulary(CORPUS, method="bpe", size=size - 60)
    trained = train_vocabulary(CORPUS, method="terms", size=size, shape=Shape(terms=terms))
    for term in terms:
        assert len(trained.tokenizer.encode(f"the {term}").tokens) <= 3
        assert trained.tokenizer.encode(term).ids == [trained.tokenizer.encode(term).ids[0]]
    assert trained.size == size
    for line in LINES[:5]:
        for word in line.split():
            spelled = [t.replace("Ġ", " ") for t in plain.tokenizer.encode(f" {word}").tokens]
            new = [t.replace("Ġ", " ") for t in trained.tokenizer.encode(f" {word}").tokens]
            assert len(new) <= len(spelled)


def test_terms_that_do_not_fit_are_refused_with_what_they_need():
    terms = tuple(f"{i:04d}-{i * 7919 % 9973:04d}-zzqx" for i in range(60))
    with pytest.raises(SettingError, match=r"60 terms need [\d,]+ tokens"):
        train_vocabulary(CORPUS, method="terms", size=280, shape=Shape(terms=terms))


def test_morphemes_part_words_and_their_borders_come_first():
    parted, units = read_morphemes(("Haus|tür", "un", "lock", "ed"))
    known = {unit.encode() for unit in units}
    assert segment_word(" Haustür", parted, known) == [" Haus", "tür"]
    assert segment_word(" unlocked", parted, known) == [" un", "lock", "ed"]
    assert segment_word("Locked", parted, known) == ["Lock", "ed"]
    assert segment_word(" query", parted, known) == [" query"]
    with pytest.raises(CorpusError, match="empty part"):
        read_morphemes(("Haus|",))
    words = ["unlocked", "unlocking", "relocked", "undoing", "redoing", "locked"]
    corpus = corpus_of_texts(f"{' '.join(words)} {word}\n" for word in words * 10)
    shape = Shape(terms=("un", "re", "lock", "do", "ed", "ing"), transition=0.6)
    trained = train_vocabulary(corpus, method="morphemes", size=275, shape=shape)
    assert trained.tokenizer.encode(" undoed").tokens == ["Ġun", "do", "ed"]


def test_short_tokens_have_few_characters_in_any_script():
    corpus = corpus_of_texts(
        ["größer größte größere übergroß 日本語 日本語の " * 3 + str(i) for i in range(40)]
    )
    trained = train_vocabulary(corpus, method="characters", size=275, shape=Shape(longest=2))
    whole = [token for token in tokens_of(trained) if "�" not in token and "<|" not in token]
    assert max(map(len, whole)) == 2
    assert trained.figures["longest_token"] > 2  # in bytes


def test_motifs_are_learned_over_letters_alone():
    rng = np.random.default_rng(0)
    text = ["".join(rng.choice(list("ACGT"), 40)) + "GATTACA" for _ in range(80)]
    trained = train_vocabulary(corpus_of_texts(text), method="dna", size=300)
    learned = [t for t in tokens_of(trained) if len(t) > 1 and "<|" not in t]
    assert any("GATTACA" in token for token in learned)
    assert all(set(token) <= set("ACGT") for token in learned)


def test_parity_serves_the_language_that_is_worst_off():
    english = [f"the {WORDS[i]} of row {i % 7} is {WORDS[-i]}\n" for i in range(60)]
    # The same lines in an alphabet of its own, of three bytes a letter, and a sixth as much text.
    other = str.maketrans({chr(c): chr(0x30A0 + c % 80) for c in range(97, 123)})
    parts = {
        "en": corpus_of_texts(english * 6),
        "xx": corpus_of_texts(line.translate(other) for line in english),
    }
    held = {name: part.texts[:20] for name, part in parts.items()}
    rates = {}
    for method in ("bpe", "parity"):
        trained = train_vocabulary(parts, method=method, size=330)
        rates[method] = [
            sum(len(trained.tokenizer.encode(t).ids) / len(t.encode()) for t in texts)
            for texts in held.values()
        ]
    spread = {m: max(r) / min(r) for m, r in rates.items()}
    assert spread["parity"] < spread["bpe"]
    with pytest.raises(SettingError, match="--mixture"):
        train_vocabulary(CORPUS, method="parity", size=300)


def test_bytes_are_a_vocabulary():
    trained = train_vocabulary(CORPUS, method="bytes", pad_to_multiple_of=128)
    assert trained.size == 384
    assert trained.settings["reserved"] == 127
    assert len(trained.tokenizer.encode("größer").ids) == len("größer".encode())


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        ("pathpiece", {"encoder": "bpe"}, "no encoder for pathpiece 'bpe'"),
        ("unigram", {"encoder": "bpe"}, "no encoder for unigram"),
        ("bpe", {"terms": ("a",)}, "takes no terms"),
        ("terms", {}, "needs a list"),
        ("superbpe", {"transition": 1.5}, "transition is 1.5"),
        ("superbpe", {"most_words": 1}, "most words of a token is 1"),
        ("superbpe", {"no_cross": ("dots",)}, "no barrier 'dots'"),
        ("superbpe", {"max_pieces": 1}, "most pieces"),
        ("characters", {"longest": 0}, "longest token is 0"),
    ],
)
def test_settings_that_do_not_fit_are_named(method, settings, message):
    with pytest.raises((SettingError, UnknownNameError), match=message):
        train_vocabulary(CORPUS, method=method, size=300, shape=Shape(**settings))


def test_a_size_is_needed_but_for_bytes():
    with pytest.raises(SettingError, match="bpe needs a size"):
        train_vocabulary(CORPUS, method="bpe")
    assert make_plan("bytes", None, "cl100k", "any", Shape(), ["<|eos|>"]).size == 257


def test_merges_may_be_limited_to_phrases():
    words = WeightedSegments.of_table({"abc": 5, "abd": 4})
    merges = Merger(words.sequences(), Merges(), allow={b"ab", b"abd"}.__contains__).run(300)
    assert merges.tokens[256:] == [b"ab", b"abd"]
    assert replace(words).sequences().weight == 27
