"""Tokens that encoding never emits, and tokenizers that are loaded again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from tests.vocabulary.tiny_tokenizers import HARD_TEXTS, SENTENCES, TINY, made
from tokensurgeon.inspection import check_reload, find_unreachable
from tokensurgeon.vocabulary import Kind, Vocabulary, load_vocabulary, vocabulary_from_tokenizer


def test_no_token_that_a_text_shows_is_called_unreachable(vocabulary: Vocabulary) -> None:
    reach = find_unreachable(vocabulary)
    emitted = {i for text in [*SENTENCES, *HARD_TEXTS] for i in vocabulary.encode(text)}
    assert not emitted & {*reach.never, *reach.suspects}
    assert reach.tried == int((vocabulary.kinds == Kind.ORDINARY).sum())
    assert reach.reached == reach.tried - len(reach.never) - len(reach.suspects)
    assert not set(reach.never) & set(reach.suspects)


def test_a_stock_bpe_reaches_all_it_learned() -> None:
    reach = find_unreachable(made("byte_level"))
    assert (reach.never, reach.suspects) == ((), ())
    assert reach.exact
    assert reach.parts > 0


def edited(*merges: tuple[str, str], loose: str | None = None) -> Vocabulary:
    """Return the tiny byte-level BPE with further merges, and a token that no merge makes."""
    document = json.loads(TINY["byte_level"]().to_str())
    table = document["model"]["vocab"]
    for token in [left + right for left, right in merges] + ([loose] if loose else []):
        table[token] = max(table.values()) + 1
    document["model"]["merges"] += [list(merge) for merge in merges]
    return vocabulary_from_tokenizer(Tokenizer.from_str(json.dumps(document)))


def test_a_token_without_merges_is_never_made() -> None:
    vocabulary = edited(loose="qzqzqz")
    reach = find_unreachable(vocabulary)
    assert reach.never == (vocabulary.id_of("qzqzqz"),)
    assert reach.suspects == ()


def test_a_token_that_earlier_merges_take_apart_is_never_made() -> None:
    assert made("byte_level").id_of("he") is not None
    vocabulary = edited(("q", "h"), ("qh", "e"))
    assert find_unreachable(vocabulary).never == (vocabulary.id_of("qhe"),)
    assert find_unreachable(edited(("q", "he"))).never == ()


def test_a_token_that_the_pre_tokenizer_cuts_is_a_suspect() -> None:
    vocabulary = edited(("\u0120", "x"), ("q", "\u0120x"))
    reach = find_unreachable(vocabulary)
    assert reach.never == ()
    assert reach.suspects == (vocabulary.id_of("q\u0120x"),)


def test_a_permutation_of_the_ids_changes_nothing_but_ids() -> None:
    document = json.loads(TINY["wordpiece_lower"]().to_str())
    table = document["model"]["vocab"]
    base = vocabulary_from_tokenizer(Tokenizer.from_str(json.dumps(document)))
    added = {token["content"] for token in document["added_tokens"]}
    free = [token for token in table if token not in added]
    ids = [table[token] for token in free]
    table.update(zip(free, ids[::-1], strict=True))
    other = vocabulary_from_tokenizer(Tokenizer.from_str(json.dumps(document)))
    named = [
        {vocabulary.spellings[i] for i in find_unreachable(vocabulary).suspects}
        for vocabulary in (base, other)
    ]
    assert named[0] == named[1]


@pytest.mark.parametrize("name", sorted(TINY))
def test_both_ways_of_loading_are_told_without_failing(name: str, tmp_path: Path) -> None:
    TINY[name]().save(str(tmp_path / "tokenizer.json"))
    for reload in check_reload(load_vocabulary(tmp_path)):
        if reload.failed is None:
            assert reload.kept + len(reload.lost) == reload.texts
            assert reload.same_ids <= reload.texts
    if name == "byte_level":
        assert check_reload(load_vocabulary(tmp_path))[0].kept == reload.texts
    if name == "wordpiece_lower":
        assert check_reload(load_vocabulary(tmp_path))[0].lost


def test_a_tokenizer_in_memory_has_nothing_to_load() -> None:
    assert all("no tokenizer.json" in (each.failed or "") for each in check_reload(made("words")))
