"""Baselines and the subword family: what each row must be, said with plain arithmetic."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokensurgeon.errors import InitialiserError
from tokensurgeon.initialisers import build, mean_row
from tokensurgeon.initialisers.check import example_context
from tokensurgeon.initialisers.numerics.piece_weights import (
    exponential_weights,
    first_weights,
    last_weights,
    mean_weights,
    piece_weights,
)
from tokensurgeon.vocabulary.scripts import script_of


def rows_of(name: str, context, **settings):
    new = build(name, settings)(context)
    return new.input.values(context.input_rows), new.output.values(context.output_rows)


@given(st.integers(1, 40), st.floats(-50, 50))
def test_weights_of_pieces_are_a_mean(count: int, rate: float):
    for weigh in (mean_weights, first_weights, last_weights, exponential_weights(rate)):
        weights = weigh(count)
        assert weights.shape == (count,)
        assert (weights >= 0).all()
        assert weights.sum() == pytest.approx(1.0)


@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=6), max_size=8))
def test_a_piece_that_repeats_counts_each_time(pieces: list[list[int]]):
    dense = piece_weights(pieces, 10).toarray()
    for row, each in zip(dense, pieces, strict=True):
        assert row == pytest.approx(np.bincount(each, minlength=10) / len(each))


def test_subword_mean_is_the_mean_of_the_pieces():
    context = example_context()
    for found, rows in zip(
        rows_of("subword-mean", context), (context.input_rows, context.output_rows), strict=True
    ):
        for row, pieces in zip(found, context.pieces, strict=True):
            assert row == pytest.approx(rows[list(pieces)].mean(axis=0), abs=1e-5)


def test_ends_are_the_last_piece_in_and_the_first_piece_out():
    context = example_context()
    first, last = rows_of("subword-ends", context)
    assert np.array_equal(first, context.input_rows[[p[-1] for p in context.pieces]])
    assert np.array_equal(last, context.output_rows[[p[0] for p in context.pieces]])
    for name, end in (("subword-first", 0), ("subword-last", -1)):
        for found, rows in zip(
            rows_of(name, context), (context.input_rows, context.output_rows), strict=True
        ):
            assert np.array_equal(found, rows[[p[end] for p in context.pieces]])


def test_eeve_is_the_mean_in_and_the_first_piece_out():
    context = example_context()
    first, second = rows_of("eeve", context)
    assert np.array_equal(first, rows_of("subword-mean", context)[0])
    assert np.array_equal(second, rows_of("subword-first", context)[1])


def script(data: bytes) -> str | None:
    return script_of(data.decode("utf-8", "ignore"))


def test_bil_has_the_norm_of_the_script_in_and_pieces_by_their_bytes_out():
    context = example_context()
    source, alignment = context.source, context.alignment
    plain, _ = rows_of("subword-mean", context)
    first, second = rows_of("bil", context)
    by_script: dict[str | None, list[float]] = {}
    for i in set(alignment.source_ids[alignment.shared].tolist()):
        if context.anchors[i]:
            norm = float(np.linalg.norm(context.input_rows[i]))
            by_script.setdefault(script(source.token_bytes[i]), []).append(norm)
    assert len(by_script) > 1
    for k, pieces in enumerate(context.pieces):
        wanted = np.median(by_script[script(context.target.token_bytes[context.missing[k]])])
        assert np.linalg.norm(first[k]) == pytest.approx(wanted, rel=1e-5)
        assert first[k] @ plain[k] == pytest.approx(wanted * np.linalg.norm(plain[k]), rel=1e-5)
        lengths = [len(source.token_bytes[piece]) for piece in pieces]
        mean = np.average(context.output_rows[list(pieces)], axis=0, weights=lengths)
        assert second[k] == pytest.approx(mean, abs=1e-5)


def test_bil_takes_all_shared_rows_where_none_has_the_script():
    context = example_context()
    alignment = context.alignment
    ids = np.unique(alignment.source_ids[alignment.shared])
    ids = ids[context.anchors[ids]]
    latin = [i for i in ids if script(context.source.token_bytes[i])]
    anchors = context.anchors.copy()
    anchors[latin] = False
    first, _ = rows_of("bil", dataclasses.replace(context, anchors=anchors))
    assert 0 < len(latin) < len(ids)
    norms = np.linalg.norm(context.input_rows[ids[anchors[ids]]], axis=1)
    assert np.linalg.norm(first, axis=1) == pytest.approx(np.median(norms), rel=1e-5)


def test_exponential_weights_run_from_the_mean_to_the_ends():
    context = example_context()
    for rate, name in ((0.0, "subword-mean"), (50.0, "subword-ends")):
        found = rows_of("subword-exp", context, rate=rate)
        for mine, theirs in zip(found, rows_of(name, context), strict=True):
            assert np.allclose(mine, theirs, atol=1e-5)


def test_shrunk_lies_between_the_mean_of_the_pieces_and_the_mean_row():
    context = example_context()
    plain_in, plain_out = rows_of("subword-mean", context)
    mean = mean_row(context.output_rows, context.anchors)
    for shrink in (0.0, 0.25, 1.0):
        found_in, found_out = rows_of("subword-shrunk", context, shrink=shrink)
        assert np.allclose(found_in, plain_in)
        assert np.allclose(found_out, mean + (1 - shrink) * (plain_out - mean), atol=1e-5)


@pytest.mark.parametrize("name", ["subword-ends", "subword-exp", "eeve", "bil"])
def test_methods_whose_sides_differ_refuse_one_tied_matrix(name: str):
    with pytest.raises(InitialiserError, match="--untie"):
        build(name, {})(example_context(tied=True))


def test_a_tied_matrix_is_answered_alike_on_both_sides():
    context = example_context(tied=True)
    for name in ("mean", "random", "multivariate", "subword-mean", "subword-shrunk", "omp"):
        first, second = rows_of(name, context)
        assert np.array_equal(first, second), name


def test_pieces_whose_row_is_not_finite_are_left_out():
    context = example_context()
    rows = context.input_rows.copy()
    broken = context.pieces[0][0]
    rows[broken] = np.nan
    found = build("subword-mean", {})(dataclasses.replace(context, input_rows=rows))
    values = found.input.values(np.nan_to_num(rows))
    for row, pieces in zip(values, context.pieces, strict=True):
        kept = [p for p in pieces if p != broken]
        wanted = rows[kept].mean(axis=0) if kept else np.nanmean(rows[context.anchors], axis=0)
        assert row == pytest.approx(wanted, abs=1e-4)


def test_zero_is_zero_and_mean_is_the_mean_of_the_trained_rows():
    context = example_context()
    assert not np.any(rows_of("zero", context))
    for found, rows in zip(
        rows_of("mean", context), (context.input_rows, context.output_rows), strict=True
    ):
        assert np.allclose(found, rows[context.anchors].mean(axis=0), atol=1e-5)


def many(count: int, seed: int = 0):
    """Return a context that asks for one token's row `count` times."""
    context = example_context(seed=seed)
    return dataclasses.replace(
        context,
        missing=np.repeat(context.missing[:1], count),
        pieces=context.pieces[:1] * count,
    )


