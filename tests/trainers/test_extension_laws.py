"""Laws of continued merges: never longer, exact parts, all in reach, leaves alone are dropped."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from tests.trainers.test_kept_ids import BPES, saved
from tests.trainers.test_methods import CORPUS, LINES
from tests.world import byte_level_bpe, save_tokenizer
from tokensurgeon.errors import CorpusError, SettingError, TokenizerError
from tokensurgeon.recipe import TrainSpec
from tokensurgeon.text.corpus import corpus_of_texts
from tokensurgeon.trainers import extend_vocabulary
from tokensurgeon.trainers.edits.leaves import kept_after_pruning
from tokensurgeon.trainers.edits.never_longer import refuse_longer
from tokensurgeon.trainers.training_methods import SPARE
from tokensurgeon.vocabulary.hard_text import hard_texts

WORDS = sorted({word for line in LINES for word in line.split()})
TEXTS = st.lists(
    st.one_of(
        st.sampled_from(WORDS),
        st.sampled_from([" ", "  ", "\n", "\t", "'s", "1234", "<s>", "▁", "</w>", "é", "日本"]),
        st.text(max_size=4),
    ),
    max_size=12,
).map("".join)
"""Words of the corpus whole, run together and cut by anything."""


def ids(tokenizer: Tokenizer, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False).ids)


def pair_of(make: Callable[[], Tokenizer], add: int = 40) -> tuple[Tokenizer, Tokenizer]:
    """Return a tokenizer and its extension, neither of which drops merges."""
    with TemporaryDirectory() as scratch:
        base = saved(make(), Path(scratch) / "base")
        made = extend_vocabulary(base, CORPUS, add=add, never_longer=True)
        return Tokenizer.from_file(str(base / "tokenizer.json")), made.tokenizer


@cache
def extended(name: str) -> tuple[Tokenizer, Tokenizer]:
    return pair_of(BPES[name])


@pytest.mark.parametrize("name", [name for name in BPES if name != "bounded"])
def test_no_text_takes_more_tokens(name: str) -> None:
    old, new = extended(name)

    @settings(max_examples=150)
    @given(TEXTS)
    def law(text: str) -> None:
        assert len(ids(new, text)) <= len(ids(old, text))
        n_before = max(old.get_vocab().values()) + 1
        if max(ids(new, text), default=0) < n_before:
            assert ids(new, text) == ids(old, text)

    law()
    for text in (*hard_texts(), *LINES):
        assert len(ids(new, text)) <= len(ids(old, text))


@pytest.mark.parametrize("name", [n for n in BPES if n not in ("bounded", "end of word")])
def test_each_new_token_is_spelled_by_old_ones_and_made_from_its_own_spelling(name: str) -> None:
    old, new = extended(name)
    n_before = max(old.get_vocab().values()) + 1
    added = {i: name for name, i in new.get_vocab().items() if i >= n_before}
    assert len(added) == 40
    for i, spelling in added.items():
        parts = [token.value for token in old.model.tokenize(spelling)]
        assert "".join(parts) == spelling
        assert [token.id for token in new.model.tokenize(spelling)] == [i]
        assert len(parts) > 1
    emitted = {i for text in LINES for i in ids(new, text)}
    as_text = {i for i in added if i in ids(new, new.decode([i]))}
    assert emitted | as_text >= {i for i in added if not _is_step(i, added, new)}


def _is_step(token: int, added: dict[int, str], tokenizer: Tokenizer) -> bool:
    """Whether another new token begins or ends with it, and so may be merged from it."""
    name = added[token]
    others = (other for i, other in added.items() if i != token)
    return any(other.startswith(name) or other.endswith(name) for other in others)


@settings(max_examples=25)
@given(
    st.lists(st.text(alphabet="abc", min_size=2, max_size=14), min_size=2, max_size=8),
    st.lists(st.text(alphabet="abc", min_size=4, max_size=30), min_size=4, max_size=12),
    st.integers(3, 8),
    st.lists(st.text(alphabet="abc", max_size=20), max_size=10),
)
def test_the_laws_hold_for_any_merges_of_few_letters(
    first: list[str], second: list[str], n_old: int, others: list[str]
) -> None:
    """Few letters bring every trap: runs of one, one string by two ways, merges of what is old."""
    old = Tokenizer(models.BPE())
    old.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=256 + n_old, initial_alphabet=alphabet, show_progress=False
    )
    old.train_from_iterator(first, trainer)
    old.decoder = byte_level_bpe(257).decoder
    n_before = old.get_vocab_size()
    with TemporaryDirectory() as scratch:
        base = save_tokenizer(old, Path(scratch) / "base")
        corpus = corpus_of_texts([*second, *second])
        held_out = corpus_of_texts(second)
        try:
            made = extend_vocabulary(base, corpus, add=6, held_out=held_out)
        except CorpusError:  # too little for six
            reject()
    new = made.tokenizer
    for text in (*first, *second, *others):
        assert len(ids(new, text)) <= len(ids(old, text))
        assert new.decode(ids(new, text)) == text
        if max(ids(new, text), default=0) < n_before:
            assert ids(new, text) == ids(old, text)
    for token in range(n_before, new.get_vocab_size()):
        assert ids(new, new.decode([token])) == [token]


def test_no_other_way_to_an_old_token_is_made(tmp_path: Path) -> None:
    """The base has abc by ab·c, but bc comes first, so it writes a·bc; that stays its spelling."""
    alphabet = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    vocabulary = alphabet | {"bc": 256, "ab": 257, "abc": 258}
    old = Tokenizer(models.BPE(vocabulary, [("b", "c"), ("a", "b"), ("ab", "c")]))
    old.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    old.decoder = byte_level_bpe(257).decoder
    corpus = corpus_of_texts(["abc", "abcx", "abcx"] * 9)
    base = save_tokenizer(old, tmp_path / "base")
    new = extend_vocabulary(base, corpus, add=1, held_out=corpus).tokenizer
    assert ids(new, "abc") == ids(old, "abc") == [alphabet["a"], 256]
    assert new.id_to_token(259) == "bcx"


@st.composite
def forests(draw: st.DrawFn) -> tuple[list[tuple[int, int]], list[int]]:
    """New tokens that are merged from three old ones and from each other, and their uses."""
    n = draw(st.integers(0, 14))
    pairs = [(draw(st.integers(0, 2 + i)), draw(st.integers(0, 2 + i))) for i in range(n)]
    return pairs, [draw(st.integers(0, 5)) for _ in range(n)]


@given(forests(), st.integers(0, 14))
def test_what_stays_is_merged_from_what_stays(
    forest: tuple[list[tuple[int, int]], list[int]], n: int
) -> None:
    pairs, uses = forest
    kept = kept_after_pruning(pairs, uses, first=3, n=n)
    assert kept == sorted(set(kept))
    assert len(kept) <= n
    for i in kept:
        assert all(part < 3 or part - 3 in kept for part in pairs[i])
    parts = {part - 3 for i in kept for part in pairs[i]}
    # What was used of a token that is dropped is used of its parts; so a leaf that stays is used.
    left = list(uses)
    for i in reversed(range(len(pairs))):
        if i not in kept:
            for part in pairs[i]:
                if part >= 3:
                    left[part - 3] += left[i]
    assert all(left[i] for i in kept if i not in parts)
    if all(uses):
        assert len(kept) == min(n, len(pairs))


def test_the_rarest_leaf_goes_first_and_gives_its_uses_to_its_parts() -> None:
    # 3 = ab, 4 = ab·c, 5 = bc; the text has 4 five times, 5 four times, and 3 only inside of 4.
    pairs, uses = [(0, 1), (3, 2), (1, 2)], [0, 5, 4]
    assert kept_after_pruning(pairs, uses, first=3, n=2) == [0, 1]
    # 4 goes, so 3 is a leaf, used where 4 was.
    assert kept_after_pruning(pairs, [0, 3, 4], first=3, n=2) == [0, 2]


def test_tokens_of_one_document_are_dropped_for_tokens_of_many() -> None:
    base = byte_level_bpe(280, ["<|endoftext|>"], LINES[:9])
    many = [f"zebra {i}" for i in range(30)]
    one = " ".join(["qwertzui"] * 200)
    corpus = corpus_of_texts([*many, one])
    with TemporaryDirectory() as scratch:
        folder = saved(base, Path(scratch) / "base")

        def names(spare: float) -> str:
            made = extend_vocabulary(
                folder, corpus, add=8, spare=spare, held_out=corpus_of_texts(many)
            )
            new = {t for t, i in made.tokenizer.get_vocab().items() if i >= 280}
            assert made.settings["spare"] == spare
            return " ".join(new)

        assert "Ġqwertzui" in names(0.0)
        assert "zebra" in names(2.0)
        assert "zebra" not in names(0.0)


def test_what_cannot_be_guaranteed_is_refused_by_name(tmp_path: Path) -> None:
    base = saved(BPES["behind"](), tmp_path / "base")
    with pytest.raises(SettingError, match=r"never_longer needs the base's own cut"):
        extend_vocabulary(base, CORPUS, add=5, across=True, never_longer=True)
    drops = saved(BPES["bounded"](), tmp_path / "drops")
    with pytest.raises(SettingError, match=r"drops 0\.1 of them at random"):
        extend_vocabulary(drops, CORPUS, add=5, never_longer=True)
    for size, add in ((None, None), (400, 5)):
        with pytest.raises(SettingError, match="one of size and add"):
            extend_vocabulary(base, CORPUS, size=size, add=add)
    with pytest.raises(SettingError, match="spare is -1"):
        extend_vocabulary(base, CORPUS, add=5, spare=-1)
    with pytest.raises(SettingError, match="number of new tokens is 0"):
        extend_vocabulary(base, CORPUS, add=0)


def test_a_longer_text_is_found() -> None:
    longer, shorter = byte_level_bpe(300), byte_level_bpe(330)
    assert refuse_longer(longer, shorter, ["the index"], "it") > 1
    with pytest.raises(TokenizerError, match="it extended takes"):
        refuse_longer(shorter, longer, ["the index is scanned"], "it")


def test_a_recipe_has_the_same_default() -> None:
    assert TrainSpec.model_fields["spare"].default == SPARE
