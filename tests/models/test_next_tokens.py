"""Greedy continuations of many prompts at once are those of each prompt alone."""

from __future__ import annotations

import numpy as np
import pytest

from tests.world import FAMILIES
from tokensurgeon.errors import EvaluationError
from tokensurgeon.models import load_model
from tokensurgeon.models import next_tokens as module
from tokensurgeon.models.next_tokens import greedy, pads_left, ranks

PROMPTS = [[3, 4, 5, 6, 7], [9, 8], [2, 30, 31, 2, 7, 5, 44], [12]]


def never(ids: list[int]) -> bool:
    return False


@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_writes_what_each_prompt_writes_alone(model_of, family):
    model = load_model(model_of(family))
    assert pads_left(model)
    alone = [model.generate(one, 6, 0, temperature=0)[0] for one in PROMPTS]
    assert greedy(model, PROMPTS, 6, never) == alone
    assert [greedy(model, [one], 6, never)[0] for one in PROMPTS] == alone


def test_a_model_that_sees_padding_is_given_none(model_of, monkeypatch):
    model = load_model(model_of())
    expected = greedy(model, PROMPTS, 4, never)
    monkeypatch.setattr(module, "pads_left", lambda model: False)
    told: list[int] = []
    assert greedy(model, PROMPTS, 4, never, told.append) == expected
    assert told == [1, 2, 3, 4]


def test_a_prompt_ends_by_itself_or_where_the_model_has_no_position(model_of):
    model = load_model(model_of())
    written = greedy(model, PROMPTS, 8, lambda ids: len(ids) == 3)
    assert list(map(len, written)) == [3] * 4
    assert model.max_positions == 32
    assert len(greedy(model, [[1] * 30], 8, never)[0]) == 2
    assert greedy(model, [], 8, never) == []


def test_ranks_are_places_in_the_order_of_the_logits(model_of):
    model = load_model(model_of())
    own = ranks(model, PROMPTS)
    for ids, found in zip(PROMPTS, own, strict=True):
        logits = model.logits(ids)
        places = [np.argsort(-row).tolist() for row in logits[:-1]]
        expected = [own.index(i) for own, i in zip(places, ids[1:], strict=True)]
        assert found.tolist() == expected
    likeliest = int(model.logits([5])[0].argmax())
    assert ranks(model, [[5, likeliest]])[0].tolist() == [0]


@pytest.mark.parametrize(
    ("prompt", "said"), [([], "give a prefix"), ([10_000], "rows"), ([1] * 33, "positions")]
)
def test_a_prompt_that_cannot_be_read_is_named(model_of, prompt, said):
    with pytest.raises(EvaluationError, match=said):
        greedy(load_model(model_of()), [prompt], 2, never)
