"""The loss, split by how a token stands to the source's tokens on the same text."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.evaluation.conftest import UniformBytes
from tests.world import SENTENCES, make_model, make_tokenizer, permute
from tokensurgeon.alignment import align
from tokensurgeon.evaluation import Entry, EntryResult, evaluate, measured_source
from tokensurgeon.evaluation.scoring import Scores
from tokensurgeon.evaluation.span_relations import RELATIONS, relations, span_parts, states_before
from tokensurgeon.models import LanguageModel
from tokensurgeon.models.load import load_model
from tokensurgeon.vocabulary import Vocabulary, load_vocabulary

ONE, FIRST, INSIDE, LONGER = RELATIONS


def on_source(source: Entry, vocabulary: Vocabulary, rows_of: np.ndarray | None = None) -> Entry:
    """Return the source's body with rows of its own (by id), or with random ones."""
    model = source.model
    assert isinstance(model, LanguageModel)
    if rows_of is not None:
        inputs = model.model.get_input_embeddings().weight.numpy()[rows_of]
        outputs = model.head.rows[rows_of]
    else:
        random = np.random.default_rng(3)
        inputs, outputs = random.normal(size=(2, vocabulary.n_rows, model.width)).astype(np.float32)
    patched = model.patched(inputs, outputs)
    return Entry("patched", patched, vocabulary, align(source.vocabulary, vocabulary))


@pytest.fixture(scope="module")
def bytes_alone(tmp_path_factory: pytest.TempPathFactory) -> Vocabulary:
    """Tokens of one byte each."""
    return load_vocabulary(make_tokenizer(tmp_path_factory.mktemp("bytes"), 258))


def split(source: Entry, other: Entry, texts: list[str]) -> dict:
    return {part.relation: part for part in evaluate([source, other], texts)["patched"].by_span}


def test_on_its_own_vocabulary_every_token_is_one_source_token_and_nothing_is_lost(source, texts):
    own = on_source(source, source.vocabulary, np.arange(source.vocabulary.n_rows))
    table = evaluate([source, own], texts)
    assert table["source"].by_span is None
    (part,) = table["patched"].by_span
    assert (part.relation, part.share) == (ONE, 1.0)
    assert (part.tokens, part.bytes) == (table["source"].n_tokens, table["source"].n_bytes)
    assert part.source_bits_per_byte == pytest.approx(table["source"].bits_per_byte, rel=1e-12)
    assert part.bits_per_byte == pytest.approx(table["source"].bits_per_byte, rel=1e-12)
    assert part.on_source_states == pytest.approx(part.bits_per_byte, rel=1e-5)


def test_on_a_permutation_of_its_vocabulary_too(source, texts, tiny_source, tmp_path):
    target = load_vocabulary(permute(tiny_source, tmp_path / "permuted"))
    source_id = np.asarray(align(source.vocabulary, target).source_ids)
    assert (source_id >= 0).all()
    (part,) = split(source, on_source(source, target, source_id), texts).values()
    assert part.relation == ONE
    assert part.source_bits_per_byte == pytest.approx(part.bits_per_byte, rel=1e-5)
    assert part.on_source_states == pytest.approx(part.bits_per_byte, rel=1e-5)


@pytest.fixture(scope="module")
def short(texts: list[str]) -> list[str]:
    """Texts that are one chunk each for every model."""
    return [text[:60] for text in texts]


def test_a_target_of_bytes_writes_source_tokens_in_parts(source, bytes_alone, short):
    parts = split(source, on_source(source, bytes_alone), short)
    sizes = [
        len(source.vocabulary.token_bytes[token])
        for text in short
        for token in source.vocabulary.encode_many([text])[0].ids
    ]
    assert {name: part.tokens for name, part in parts.items()} == {
        ONE: sum(size == 1 for size in sizes),
        FIRST: sum(size > 1 for size in sizes),
        INSIDE: sum(size - 1 for size in sizes),
    }
    assert parts[INSIDE].source_bits_per_byte == 0.0
    assert parts[INSIDE].on_source_states is None
    assert parts[FIRST].source_bits_per_byte > 0.0


