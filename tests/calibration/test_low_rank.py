"""A low-rank update is trained beside weights that stay, and merges into what it acted as."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tokensurgeon.calibration.training.low_rank import LowRank
from tokensurgeon.checkpoint import Checkpoint
from tokensurgeon.checkpoint.body_update import changeable_weights
from tokensurgeon.errors import CalibrationError
from tokensurgeon.models import LanguageModel, load_model

IDS = [3, 40, 5, 9, 17, 200, 11, 40, 5, 9]


def loss_of(model: LanguageModel) -> torch.Tensor:
    batch = torch.tensor([IDS])
    logits = model.model(input_ids=batch, use_cache=False).logits[0, :-1]
    return torch.nn.functional.cross_entropy(logits.float(), batch[0, 1:])


def inputs(model: LanguageModel) -> np.ndarray:
    rows: np.ndarray = model.model.get_input_embeddings().weight.numpy()
    return rows


def trained(model: LanguageModel, n_steps: int = 20, seed: int = 0) -> tuple[LowRank, list[float]]:
    low_rank = LowRank(model, 2, first=1, last=1, seed=seed)
    losses = []
    for _ in range(n_steps):
        loss = loss_of(model)
        loss.backward()
        losses.append(loss.item())
        low_rank.step(0.02)
    return low_rank, losses


@pytest.mark.parametrize("family", ["llama", "gpt_neox", "phi"])
def test_training_lowers_the_loss_and_the_hooks_act_as_the_merged_weights(
    model_of: Callable[..., Path], family: str
) -> None:
    model = load_model(model_of(family))
    before = {name: tensor.clone() for name, tensor in model.model.named_parameters()}
    plain = model.logits(IDS)
    low_rank, losses = trained(model)
    assert losses[0] == pytest.approx(loss_of(load_model(model_of(family))).item(), abs=1e-5)
    assert losses[-1] < 0.9 * losses[0]
    hooked, update = model.logits(IDS), low_rank.update()
    low_rank.detach()
    np.testing.assert_array_equal(model.logits(IDS), plain)
    for name, tensor in model.model.named_parameters():
        assert (tensor == before[name]).all()
        assert tensor.grad is None
    merged = model.patched(inputs(model), model.head.rows, model.head.bias, update)
    np.testing.assert_allclose(merged.logits(IDS), hooked, atol=1e-4)
    assert np.abs(hooked - plain).max() > 0.1


def test_copies_of_a_hooked_model_act_as_it_does(model_of: Callable[..., Path]) -> None:
    model = load_model(model_of())
    rows = inputs(model), model.head.rows
    copy = model.patched(*rows)
    low_rank, _ = trained(copy)
    again = copy.patched(*rows)
    np.testing.assert_array_equal(again.logits(IDS), copy.logits(IDS))
    # The model that the copy was made of has no hook.
    assert np.abs(copy.logits(IDS) - model.logits(IDS)).max() > 0.1
    assert low_rank.update() is not low_rank.update()


def test_only_the_blocks_and_weights_that_are_named_take_part(
    model_of: Callable[..., Path],
) -> None:
    model = load_model(model_of())
    allowed = changeable_weights(Checkpoint.open(model_of()))
    both = LowRank(model, 2, first=1, last=1, allowed=allowed)
    assert set(both.names) == set(allowed)
    both.detach()
    last = LowRank(model, 2, first=0, last=1)
    assert all(".layers.1." in name for name in last.names)
    last.detach()
    some = [name for name in allowed if name.endswith("down_proj.weight")]
    few = LowRank(model, 2, first=1, last=0, allowed=some)
    assert few.names == ("model.layers.0.mlp.down_proj.weight",)
    few.detach()
    for options in ({"first": 0, "last": 0}, {"first": 1, "last": 1, "allowed": ()}):
        with pytest.raises(CalibrationError, match="leave out --heal-body"):
            LowRank(model, 2, **options)
    with pytest.raises(CalibrationError, match="leave out --heal-body"):
        LowRank(load_model(model_of("gpt2")), 2, first=1, last=1)
    with pytest.raises(CalibrationError, match="give 1 or more"):
        LowRank(model, 0, first=1, last=1)


def test_the_seed_decides_the_update(model_of: Callable[..., Path]) -> None:
    def factors(seed: int) -> dict[str, np.ndarray]:
        model = load_model(model_of())
        return trained(model, 3, seed=seed)[0].update().to_arrays()

    one, same, other = factors(0), factors(0), factors(1)
    assert all((one[key] == same[key]).all() for key in one)
    assert any((one[key] != other[key]).any() for key in one)


def test_a_bfloat16_model_is_trained_with_float32_factors(model_of: Callable[..., Path]) -> None:
    model = load_model(model_of(), dtype="bfloat16")
    low_rank, losses = trained(model)
    assert losses[-1] < 0.9 * losses[0]
    assert {factor.dtype for factor in low_rank.update().to_arrays().values()} == {
        np.dtype(np.float32)
    }
    assert model.model(input_ids=torch.tensor([IDS])).logits.dtype == torch.bfloat16
    low_rank.step(0.02)  # no gradients: nothing to do