def test_random_has_the_mean_and_spread_of_each_dimension():
    context = many(20_000)
    rows = context.output_rows[context.anchors]
    _, found = rows_of("random", context)
    assert np.allclose(found.mean(axis=0), rows.mean(axis=0), atol=0.05)
    assert np.allclose(found.std(axis=0), rows.std(axis=0), rtol=0.05)


def test_multivariate_has_the_covariance_of_the_trained_rows():
    context = many(20_000)
    _, found = rows_of("multivariate", context, scale=1.0)
    wanted = np.cov(context.output_rows[context.anchors].T)
    assert np.allclose(np.cov(found.T), wanted, atol=0.06)
    _, narrow = rows_of("multivariate", context)
    assert narrow.std(axis=0).max() < 1e-3


@pytest.mark.parametrize("name", ["random", "multivariate"])
def test_draws_differ_by_side_and_by_seed(name: str):
    context = example_context()
    first, second = rows_of(name, context, scale=1.0)
    other, _ = rows_of(name, dataclasses.replace(context, seed=1), scale=1.0)
    assert not np.allclose(first - first.mean(), second - second.mean(), atol=0.1)
    assert not np.array_equal(first, other)


def test_multivariate_survives_fewer_trained_rows_than_dimensions():
    context = example_context()
    anchors = np.zeros_like(context.anchors)
    anchors[:5] = True
    rows_of("multivariate", dataclasses.replace(context, anchors=anchors), scale=1.0)