def test_a_target_of_superwords_has_longer_tokens(source, texts, tmp_path):
    folder = make_tokenizer(tmp_path, 600, texts=SENTENCES * 4, across_words=True)
    parts = split(source, on_source(source, load_vocabulary(folder)), texts)
    assert parts[LONGER].share > 0.5


def test_parts_add_up_to_either_models_loss(source, texts, tmp_path):
    pairs = ["scanned from l", "is ret", " row that", "nothing and the", "ndex", "umn"]
    folder = make_tokenizer(tmp_path, 300, texts=pairs * 4, across_words=True)
    table = evaluate([source, on_source(source, load_vocabulary(folder))], texts)
    for entry in (table["patched"], replace(table["patched"], by_span=None)):
        assert EntryResult.from_dict(json.loads(json.dumps(entry.to_dict()))) == entry
    parts = table["patched"].by_span
    assert tuple(part.relation for part in parts) == RELATIONS
    assert sum(p.bits_per_byte for p in parts) == pytest.approx(table["patched"].bits_per_byte)
    assert sum(p.source_bits_per_byte for p in parts) == pytest.approx(
        table["source"].bits_per_byte
    )
    assert sum(part.bytes for part in parts) == table["source"].n_bytes
    assert sum(part.tokens for part in parts) == table["patched"].n_tokens
    assert sum(part.share for part in parts) == pytest.approx(1.0)


def test_rows_are_scored_on_the_states_of_the_source_at_the_same_byte(source, bytes_alone, short):
    """Against the logits of single passes over what precedes each byte, one token at a time."""
    model, other = source.model, on_source(source, bytes_alone)
    assert isinstance(other.model, LanguageModel)
    expected, n_bytes = dict.fromkeys((ONE, FIRST), 0.0), 0
    for text in short[:2]:
        data, n_bytes = text.encode(), n_bytes + len(text.encode())
        encoding = source.vocabulary.encode_many([text])[0]
        ids, begin = [source.vocabulary.start_id], 0
        for token, end in zip(encoding.ids, encoding.ends, strict=True):
            logits = model.states([ids], model.n_layers)[0] @ other.model.head.rows.T
            goal = bytes_alone.encode_many([text])[0].ids[begin]
            assert bytes_alone.token_bytes[goal] == data[begin : begin + 1]
            expected[ONE if end - begin == 1 else FIRST] += (
                np.logaddexp.reduce(logits) - logits[goal]
            )
            ids, begin = [*ids, int(token)], int(end)
    parts = split(source, other, short[:2])
    for name, nats in expected.items():
        found = parts[name].on_source_states * np.log(2) * n_bytes
        assert found == pytest.approx(nats, rel=1e-4)


def test_states_that_are_too_many_to_keep_are_made_again(source, bytes_alone, texts, monkeypatch):
    other = on_source(source, bytes_alone)
    kept = evaluate([source, other], texts)["patched"]
    monkeypatch.setattr(measured_source, "KEPT_BYTES", 0)
    again = evaluate([source, other], texts)["patched"]
    assert replace(again, by_span=None) == replace(kept, by_span=None)
    for one, two in zip(kept.by_span, again.by_span, strict=True):
        assert one.on_source_states == (
            two.on_source_states and pytest.approx(two.on_source_states, rel=1e-5)
        )


def test_kept_states_cost_no_pass(source, bytes_alone, texts, monkeypatch):
    def refuse(*given):
        raise AssertionError("the source was run again")

    other = on_source(source, bytes_alone)
    monkeypatch.setattr(LanguageModel, "all_states", refuse)
    assert evaluate([source, other], texts)["patched"].by_span[0].on_source_states > 0


