"""A faster copy of a model, where the processor gains by it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tokensurgeon.models import LanguageModel, faster, load_model

IDS = [3, 40, 5, 9, 17, 200, 11]
Gain = Callable[[float], None]


@pytest.fixture
def gain(monkeypatch: pytest.MonkeyPatch) -> Gain:
    """Set how many times faster products in bfloat16 are."""

    def set_to(times: float) -> None:
        def seconds(model: LanguageModel, dtype: torch.dtype) -> float:
            return 1.0 if dtype == torch.bfloat16 else times

        monkeypatch.setattr(faster, "_product_seconds", seconds)

    return set_to


def test_a_narrow_model_stays_itself(model_of: Callable[..., Path], gain: Gain) -> None:
    gain(10.0)
    model = load_model(model_of())
    assert faster.faster(model) is model


def test_a_wide_model_is_copied_where_that_is_faster(
    model_of: Callable[..., Path], gain: Gain
) -> None:
    model = load_model(model_of(width=faster.LEAST_WIDTH))
    before = {name: tensor.clone() for name, tensor in model.model.state_dict().items()}
    gain(1.1)
    assert faster.faster(model) is model
    gain(2.0)
    fast = faster.faster(model)
    assert (fast.dtype, model.dtype) == ("bfloat16", "float32")
    assert (fast.logit_scale, fast.softcap) == (model.logit_scale, model.softcap)
    (near,), (exact,) = (one.states([IDS], one.n_layers) for one in (fast, model))
    assert near.dtype == np.float32
    assert 0 < np.linalg.norm(near - exact) < 0.03 * np.linalg.norm(exact)
    for name, tensor in model.model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_a_model_that_is_not_in_float32_stays(model_of: Callable[..., Path], gain: Gain) -> None:
    gain(10.0)
    model = load_model(model_of(width=faster.LEAST_WIDTH), dtype="bfloat16")
    assert faster.faster(model) is model


def test_products_are_timed(model_of: Callable[..., Path]) -> None:
    model = load_model(model_of())
    assert 0 < faster._product_seconds(model, torch.float32) < 60
