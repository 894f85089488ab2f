"""Laws of the merge engine: the stock trainer's merges, counts that stay true, rules that hold."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from tokensurgeon.trainers.counting.sequences import Sequences
from tokensurgeon.trainers.learned import Merges
from tokensurgeon.trainers.learners.merging import Merger
from tokensurgeon.vocabulary.token_bytes import byte_order, to_alphabet


def _sequences(words: dict[str, int], groups: list[int] | None = None) -> Sequences:
    kinds = None if groups is None else np.array(groups, np.int32)
    return Sequences.of_bytes(list(words), np.array(list(words.values())), kinds)


def _stock(words: dict[str, int], size: int) -> list[tuple[str, str]]:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=2,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(
        (word for word, count in words.items() for _ in range(count)), trainer=trainer
    )
    return [tuple(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]


def _spelled(merges: Merges) -> list[tuple[str, str]]:
    return [
        (to_alphabet(merges.tokens[left]), to_alphabet(merges.tokens[right]))
        for left, right in merges.pairs
    ]


@settings(deadline=None, max_examples=60)
@given(
    st.dictionaries(
        st.text(alphabet="ab é", min_size=1, max_size=12), st.integers(1, 5), min_size=1, max_size=9
    ),
    st.integers(1, 40),
)
def test_merges_are_those_of_the_stock_trainer(words: dict[str, int], learned: int) -> None:
    merges = Merger(_sequences(words), Merges()).run(256 + learned)
    assert _spelled(merges) == _stock(words, 256 + learned)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.text(alphabet="abc", min_size=1, max_size=15), min_size=1, max_size=8, unique=True)
)
def test_pair_counts_stay_those_of_a_fresh_count(words: list[str]) -> None:
    merger = Merger(_sequences(dict.fromkeys(words, 1)), Merges(), min_count=1)
    while (found := merger.best()) is not None:
        ids, segment = merger.ids()
        pairs = Counter(
            (int(a), int(b))
            for a, b, s, t in zip(ids, ids[1:], segment, segment[1:], strict=False)
            if s == t
        )
        assert found[2] == max(pairs.values()) == pairs[found[:2]]
        before = merger.n_tokens[0]
        _, saved = merger.merge(*found)
        assert merger.n_tokens[0] == before - saved[0]
    ids, segment = merger.ids()
    assert len(ids) == len(words)
    assert [merger.merges.tokens[i].decode() for i in ids[np.argsort(segment)]] == words


def test_a_rule_forbids_a_token_and_what_is_made_of_it() -> None:
    words = {"abcd": 9, "bc": 20}
    merges = Merger(_sequences(words), Merges(), allow=lambda token: b"bc" not in token).run(300)
    made = set(merges.tokens) - {bytes([b]) for b in byte_order()}
    assert made == {b"ab", b"cd"}


def test_a_second_way_to_a_string_has_the_id_of_the_first() -> None:
    merges = Merges()
    known = {token: number for number, token in enumerate(merges.tokens)}
    a, b, c = (known[x] for x in (b"a", b"b", b"c"))
    ab, bc = merges.add(a, b, 1, known), merges.add(b, c, 1, known)
    assert merges.add(ab, c, 1, known) == merges.add(a, bc, 1, known)
    assert len(merges.tokens) == len(set(merges.tokens)) == 259


def test_groups_count_apart_and_merge_together() -> None:
    merger = Merger(_sequences({"ab": 5, "cd": 3, "abab": 2}, [0, 1, 1]), Merges())
    ab, cd = merger.best(0), merger.best(1)
    assert ab is not None
    assert cd is not None
    assert (ab[2], cd[2]) == (5, 4)
    _, saved = merger.merge(*ab)
    assert saved.tolist() == [5, 4]
    assert merger.n_tokens.tolist() == [5, 6 + 4]


@pytest.mark.parametrize("n_tokens", [256, 257, 258])
def test_a_cut_copy_holds_what_makes_its_tokens(n_tokens: int) -> None:
    merges = Merger(_sequences({"abc": 3, "ab": 2}), Merges()).run(300)
    cut = merges.copy(n_tokens)
    assert len(cut.tokens) == n_tokens
    assert all(made < n_tokens for made in cut.made)