def test_there_is_no_figure_on_states_where_the_rows_do_not_fit(source, other, texts, monkeypatch):
    wider = replace(other, name="patched")
    uniform = Entry("patched", UniformBytes(other.vocabulary), other.vocabulary)
    for entry in (wider, uniform):
        parts = split(source, entry, texts)
        assert {part.on_source_states for part in parts.values()} == {None}
    assert sum(p.bits_per_byte for p in parts.values()) == pytest.approx(8.0)
    monkeypatch.setattr(LanguageModel, "plain_head", False)
    parts = split(source, on_source(source, source.vocabulary), texts)
    assert parts[ONE].on_source_states is None


def test_a_source_without_a_start_token_lends_its_states_after_what_is_left_out(
    source, texts, tmp_path
):
    folder = make_tokenizer(tmp_path / "a", 320, "<a>", "<b>")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "TokenizersBackend"}')
    make_model(folder, n_rows=320, seed=1, num_key_value_heads=2)
    bare = Entry("source", load_model(folder), load_vocabulary(folder))
    assert bare.vocabulary.start_id is None
    own = on_source(bare, bare.vocabulary, np.arange(320))
    table = evaluate([bare, own], texts)
    assert table.n_left_out_bytes > 0
    (part,) = table["patched"].by_span
    assert part.on_source_states == pytest.approx(table["source"].bits_per_byte, rel=1e-5)


cuts = st.lists(st.tuples(st.integers(0, 4), st.floats(0, 9)), min_size=1, max_size=10)


def scores(tokens: list[tuple[int, float]], start: int, size: int) -> Scores:
    """Return the scores of one chunk; a last token takes the bytes that are left."""
    widths, nll = np.array(tokens).T
    ends = np.append(np.minimum(start + np.cumsum(widths), start + size), start + size)
    nll = np.append(nll, 1.0)
    one = np.array([True])
    return Scores(
        nll=nll.sum(keepdims=True),
        n_bytes=np.array([size]),
        n_tokens=np.array([len(nll)]),
        document=np.array([0]),
        comparable=one,
        lost=~one,
        token_ids=(np.zeros(len(nll), np.int64),),
        token_nll=(nll,),
        token_ends=(ends.astype(np.int64),),
        start=np.array([start]),
    )


@given(cuts, cuts, st.integers(0, 3), st.integers(1, 20))
def test_however_two_tokenizers_cut_the_parts_add_up(mine, theirs, start, size):
    own, source = scores(mine, start, size), scores(theirs, start, size)
    parts = span_parts(own, source, own.token_nll)
    scale = np.log(2) * size
    assert sum(part.bits_per_byte for part in parts) * scale == pytest.approx(own.nll[0])
    assert sum(p.source_bits_per_byte for p in parts) * scale == pytest.approx(source.nll[0])
    assert sum(part.bytes for part in parts) == size
    assert sum(part.tokens for part in parts) == own.n_tokens[0]


@given(cuts, cuts, st.integers(0, 3), st.integers(1, 20))
def test_a_relation_is_what_its_words_say(mine, theirs, start, size):
    ends, source_ends = (scores(tokens, start, size).token_ends[0] for tokens in (mine, theirs))
    begin, source_begins = start, {start, *source_ends.tolist()}
    for end, relation in zip(ends.tolist(), relations(source_ends, start, ends), strict=True):
        if end > begin:
            passes = any(begin < border < end for border in source_begins)
            expected = (
                INSIDE
                if begin not in source_begins
                else LONGER
                if passes
                else ONE
                if end in source_begins
                else FIRST
            )
            assert RELATIONS[relation] == expected
        begin = end


def test_a_token_without_bytes_goes_with_the_next_and_has_the_state_of_its_like():
    ends = np.array([0, 3, 3, 5])
    assert [RELATIONS[i] for i in relations(np.array([4, 5]), 0, ends)] == [
        FIRST, FIRST, INSIDE, INSIDE,
    ]  # fmt: skip
    begins = np.array([0, 0, 3])
    assert states_before(begins, begins).tolist() == [0, 1, 2]
    assert states_before(np.array([0, 3]), begins).tolist() == [-1, 0, 1]
    assert states_before(begins, np.array([0, 3])).tolist() == [1, 2]
