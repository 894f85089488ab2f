"""Figures by group add up to those of the whole; new tokens at either end are what they cost."""

from __future__ import annotations

import math

import pytest

from tokensurgeon.alignment import align
from tokensurgeon.errors import EvaluationError
from tokensurgeon.evaluation import Entry, EvaluationProtocol, evaluate_checkpoints
from tokensurgeon.evaluation.measured_source import MeasuredSource
from tokensurgeon.evaluation.table import EntryResult
from tokensurgeon.text.corpus import corpus_of_texts


@pytest.fixture(scope="module")
def measured(source, other, texts):
    """The second of two models, grouped, with its scores and the first's."""
    alignment = align(source.vocabulary, other.vocabulary)
    entry = Entry("other", other.model, other.vocabulary, alignment)
    groups = ["odd" if i % 2 else "even" for i in range(len(texts))]
    protocol = EvaluationProtocol.fix(
        [(source.vocabulary, None), (other.vocabulary, None)], texts, groups=groups
    )
    first = MeasuredSource(protocol, source)
    return first.result(entry), protocol.score(entry), first


def test_groups_add_up_to_the_whole(measured):
    result, _, _ = measured
    parts = result.by_group
    assert list(parts) == ["even", "odd"]
    for key in ("bytes", "tokens"):
        assert sum(getattr(one, key) for one in parts.values()) == getattr(result, f"n_{key}")
    whole = sum(one.bits_per_byte * one.bytes for one in parts.values()) / result.n_bytes
    assert whole == pytest.approx(result.bits_per_byte)
    gap = sum(one.difference.estimate * one.bytes for one in parts.values()) / result.n_bytes
    assert gap == pytest.approx(result.difference.estimate)


def test_one_group_is_the_whole(source, other, texts):
    protocol = EvaluationProtocol.fix(
        [(source.vocabulary, None), (other.vocabulary, None)], texts, groups=["all"] * len(texts)
    )
    first = MeasuredSource(protocol, source)
    assert first.own_result().by_group["all"].difference is None
    result = first.result(other)
    assert result.by_group["all"].difference == result.difference
    assert result.by_group["all"].bits_per_byte == pytest.approx(result.bits_per_byte)
    assert result.by_group["all"].tokens_saved == result.tokens_saved


def test_new_tokens_are_what_they_cost(measured, source, other):
    result, own, _ = measured
    named = result.new_tokens
    worst, best = named.worst, named.best
    ids = [cost.id for cost in (*worst, *best)]
    assert len(ids) == len(set(ids)) > 1
    assert set(ids) <= set(align(source.vocabulary, other.vocabulary).missing.tolist())
    assert [c.excess for c in worst] == sorted((c.excess for c in worst), reverse=True)
    assert [c.excess for c in best] == sorted(c.excess for c in best)
    assert min(c.excess for c in worst) >= max(c.excess for c in best)
    assert named.lost <= named.scored
    for cost in (*worst, *best):
        losses = [
            nll
            for chunk, values in zip(own.token_ids, own.token_nll, strict=True)
            for token, nll in zip(chunk.tolist(), values.tolist(), strict=True)
            if token == cost.id
        ]
        assert cost.tokens == len(losses)
        assert cost.bits == pytest.approx(sum(losses) / len(losses) / math.log(2))
        total = (cost.bits - cost.source_bits) * cost.tokens / result.n_bytes
        assert cost.excess == pytest.approx(total, abs=1e-12)


def test_a_result_reads_back(measured):
    result = measured[0]
    assert EntryResult.from_dict(result.to_dict()) == result


def test_a_text_that_is_read_has_no_files(tiny_source):
    with pytest.raises(EvaluationError, match="no files to group by"):
        evaluate_checkpoints([tiny_source], corpus_of_texts(["a text"]), by="file")
