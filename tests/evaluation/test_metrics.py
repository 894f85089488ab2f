"""Intervals and breakdowns: they hold the estimate, and parts add up."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokensurgeon.alignment import align
from tokensurgeon.errors import EvaluationError
from tokensurgeon.evaluation import (
    Entry,
    Scores,
    bits_per_byte,
    bootstrap_ratio,
    evaluate,
    perplexity,
    token_kind,
)


def scores(nll, n_bytes, document=None, comparable=None):
    n = len(nll)
    empty = (np.zeros(0),) * n
    return Scores(
        nll=np.asarray(nll, dtype=np.float64),
        n_bytes=np.asarray(n_bytes, dtype=np.int64),
        n_tokens=np.ones(n, dtype=np.int64),
        document=np.arange(n) if document is None else np.asarray(document),
        comparable=np.ones(n, dtype=bool) if comparable is None else np.asarray(comparable),
        lost=np.zeros(n, dtype=bool),
        token_ids=(np.zeros(0, np.int64),) * n,
        token_nll=empty,
    )


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(0, 1000))
def test_the_interval_holds_the_estimate(n, seed):
    random = np.random.default_rng(seed)
    n_bytes = random.integers(1, 1000, n)
    a, b = (scores(random.exponential(n_bytes), n_bytes) for _ in range(2))
    interval = bootstrap_ratio(a, b, seed)
    expected = (a.nll.sum() - b.nll.sum()) / (math.log(2) * n_bytes.sum())
    assert interval.low <= interval.estimate <= interval.high
    assert interval.estimate == pytest.approx(expected)
    assert interval.unit == ("documents" if n >= 10 else "chunks")


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    random = np.random.default_rng(0)
    hits = 0
    for seed in range(200):
        n_bytes = random.integers(100, 1000, 60)
        noise = random.normal(0, 20, 60)
        a, b = scores(n_bytes * 0.7 + noise, n_bytes), scores(n_bytes * 0.6, n_bytes)
        interval = bootstrap_ratio(a, b, seed)
        hits += interval.low <= 0.1 / math.log(2) <= interval.high
    assert 0.88 <= hits / 200 <= 0.99


def test_chunks_of_one_document_are_drawn_together():
    n_bytes = np.full(40, 100)
    nll = np.repeat(np.arange(20.0), 2)
    zero = scores(np.zeros(40), n_bytes)
    together = bootstrap_ratio(scores(nll, n_bytes, np.repeat(np.arange(20), 2)), zero)
    apart = bootstrap_ratio(scores(nll, n_bytes), zero)
    assert together.high - together.low > 1.2 * (apart.high - apart.low)


def test_the_same_seed_gives_the_same_interval():
    a, b = scores([3.0, 1, 2] * 5, [9] * 15), scores([1.0, 2, 3] * 5, [9] * 15)
    assert bootstrap_ratio(a, b, 1) == bootstrap_ratio(a, b, 1)


def test_nothing_in_common_is_an_error():
    a = scores([1.0, 1], [4, 4], comparable=[True, False])
    b = scores([1.0, 1], [4, 4], comparable=[False, True])
    with pytest.raises(EvaluationError, match="no comparable chunk"):
        bootstrap_ratio(a, b)


def test_byte_perplexity_is_two_to_the_bits_per_byte():
    assert perplexity(7.0, 5) == pytest.approx(2 ** bits_per_byte(7.0, 5))
    assert math.isnan(bits_per_byte(0.0, 0))


def test_parts_add_up_to_the_whole(source, other, texts):
    alignment = align(source.vocabulary, other.vocabulary)
    entry = Entry("other", other.model, other.vocabulary, alignment)
    result = evaluate([source, entry], texts).entries[1]
    for parts in (result.by_kind, result.by_match):
        total = sum(part.bits_per_byte for part in parts.values())
        assert total == pytest.approx(result.bits_per_byte, rel=1e-9)
        assert sum(part.tokens for part in parts.values()) == result.n_tokens
        assert sum(part.bytes for part in parts.values()) == result.n_bytes
    assert set(result.by_match) == {"shared", "missing"}


def test_an_evaluation_is_json(source, other, texts):
    data = evaluate([source, other], texts).to_dict()
    assert json.loads(json.dumps(data, allow_nan=False)) == data


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (None, "control"),
        (b" ", "spaces"),
        (b"\t\t", "spaces"),
        (b"\n", "newlines"),
        (b"\r\n  ", "newlines"),
        (b" the", "words"),
        (b"don't", "words"),
        ("größer".encode(), "words"),
        (b" 2024", "digits"),
        (b"x1", "mixed"),
        (b".get(", "mixed"),
        (b"();\n", "punctuation"),
        (b" of the", "multi-word"),
        (b") {", "punctuation"),
        ("слово".encode(), "Cyrillic"),
        ("日本".encode(), "Han"),
        ("नमस्ते".encode(), "Devanagari"),
        ("😀".encode(), "punctuation"),
        ("é".encode()[:1], "UTF-8 piece"),
        (b"\xff", "UTF-8 piece"),
        (b"", "spaces"),
    ],
)
def test_the_token_kind_a_token_is_read_from_its_bytes(data, kind):
    assert token_kind(data) == kind
