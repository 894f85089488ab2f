"""Fallback rows: the mean, and an output row that no hidden state prefers."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tokensurgeon.errors import InitialiserError
from tokensurgeon.initialisers import mean_input_row, mean_row, suppressed_output_row
from tokensurgeon.initialisers.check import ExampleStates, example_context


class Lifted(ExampleStates):
    """States with a constant part, as real models' final states have."""

    def __call__(self, ids, layer, position_ids=None):
        states = super().__call__(ids, layer, position_ids)
        states[:, 0] = 6.0
        return states


@pytest.fixture
def context():
    base = example_context()
    rows = base.output_rows * np.float32(0.5)
    return dataclasses.replace(base, output_rows=rows, states=Lifted(base.input_rows))


def margins(context, row, bias=0.0, softcap=None):
    """Return how far the row's logit is below the logsumexp, for states the fit has not seen."""
    rng = np.random.default_rng(99)
    ids = rng.choice(np.flatnonzero(context.anchors), (400, 6)).tolist()
    states = context.states(ids, 2).astype(np.float64)
    logits = states @ np.concatenate([context.output_rows, row[None]]).T
    if context.output_bias is not None:
        logits += np.append(context.output_bias, bias)
    if softcap:
        logits = softcap * np.tanh(logits / softcap)
    return np.logaddexp.reduce(logits[:, :-1], axis=1) - logits[:, -1]


def test_the_mean_is_of_the_anchors_only():
    rows = np.arange(12, dtype=np.float32).reshape(4, 3)
    anchors = np.array([True, False, True, False])
    assert np.array_equal(mean_row(rows, anchors), [3, 4, 5])


def test_without_anchors_the_mean_is_of_the_finite_rows():
    rows = np.array([[1, 1], [np.nan, 1], [3, 5]], dtype=np.float32)
    assert np.array_equal(mean_row(rows, np.zeros(3, dtype=bool)), [2, 3])
    with pytest.raises(InitialiserError, match="none of the 1 source rows is finite"):
        mean_row(rows[1:2], np.zeros(1, dtype=bool))


def test_the_mean_input_row_is_float32(context):
    assert mean_input_row(context).dtype == np.float32
    assert mean_input_row(context).shape == (context.width,)


def cost(context, row):
    """Return what as many such rows as there are tokens would take, on states not seen."""
    return np.logaddexp(0, np.log(context.n_source) - margins(context, row)).mean()


def test_suppressed_rows_take_next_to_nothing_on_states_they_have_not_seen(context):
    suppressed = suppressed_output_row(context)
    assert suppressed.bias == 0.0
    assert suppressed.cost < 0.01
    assert cost(context, suppressed.row) < 0.05
    mean = mean_row(context.output_rows, context.anchors)
    assert cost(context, suppressed.row) < 0.1 * cost(context, mean)
    assert cost(context, suppressed.row) < 0.1 * cost(context, np.zeros(context.width, np.float32))


def test_states_inside_a_text_are_heard_even_of_two_documents(context):
    class Deep(Lifted):
        """Inside a text the constant part points the other way."""

        def __call__(self, ids, layer, position_ids=None):
            states = super().__call__(ids, layer, position_ids)
            deep = np.array([len(sequence) > 4 for sequence in ids])
            states[:, 1] = np.where(deep, 6.0, 0.0)
            states[deep, 0] = -6.0
            return states

    text = "a cat sat on a mat, and the other did not. " * 20
    deep = dataclasses.replace(context, states=Deep(context.input_rows), texts=(text, text[::-1]))
    blind = suppressed_output_row(dataclasses.replace(deep, texts=()))
    assert cost(deep, suppressed_output_row(deep).row) < 0.2 * cost(deep, blind.row)


def test_the_norm_of_a_suppressed_row_is_bounded_whatever_it_costs(context):
    small = dataclasses.replace(context, output_rows=context.output_rows * np.float32(0.02))
    suppressed = suppressed_output_row(small)
    limit = 2 * np.quantile(np.linalg.norm(small.output_rows[small.anchors], axis=1), 0.99)
    assert suppressed.norm <= limit * 1.001
    assert suppressed.norm == pytest.approx(np.linalg.norm(suppressed.row), rel=1e-4)
    assert suppressed.cost > suppressed_output_row(context).cost


def test_where_the_output_has_a_bias_the_bias_is_low(context):
    bias = np.random.default_rng(0).standard_normal(context.n_source).astype(np.float32)
    biased = dataclasses.replace(context, output_bias=bias)
    suppressed = suppressed_output_row(biased)
    assert np.array_equal(suppressed.row, mean_row(context.output_rows, context.anchors))
    assert suppressed.margin >= 20 - 1e-6
    assert np.quantile(margins(biased, suppressed.row, suppressed.bias), 0.05) > 15
    blind = suppressed_output_row(dataclasses.replace(biased, states=None))
    assert blind.bias <= bias.min() - 20


def test_a_softcap_is_undone_as_far_as_it_goes(context):
    capped = dataclasses.replace(context, softcap=30.0)
    suppressed = suppressed_output_row(capped)
    assert np.isfinite(suppressed.row).all()
    assert np.median(margins(capped, suppressed.row, softcap=30.0)) > 15


def test_without_forward_passes_it_is_the_mean_row(context):
    suppressed = suppressed_output_row(dataclasses.replace(context, states=None))
    assert np.array_equal(suppressed.row, mean_row(context.output_rows, context.anchors))
    assert np.isnan(suppressed.margin)
    assert np.isnan(suppressed.cost)
    assert suppressed.n_probes == 0


def test_the_same_seed_gives_the_same_row(context):
    first, second = suppressed_output_row(context), suppressed_output_row(context)
    assert np.array_equal(first.row, second.row)


@pytest.mark.parametrize("with_bias", [False, True])
def test_a_scale_of_the_logits_changes_nothing_but_the_units_of_the_row(context, with_bias):
    bias = np.linspace(-1, 1, context.n_source, dtype=np.float32) if with_bias else None
    plain = dataclasses.replace(context, output_bias=bias)
    scaled = dataclasses.replace(
        context,
        output_rows=context.output_rows * 8,
        output_bias=None if bias is None else bias * 8,
        logit_scale=1 / 8,
    )
    one, other = suppressed_output_row(plain), suppressed_output_row(scaled)
    # The search stops a little earlier or later in other units.
    assert np.linalg.norm(other.row / 8 - one.row) < 0.05 * np.linalg.norm(one.row)
    assert other.bias == pytest.approx(one.bias * 8, rel=1e-4)
    assert other.margin == pytest.approx(one.margin, rel=0.02)
    assert other.cost == pytest.approx(one.cost, rel=0.1)
