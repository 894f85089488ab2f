"""The audit names the rows that were planted to be named, and no others."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from tokensurgeon.inspection.row_audit import (
    heavy_rows,
    long_rows,
    over_predicted_rows,
    percentiles,
    row_norms,
    weight_norms,
)
from tokensurgeon.models import head as output_head
from tokensurgeon.models.head import OutputHead
from tokensurgeon.report.surgery_report import HeavyFact, OverPredictedFact, RowAudit, SideReport
from tokensurgeon.report.words import rows_to_look_at

N_ROWS, WIDTH = 60, 16
NEW = np.arange(40, N_ROWS)
PLANTED = 47


@pytest.fixture
def planted():
    """Rows, states with a common direction, and a new row along it."""
    rng = np.random.default_rng(0)
    common = np.zeros(WIDTH)
    common[0] = 1.0
    states = (3 * common + rng.standard_normal((90, WIDTH))).astype(np.float32)
    rows = rng.standard_normal((N_ROWS, WIDTH)).astype(np.float32)
    rows[:, 0] = 0.0
    rows[PLANTED] = 4 * common
    counts = np.full(N_ROWS, 10)
    return rows, states, counts


def named(rows, states, counts, bias=None):
    """Return the ids of the rows that are named."""
    found = over_predicted_rows(OutputHead(rows, bias), states, NEW, counts)
    return [row.id for row in found]


def softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def test_a_row_that_every_state_prefers_is_named_with_its_probability(planted):
    rows, states, counts = planted
    (found, *rest) = over_predicted_rows(OutputHead(rows), states, NEW, counts)
    share = softmax(states.astype(np.float64) @ rows.T.astype(np.float64))
    assert found.id == PLANTED
    assert found.probability == pytest.approx(share[:, PLANTED].mean(), rel=1e-4)
    assert found.frequency == pytest.approx(1 / N_ROWS)
    assert found.first == pytest.approx((share.argmax(axis=1) == PLANTED).mean())
    assert found.reach > 0
    assert not rest


def test_an_over_predicted_row_of_the_source_is_not_a_new_one(planted):
    rows, states, counts = planted
    assert over_predicted_rows(OutputHead(rows), states, np.setdiff1d(NEW, [PLANTED]), counts) == []


def test_a_token_that_the_text_is_full_of_is_not_over_predicted(planted):
    rows, states, counts = planted
    counts[PLANTED] = 10 * counts.sum()
    assert PLANTED not in [
        row.id for row in over_predicted_rows(OutputHead(rows), states, NEW, counts)
    ]


def test_bias_scale_and_softcap_count(planted):
    rows, states, counts = planted
    bias = np.zeros(N_ROWS, np.float32)
    bias[PLANTED] = -50.0
    bias[55] = 50.0
    assert [row.id for row in over_predicted_rows(OutputHead(rows, bias), states, NEW, counts)] == [
        55
    ]
    capped = over_predicted_rows(OutputHead(rows, bias, softcap=0.01), states, NEW, None)
    assert capped == []
    scaled = over_predicted_rows(OutputHead(rows, bias, 0.5, 8.0), states, NEW, None)
    logits = states.astype(np.float64) @ rows.T.astype(np.float64) + bias
    share = softmax(8.0 * np.tanh(0.5 * logits / 8.0))[:, 55].mean()
    assert scaled[0].id == 55
    assert scaled[0].probability == pytest.approx(share, rel=1e-4)
    assert scaled[0].frequency is None


def test_blocks_of_states_give_the_same_answer(planted, monkeypatch):
    rows, states, counts = planted
    whole = over_predicted_rows(OutputHead(rows), states, NEW, counts)
    monkeypatch.setattr(output_head, "LOGITS_AT_ONCE", 1)
    small = over_predicted_rows(OutputHead(rows), states, NEW, counts)
    assert [row.id for row in small] == [row.id for row in whole]
    assert small[0].probability == pytest.approx(whole[0].probability, rel=1e-5)
    assert small[0].reach == pytest.approx(whole[0].reach, rel=1e-5)


def test_broken_states_and_none_are_survived(planted):
    rows, states, counts = planted
    broken = states.copy()
    broken[3] = np.nan
    assert [row.id for row in over_predicted_rows(OutputHead(rows), broken, NEW, counts)] == [
        PLANTED
    ]
    assert over_predicted_rows(OutputHead(rows), states[:0], NEW, counts) == []
    assert over_predicted_rows(OutputHead(rows), states, NEW[:0], counts) == []


def test_large_weights_are_found_and_rows_without_any_are_not():
    dense = np.zeros((6, 9))
    dense[1, :4] = 0.25
    dense[2, [0, 5]] = 0.5
    dense[3, [1, 2]] = [30.0, -40.0]
    dense[5, 0] = 1.0
    norms = weight_norms(sp.csr_array(dense), np.array([1, 2, 3, 4, 5]))
    assert norms[:3] == pytest.approx([0.5, np.sqrt(0.5), 50.0])
    assert np.isnan(norms[3])
    assert heavy_rows(norms).tolist() == [2]
    assert heavy_rows(np.array([np.nan])).size == 0


def test_rows_longer_than_any_trained_one_are_found() -> None:
    trained = row_norms(np.eye(4, dtype=np.float32))
    new = np.array([[1, 0, 0, 0], [0, 9, 0, 0], [0, 0, 12, 0], [np.nan, 0, 0, 0]], np.float32)
    norms = row_norms(new)
    assert long_rows(norms, trained).tolist() == [2, 1]
    assert long_rows(norms, trained[:0]).size == 0
    assert percentiles(trained)["max"] == 1
    assert percentiles(norms)["max"] == 12
    assert percentiles(norms[:0]) == {}


def test_the_lines_name_the_worst_with_their_figures():
    from tests.report.test_report import make_report

    side = SideReport(
        method="omp",
        copied=1,
        initialised=2,
        audit=RowAudit(
            weights={"p1": 0.1, "p50": 0.5, "p99": 1.0, "max": 50.0},
            over_predicted=(
                OverPredictedFact(id=4, spelling="boo", probability=0.25, first=0.5, reach=2.0),
            ),
            heavy=(HeavyFact(id=5, spelling="lead", norm=50.0),),
            n_over_predicted=1,
            n_heavy=1,
            states=90,
            clipped=3,
        ),
    )
    text = "\n".join(rows_to_look_at(make_report(output=side)))
    for part in ("output: ", "'boo'", "25 % of the probability", "90 states", "'lead'", "50"):
        assert part in text
    assert "3 new rows shortened" in text
    assert rows_to_look_at(make_report()) == []
