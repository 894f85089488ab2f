"""The gap, split by kind of token on the same bytes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.evaluation.conftest import UniformBytes
from tokensurgeon.alignment import align
from tokensurgeon.evaluation import (
    Entry,
    EntryResult,
    EvaluationProtocol,
    MeasuredSource,
    evaluate,
    loss_on_spans,
    token_kind,
)


@given(
    st.lists(st.tuples(st.integers(0, 5), st.floats(0, 9)), min_size=1, max_size=12),
    st.data(),
)
def test_no_loss_is_lost_between_two_cuts(tokens, data):
    """However the same bytes are cut, each cut's parts add up to the whole loss."""
    start = data.draw(st.integers(0, 7))
    ends = start + np.cumsum([width for width, _ in tokens])
    nll = np.array([loss for _, loss in tokens])
    size = int(ends[-1]) - start
    cuts = data.draw(st.lists(st.integers(0, size), max_size=6))
    spans = np.array([*sorted(cuts), size]) + start
    on_spans = loss_on_spans(nll, ends, start, spans)
    assert on_spans.sum() == pytest.approx(nll.sum() if size else 0.0, abs=1e-9)
    own = loss_on_spans(nll, ends, start, ends)
    if all(width for width, _ in tokens):
        np.testing.assert_allclose(own, nll, atol=1e-9)


def test_the_parts_add_up_to_the_gap(source, other, texts):
    other = Entry(
        "other", other.model, other.vocabulary, align(source.vocabulary, other.vocabulary)
    )
    entry = evaluate([source, other], texts)["other"]
    assert sum(part.excess for part in entry.excess) == pytest.approx(entry.difference.estimate)
    assert sum(part.bits_per_byte for part in entry.excess) == pytest.approx(entry.bits_per_byte)
    assert sum(part.bytes for part in entry.excess) == entry.n_bytes
    for match in ("shared", "missing"):
        theirs = [part.bits_per_byte for part in entry.excess if part.match == match]
        assert sum(theirs) == pytest.approx(entry.by_match[match].bits_per_byte)
    assert [part.excess for part in entry.excess] == sorted(
        (part.excess for part in entry.excess), reverse=True
    )
    for part in entry.excess:
        for text, tokens, excess in part.examples:
            assert token_kind(text.encode()) == part.kind or text.startswith("0x")
            assert 0 < tokens <= part.tokens
            assert excess > 0


def test_two_models_that_pay_the_same_for_each_byte_differ_nowhere(source, other, texts):
    entries = [Entry(e.name, UniformBytes(e.vocabulary), e.vocabulary) for e in (source, other)]
    for part in evaluate(entries, texts)["other"].excess:
        assert part.excess == pytest.approx(0.0, abs=1e-12)
        assert part.examples == () or max(e[2] for e in part.examples) < 1e-9


def test_results_read_back_from_plain_values(source, other, texts):
    for entry in evaluate([source, other], texts).entries:
        assert EntryResult.from_dict(entry.to_dict()) == entry


def test_a_protocol_scores_one_model_at_a_time_as_a_table_does(source, other, texts):
    together = evaluate([source, other], texts)
    limits = [(e.vocabulary, e.model.max_positions) for e in (source, other)]
    protocol = EvaluationProtocol.fix(limits, texts)
    first = MeasuredSource(protocol, source)
    assert first.own_result() == together["source"]
    assert first.result(other) == together["other"]
    assert protocol.sha256 == together.sha256
