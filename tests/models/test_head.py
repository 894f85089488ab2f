"""The output head gives the model's own logits and losses from its final states."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import log_softmax

from tests.world import CASES
from tokensurgeon.checkpoint import Checkpoint
from tokensurgeon.models import LanguageModel, OutputHead, head, load_model
from tokensurgeon.models.head_gradients import head_gradients

IDS = [[3, 40, 5, 9, 17], [7, 30], [1, 2, 3, 25], [5]]

SHAPED: dict[str, dict[str, Any]] = {
    "Gemma2Config": {"head_dim": 8, "final_logit_softcapping": 2.0},
    "GraniteConfig": {"logits_scaling": 4.0, "embedding_multiplier": 3.0},
    "CohereConfig": {"logit_scale": 0.25},
}
"""Families that scale their logits or cap them."""


def shaped(name: str, folder: Path) -> LanguageModel:
    """Save and load a tiny model of a family that shapes its logits."""
    import transformers

    config = getattr(transformers, name)(
        vocab_size=64, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, intermediate_size=16, max_position_embeddings=32,
        bos_token_id=0, eos_token_id=1, pad_token_id=None, **SHAPED[name],
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return load_model(folder)


def check_head(model: LanguageModel) -> None:
    """Hold the head against the model itself."""
    assert model.plain_head
    states = model.every_state(IDS, model.n_layers)
    for sequence, own, losses in zip(IDS, states, model.nll(IDS), strict=True):
        wanted = torch.from_numpy(model.logits(sequence))
        logits = model.head.logits(own).cpu()
        torch.testing.assert_close(logits, wanted, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(
            model.head.log_softmax(own).cpu(), wanted.log_softmax(1), rtol=1e-5, atol=1e-5
        )
        np.testing.assert_allclose(model.head.logsumexp(own), wanted.logsumexp(1), atol=1e-5)
        goals = np.array(sequence[1:], dtype=np.int64)
        np.testing.assert_allclose(model.head.nll(own[:-1], goals), losses, atol=1e-5)
        chosen = logits[torch.arange(len(goals)), torch.from_numpy(goals)]
        np.testing.assert_allclose(model.head.logits_of(own[:-1], goals), chosen, atol=1e-5)
        raw = own.astype(np.float64) @ model.head.rows.T.astype(np.float64)
        raw += 0 if model.head.bias is None else model.head.bias
        np.testing.assert_allclose(
            model.head.inverse(logits.double().numpy()), raw, rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize(("family", "tied"), CASES)
def test_the_head_is_that_of_the_model(
    model_of: Callable[..., Path], family: str, tied: bool
) -> None:
    check_head(load_model(model_of(family, tied)))


@pytest.mark.gpu
@pytest.mark.parametrize("family", ["llama", "phi"])
def test_the_head_is_that_of_the_model_on_cuda(model_of: Callable[..., Path], family: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    check_head(load_model(model_of(family), device="cuda"))


@pytest.mark.parametrize("name", SHAPED)
def test_scales_and_softcaps_are_in_the_head(tmp_path: Path, name: str) -> None:
    model = shaped(name, tmp_path)
    check_head(model)
    layout = Checkpoint.open(tmp_path).layout
    assert layout.embedding_multiplier == {"Gemma2Config": 4.0, "GraniteConfig": 3.0}.get(name, 1.0)
    assert (model.head.scale, model.head.softcap) == {
        "Gemma2Config": (1.0, 2.0),
        "GraniteConfig": (0.25, None),
        "CohereConfig": (0.25, None),
    }[name]


def test_a_logit_beyond_the_softcap_becomes_the_nearest_that_has_an_inverse() -> None:
    capped = OutputHead(np.eye(3, dtype=np.float32), softcap=2.0, scale=0.5)
    raw = capped.inverse(np.array([-5.0, 0.0, 1.0, 5.0]))
    assert raw[1] == 0
    assert raw[0] == -raw[3]
    assert 2 * np.tanh(0.5 * raw[3] / 2) == pytest.approx(2 * head.NEARLY)
    assert 2 * np.tanh(0.5 * raw[2] / 2) == pytest.approx(1.0)


def test_blocks_of_states_give_the_same_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    states, rows = (generator.normal(size=(n, 8)).astype(np.float32) for n in (20, 30))
    whole = OutputHead(rows, rows[:, 0].copy(), 2.0, 3.0)
    tokens = generator.integers(0, 30, 20)
    sums, losses = whole.logsumexp(states), whole.nll(states, tokens)
    for name in ("LOGITS_AT_ONCE", "LOSS_LOGITS"):
        monkeypatch.setattr(head, name, 1)
    assert len(list(whole.blocks(20))) == 20
    np.testing.assert_allclose(whole.logsumexp(states), sums, atol=1e-6)
    np.testing.assert_allclose(whole.nll(states, tokens), losses, atol=1e-6)


@pytest.mark.parametrize("softcap", [None, 3.0])
def test_logits_along_a_direction_are_those_of_moved_rows(softcap: float | None) -> None:
    generator = np.random.default_rng(0)
    states, rows, direction = (
        generator.normal(size=(n, 8)).astype(np.float32) for n in (20, 30, 30)
    )
    whole = OutputHead(rows, rows[:, 0].copy(), 2.0, softcap)
    lengths = (1.0, 0.25, 0.0)
    for length, found in zip(lengths, whole.logits_along(states, direction, lengths), strict=True):
        moved = whole.with_rows(rows + np.float32(length) * direction, whole.bias)
        torch.testing.assert_close(found, moved.logits(states), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("with_bias", [False, True])
def test_gradients_of_the_head_are_autograd_s(
    monkeypatch: pytest.MonkeyPatch, softcap: float | None, with_bias: bool
) -> None:
    torch.manual_seed(0)
    states, rows, bias = torch.randn(7, 5), torch.randn(11, 5), torch.randn(11)
    targets = torch.tensor([0, 3, 3, 10, 5, 1, 2])
    for tensor in (states, rows, bias):
        tensor.requires_grad_(True)
    scores = 1.5 * (states @ rows.T + (bias if with_bias else 0))
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    wanted = torch.nn.functional.cross_entropy(scores, targets, reduction="sum")
    wanted.backward()
    # Blocks of three states, so that the last is short.
    monkeypatch.setattr("tokensurgeon.models.head_gradients.LOSS_LOGITS", 3 * 11)
    found = head_gradients(
        states.detach(),
        rows.detach(),
        targets,
        bias=bias.detach() if with_bias else None,
        scale=1.5,
        softcap=softcap,
    )
    assert found.loss == pytest.approx(wanted.item(), rel=1e-5)
    torch.testing.assert_close(found.states, states.grad)
    torch.testing.assert_close(found.rows, rows.grad)
    if with_bias:
        torch.testing.assert_close(found.bias, bias.grad)
    else:
        assert found.bias is None


def test_log_odds_are_those_of_the_probabilities() -> None:
    rng = np.random.default_rng(0)
    rows, states = (rng.standard_normal((n, 8)).astype(np.float32) for n in (50, 20))
    ids = np.array([3, 7, 41])
    p = np.exp(log_softmax(states @ rows.T, axis=1))
    inside = p[:, ids].sum(1)
    found = OutputHead(rows).log_odds(states, ids)
    assert found == pytest.approx(np.log(inside / (1 - inside)), abs=1e-4)
