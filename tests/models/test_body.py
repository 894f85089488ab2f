"""A model with a changed body has tensors of its own where it changed, and shares the others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.world import body_update
from tokensurgeon.checkpoint import BodyUpdate
from tokensurgeon.errors import CheckpointError
from tokensurgeon.models import load_model
from tokensurgeon.models.final_states import FinalStates

IDS = [[3, 40, 5, 9], [7, 80], [5]]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_changed_weights_are_new_tensors_and_the_source_stays(
    model_of: Callable[..., Path], dtype: str
) -> None:
    folder = model_of()
    model, body = load_model(folder, dtype=dtype), body_update(folder)
    before = {name: tensor.clone() for name, tensor in model.model.named_parameters()}
    logits = model.logits(IDS[0])
    rows = model.head.rows
    patched = model.patched(rows, rows, body=body)
    for name, tensor in model.model.named_parameters():
        assert (tensor == before[name]).all()
        if "embed_tokens" in name or "lm_head" in name:
            continue
        other = patched.model.get_parameter(name)
        assert (other is not tensor) == (name in body.names)
        if name in body.names:
            merged = body.merged(name, tensor.float().numpy())
            assert other.dtype == tensor.dtype
            np.testing.assert_allclose(other.float().numpy(), merged, rtol=2**-7, atol=1e-6)
    np.testing.assert_array_equal(model.logits(IDS[0]), logits)


def test_final_states_are_those_of_the_body_that_is_asked_for(
    model_of: Callable[..., Path],
) -> None:
    model = load_model(model_of())
    cache, one, two = FinalStates(model, n_kept=3), body_update(model_of()), body_update(model_of())
    rows = np.random.default_rng(0).normal(size=(model.n_rows, model.width)).astype(np.float32)
    plain, changed = cache.of(rows, IDS, "t"), cache.of(rows, IDS, "t", one)
    assert np.abs(plain - changed).max() > 1e-2
    expected = model.patched(rows, rows, body=one)
    np.testing.assert_array_equal(changed, expected.all_states(IDS, model.n_layers))
    assert cache.of(rows, IDS, "t", one) is changed
    assert cache.of(rows, IDS, "t") is plain
    assert cache.n_tokens == 2 * 7
    cache.of(rows, IDS, "t", two)  # equal numbers, another object
    assert cache.n_tokens == 3 * 7


def test_an_update_of_another_model_is_refused(model_of: Callable[..., Path]) -> None:
    model = load_model(model_of("gpt2"))
    rows = np.zeros((model.n_rows, model.width), np.float32)
    one = np.ones((4, 1), np.float32), np.ones((1, 4), np.float32)
    for name in ("model.layers.0.mlp.up_proj.weight", "transformer.h.0.attn.c_attn.weight"):
        with pytest.raises(CheckpointError, match="has no such linear weight"):
            model.patched(rows, rows, body=BodyUpdate({name: one}))
