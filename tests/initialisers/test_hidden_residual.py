"""The hidden residual: what it adds, what it leaves alone, and where it refuses."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tokensurgeon.errors import InitialiserError, SettingError
from tokensurgeon.initialisers import build
from tokensurgeon.initialisers.check import ExampleStates, example_context
from tokensurgeon.initialisers.methods.hidden_residual import residuals, state_gain


class Recorded(ExampleStates):
    """Remembers what it was asked."""

    def __init__(self, embeddings) -> None:
        super().__init__(embeddings)
        self.asked: list[tuple[tuple[int, ...], tuple[int, ...] | None]] = []

    def __call__(self, ids, layer, position_ids=None):
        for i, sequence in enumerate(ids):
            places = None if position_ids is None else tuple(position_ids[i])
            self.asked.append((tuple(sequence), places))
        return super().__call__(ids, layer, position_ids)


@pytest.fixture
def context():
    base = example_context()
    return dataclasses.replace(base, states=Recorded(base.input_rows * np.float32(2)))


def rows_of(context, **settings):
    new = build("hidden-residual", settings)(context)
    assert new.output is None
    return new.input.values(context.input_rows)


def test_alpha_zero_is_the_last_piece(context):
    last = build("subword-last", {})(context).input.values(context.input_rows)
    norms = np.linalg.norm(context.input_rows[context.anchors], axis=1)
    short = np.linalg.norm(last, axis=1) <= np.quantile(norms, 0.99)
    assert np.array_equal(rows_of(context, alpha=0.0)[short], last[short])


def test_the_residual_is_the_difference_of_two_states(context):
    added = residuals(context, context.pieces, 1, "")
    prefix = list(context.prefix)
    for row, pieces in zip(added, context.pieces, strict=True):
        word = context.states([prefix + list(pieces)], 1)
        places = [*range(len(prefix)), len(prefix) + len(pieces) - 1]
        lone = context.states([[*prefix, pieces[-1]]], 1, [places])
        assert row == pytest.approx((word - lone)[0], abs=1e-5)


def test_a_single_piece_has_no_residual(context):
    assert not residuals(context, [(7,), (9,)], 1, "").any()
    assert context.states.asked == []


def test_each_lone_piece_is_run_once_per_position(context):
    residuals(context, context.pieces * 2, 1, "")
    lone = [asked for asked in context.states.asked if asked[1] is not None]
    assert len(lone) == len(set(lone)) <= len(context.pieces)


def test_the_rows_scale_with_alpha_and_the_multiplier(context):
    added = residuals(context, context.pieces, 1, "")
    last = context.input_rows[[p[-1] for p in context.pieces]]
    for multiplier in (1.0, 2.0):
        scaled = dataclasses.replace(context, embedding_multiplier=multiplier)
        found = rows_of(scaled, alpha=0.01, layer=1)
        wanted = last + 0.01 / (state_gain(scaled, 1) * multiplier) * added
        limit = np.quantile(np.linalg.norm(context.input_rows[context.anchors], axis=1), 0.99)
        wanted *= np.minimum(1, limit / np.linalg.norm(wanted, axis=1))[:, None]
        assert found == pytest.approx(wanted, abs=1e-5)


def test_norms_stay_below_the_99th_percentile_of_trained_rows(context):
    limit = np.quantile(np.linalg.norm(context.input_rows[context.anchors], axis=1), 0.99)
    assert np.linalg.norm(rows_of(context, alpha=10.0), axis=1).max() <= limit * 1.0001


def test_words_longer_than_the_positions_keep_their_last_pieces(context):
    long = tuple(context.pieces[0]) * 100
    both = residuals(context, [long, long[-63:]], 1, "")
    assert np.array_equal(both[0], both[1])


def test_the_gain_is_how_much_longer_states_are_than_rows(context):
    ids = np.flatnonzero(context.anchors)
    alone = context.states([[*context.prefix, int(i)] for i in ids], 2)
    spread = np.linalg.norm(alone.std(axis=0)) / np.linalg.norm(
        2 * context.input_rows[ids].std(axis=0)
    )
    assert state_gain(context, 2) == pytest.approx(spread, rel=1e-3)


def test_the_rows_do_not_change_when_states_are_a_thousand_times_longer(context):
    class Scaled(ExampleStates):
        def __call__(self, ids, layer, position_ids=None):
            return 1000 * super().__call__(ids, layer, position_ids)

    long = dataclasses.replace(context, states=Scaled(context.input_rows * np.float32(2)))
    assert rows_of(long) == pytest.approx(rows_of(context), abs=1e-4)


def test_it_refuses_where_it_cannot_work(context):
    with pytest.raises(InitialiserError, match="subword-mean"):
        rows_of(dataclasses.replace(context, states=None))
    narrow = ExampleStates(context.input_rows[:, :8])
    with pytest.raises(InitialiserError, match="width 8 to rows of width 16"):
        rows_of(dataclasses.replace(context, states=narrow))
    with pytest.raises(SettingError, match="layer is 3; this model has 2 blocks"):
        rows_of(context, layer=3)
