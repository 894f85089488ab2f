"""Laws of the loss: exact where it is known, and the same whatever stands beside."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from tests.evaluation.conftest import UniformBytes
from tokensurgeon.errors import EvaluationError
from tokensurgeon.evaluation import (
    Entry,
    evaluate,
    left_out_bytes,
    score,
    scoring,
)
from tokensurgeon.evaluation.measured_source import MeasuredSource
from tokensurgeon.text.chunks import chunk_documents
from tokensurgeon.text.encoding import encode_chunks, prefix_of
from tokensurgeon.vocabulary import vocabulary_from_tokenizer


def lossy_vocabulary(texts):
    """A word-level tokenizer that lower-cases and knows the words of the first text only."""
    words = sorted({w for w, _ in pre_tokenizers.Whitespace().pre_tokenize_str(texts[0].lower())})
    vocabulary = {"<s>": 0, "<unk>": 1} | {word: i + 2 for i, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return vocabulary_from_tokenizer(tokenizer, {"bos_token": "<s>", "unk_token": "<unk>"})


def without_roles(entry):
    """The entry with the same tokens and model, and no BOS or EOS."""
    state = entry.vocabulary.tokenizer.to_str()
    for role in ("bos", "eos"):
        state = state.replace(f"<|{role}|>", f"<|not_{role}|>")
    vocabulary = vocabulary_from_tokenizer(Tokenizer.from_str(state), {})
    assert prefix_of(vocabulary) == ()
    return Entry(f"{entry.name} without BOS", entry.model, vocabulary)


def test_a_uniform_model_costs_log2_of_its_rows_per_token(source, texts):
    width = source.model.width
    rows = np.zeros((source.vocabulary.n_rows, width), dtype=np.float32)
    uniform = Entry("uniform", source.model.patched(rows, rows), source.vocabulary)
    result = evaluate([uniform], texts).entries[0]
    expected = math.log2(source.vocabulary.n_rows) * result.n_tokens / result.n_bytes
    assert result.bits_per_byte == pytest.approx(expected, rel=1e-6)
    assert result.perplexity == pytest.approx(source.vocabulary.n_rows, rel=1e-5)


def test_a_first_token_without_bytes_is_scored(source):
    """A lone word marker stands for no byte; a sampler draws it all the same."""
    table = [("<s>", 0.0), ("<unk>", -9.0), ("▁", -1.0), ("a", -1.0), ("b", -1.0), ("▁b", -0.5)]
    tokenizer = Tokenizer(models.Unigram(table, unk_id=1))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    vocabulary = vocabulary_from_tokenizer(tokenizer, {"bos_token": "<s>", "unk_token": "<unk>"})
    chunks = chunk_documents(["ab ba", "ba ab"])
    encoded = encode_chunks(vocabulary, chunks)
    assert [ends[0] for ends in encoded.ends] == [0, 1]  # "▁" and "▁b"
    rows = source.model.patched(*np.ones((2, len(table), source.model.width), np.float32))
    scores = score(rows, vocabulary, chunks)
    n_tokens = [len(ids) for ids in encoded.ids]
    assert scores.n_tokens.tolist() == n_tokens
    assert scores.nll == pytest.approx(math.log(len(table)) * np.array(n_tokens), rel=1e-5)
    # Where bytes are left out for all, it is before them.
    later = score(rows, vocabulary, chunks, skip=np.array([1, 1]))
    assert later.n_tokens.tolist() == [n_tokens[0] - 2, n_tokens[1] - 1]


def test_a_model_under_two_names_is_measured_once(source, other, texts, monkeypatch):
    measured, result = [], MeasuredSource.result

    def counted(self, entry):
        measured.append(entry.name)
        return result(self, entry)

    monkeypatch.setattr(MeasuredSource, "result", counted)
    again = dataclasses.replace(other, name="again")
    _, first, second, third = evaluate([source, other, again, without_roles(other)], texts).entries
    assert measured == ["other", "other without BOS"]
    assert dataclasses.replace(second, name="other") == first
    assert third.bits_per_byte != first.bits_per_byte


def test_one_uniform_byte_model_costs_eight_bits_under_every_tokenizer(source, other, texts):
    entries = [Entry(e.name, UniformBytes(e.vocabulary), e.vocabulary) for e in (source, other)]
    first, second = evaluate(entries, texts).entries
    assert first.n_tokens != second.n_tokens
    assert first.bits_per_byte == pytest.approx(8.0, abs=1e-12)
    assert second.bits_per_byte == pytest.approx(8.0, abs=1e-12)
    assert second.difference.estimate == pytest.approx(0.0, abs=1e-12)


def test_a_figure_does_not_depend_on_what_stands_beside(source, other, texts):
    alone = evaluate([source], texts)["source"]
    beside = evaluate([other, source], texts)["source"]
    assert beside.bits_per_byte == alone.bits_per_byte
    assert beside.by_kind == alone.by_kind


def test_the_same_model_twice_differs_by_exactly_nothing(source, texts):
    again = Entry("again", source.model, source.vocabulary)
    result = evaluate([source, again], texts).entries[1]
    assert (result.difference.low, result.difference.estimate, result.difference.high) == (0, 0, 0)
    assert result.perplexity_ratio == 1.0


def test_batches_do_not_change_losses(source, texts, monkeypatch):
    chunks = chunk_documents(texts, max_bytes_per_chunk=60)
    together = score(source.model, source.vocabulary, chunks)
    monkeypatch.setattr(scoring, "TOKENS_PER_CALL", 1)
    alone = score(source.model, source.vocabulary, chunks)
    np.testing.assert_allclose(together.nll, alone.nll, atol=1e-6)


def test_chunk_order_does_not_change_losses(source, texts):
    chunks = chunk_documents(texts, max_bytes_per_chunk=60)
    order = np.random.default_rng(0).permutation(len(chunks))
    there = score(source.model, source.vocabulary, chunks).nll
    back = score(source.model, source.vocabulary, [chunks[i] for i in order]).nll
    np.testing.assert_allclose(there[order], back, atol=1e-6)


def test_a_chunk_is_scored_whole_after_bos(source, texts):
    chunks = chunk_documents(texts[:1], max_bytes_per_chunk=100)
    ids = source.vocabulary.encode(chunks[0].text)
    by_hand = source.model.nll([[source.vocabulary.bos_id, *ids]])[0]
    scores = score(source.model, source.vocabulary, chunks[:1])
    assert len(by_hand) == len(ids) == scores.n_tokens[0]
    assert scores.nll[0] == pytest.approx(by_hand.sum(), rel=1e-6)
    assert scores.n_bytes[0] == chunks[0].n_bytes


def test_without_bos_and_eos_the_first_token_is_left_out_for_all(source, other, texts):
    bare = without_roles(other)
    result = evaluate([source, bare], texts, max_bytes=300)
    first, second = result.entries
    assert first.n_bytes == second.n_bytes == result.n_bytes - result.n_left_out_bytes
    assert result.n_left_out_bytes >= result.n_chunks
    chunks = chunk_documents(texts)
    table = [encode_chunks(e.vocabulary, chunks) for e in (source, bare)]
    skip = left_out_bytes(table, chunks)
    for encoded in table:
        for ends, left in zip(encoded.ends, skip, strict=True):
            assert left in ends
            assert left >= ends[0]


def test_a_chunk_that_a_tokenizer_loses_is_counted_and_left_out(source, texts):
    vocabulary = lossy_vocabulary(texts)
    lossy = Entry("lossy", UniformBytes(vocabulary), vocabulary)
    plain = "the index"
    result = evaluate([source, lossy], [*texts, plain], max_bytes=None)
    entry = result["lossy"]
    assert result["source"].comparable
    assert not entry.comparable
    assert entry.n_lost + entry.n_chunks == result.n_chunks
    assert entry.n_lost >= len(texts)


def test_a_source_that_loses_everything_is_an_error(source, texts):
    vocabulary = lossy_vocabulary(texts)
    with pytest.raises(EvaluationError, match="loses text on all 1 chunks"):
        evaluate([Entry("lossy", UniformBytes(vocabulary), vocabulary)], ["ZZ Top  QQ"])


def test_a_chunk_with_too_many_tokens_is_left_out_for_all(source, other, texts):
    long = "%$#@!~" * 40
    result = evaluate([source, other], [*texts, long], chunk_bytes=240)
    assert result.n_too_long >= 1
    assert len({entry.n_bytes for entry in result.entries}) == 1


def test_losses_that_are_not_finite_name_the_model_and_the_token(source, texts):
    rows = np.zeros((source.vocabulary.n_rows, source.model.width), dtype=np.float32)
    output = rows.copy()
    output[:] = np.nan
    broken = Entry("broken", source.model.patched(rows, output), source.vocabulary)
    with pytest.raises(EvaluationError, match="broken gives a loss that is not finite"):
        evaluate([broken], texts)


def test_names_are_distinct(source, texts):
    with pytest.raises(EvaluationError, match="two entries are named 'source'"):
        evaluate([source, source], texts)
    with pytest.raises(EvaluationError, match="no model"):
        evaluate([], texts)
