"""The loss on the bytes of digits."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.evaluation.conftest import UniformBytes
from tokensurgeon.evaluation import Entry, evaluate
from tokensurgeon.evaluation.numbers import number_loss
from tokensurgeon.evaluation.scoring import Scores
from tokensurgeon.text.chunks import Chunk


def test_each_token_pays_evenly_for_its_bytes():
    # "é 12" and "x3": the first token of the first chunk (é) is not scored, nor the third chunk.
    nll = (np.array([3.0, 5.0]), np.array([1.0]), np.array([9.0]))
    scores = Scores(
        nll=np.array([8.0, 1.0, 9.0]),
        n_bytes=np.array([3, 2, 1]),
        n_tokens=np.array([2, 1, 1]),
        document=np.arange(3),
        comparable=np.array([True, True, False]),
        lost=np.array([False, False, True]),
        token_ids=(np.array([1, 2]), np.array([3]), np.array([4])),
        token_nll=nll,
        token_ends=(np.array([4, 5]), np.array([2]), np.array([1])),
        start=np.array([2, 0, 0]),
    )
    loss = number_loss(scores, [Chunk("é 12", 0), Chunk("x3", 1), Chunk("7", 2)])
    assert loss is not None
    assert loss.digits == 3
    assert loss.bits_per_digit == pytest.approx((3.0 / 2 + 5.0 + 1.0 / 2) / math.log(2) / 3)
    assert number_loss(scores, [Chunk("é ab", 0), Chunk("x.", 1), Chunk("7", 2)]) is None


def test_a_model_that_knows_nothing_pays_eight_bits_for_each(source, other):
    even = [
        Entry(one.name, UniformBytes(one.vocabulary), one.vocabulary) for one in (source, other)
    ]
    for entry in evaluate(even, ["In 2048, 17 of them. " * 9]).entries:
        assert entry.numbers is not None
        assert entry.numbers.bits_per_digit == pytest.approx(8.0)
        assert entry.numbers.digits == 54
    assert evaluate(even[:1], ["No numbers here."]).entries[0].numbers is None
