"""Laws of the trainings that make the patched model's states those of the source."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.calibration.conftest import TEXTS, pair_of
from tokensurgeon.calibration import CalibrationData, Matrices, find_stages
from tokensurgeon.calibration.stages.matched import AttentionInfluence, TokenDistillation
from tokensurgeon.calibration.stages.taught import NO_STEP
from tokensurgeon.calibration.training.matched_states import (
    Observe,
    attention_outputs,
    last_states,
    match_states,
)
from tokensurgeon.calibration.training.teaching import Taught
from tokensurgeon.errors import CalibrationError
from tokensurgeon.models import LanguageModel
from tokensurgeon.progress import Clock
from tokensurgeon.text.chunks import chunk_documents

OBSERVED = (last_states, attention_outputs)


def trained(
    data: CalibrationData, rows: Matrices, observe: Observe, texts: list[str] = TEXTS, seed: int = 0
) -> Taught:
    chunks = chunk_documents(texts, max_bytes_per_chunk=256)
    return match_states(
        data.model,
        data.context.source,
        data.context.target,
        chunks,
        rows,
        data.new,
        observe,
        clock=Clock(),
        max_tokens=10_000,
        seed=seed,
    )


def difference(data: CalibrationData, rows: Matrices, observe: Observe) -> float:
    """Return how far states are apart on text that nothing was trained on."""
    still = dataclasses.replace(data, new=data.new[:0])
    return float(np.mean(trained(still, rows, observe, TEXTS[30:]).losses))


@pytest.mark.parametrize("observe", OBSERVED)
def test_the_source_s_own_rows_stay(same: CalibrationData, own: Matrices, observe: Observe) -> None:
    done = trained(dataclasses.replace(same, new=same.shared), own, observe)
    assert done.n_steps > 1
    assert max(done.losses) < 1e-9
    assert np.allclose(done.matrices.input, own.input, atol=1e-6)


@pytest.mark.parametrize("observe", OBSERVED)
def test_states_come_nearer_and_only_new_input_rows_move(
    pair: tuple[CalibrationData, Matrices], observe: Observe
) -> None:
    data, rows = pair
    start = rows.input.copy()
    done, again = (trained(data, rows, observe, TEXTS[:30]) for _ in range(2))
    after = done.matrices
    assert difference(data, after, observe) < difference(data, rows, observe)
    assert after.output is rows.output
    moved = (after.input != rows.input).any(axis=1)
    assert moved.any()
    assert not moved[np.setdiff1d(np.arange(len(moved)), data.new)].any()
    assert np.array_equal(after.input, again.matrices.input)
    assert np.array_equal(rows.input, start)


def test_tied_rows_move_on_both_sides(pair: tuple[CalibrationData, Matrices]) -> None:
    data, rows = pair
    after = trained(data, Matrices(rows.input, rows.input), last_states, TEXTS[:8]).matrices
    assert after.tied
    assert (after.output != rows.input).any()


@pytest.mark.parametrize("stage", [TokenDistillation, AttentionInfluence])
def test_as_stages_they_train_within_their_seconds(
    tiny_source: Path, tiny_donor: Path, text_file: Path, stage: Any
) -> None:
    data, rows = pair_of(tiny_source, tiny_donor, text_file)
    (candidate,) = stage(seconds=30.0).propose(data, rows)
    assert candidate.settings["steps"] == data.gradient_steps > 0
    assert data.forward_tokens >= 2 * candidate.settings["tokens"]
    with pytest.raises(StopIteration) as why:
        next(stage(seconds=0.0).propose(data, rows))
    assert why.value.value == NO_STEP


def test_they_are_tried_where_they_are_named_alone() -> None:
    names = ["token-distillation", "attention-influence"]
    assert [stage.name for stage in find_stages(names, tied=True)] == names
    for large in (False, True):
        assert not {s.name for s in find_stages(None, False, large=large)} & set(names)


def test_attention_is_that_of_the_first_third_of_the_blocks() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel, GPTNeoXConfig, GPTNeoXForCausalLM

    ends: Any = {"vocab_size": 64, "bos_token_id": 0, "eos_token_id": 0}
    size: Any = {"hidden_size": 16, "num_hidden_layers": 6, "num_attention_heads": 2}
    neox = GPTNeoXForCausalLM(GPTNeoXConfig(**ends, **size, intermediate_size=32))
    gpt2 = GPT2LMHeadModel(GPT2Config(**ends, n_embd=16, n_layer=1, n_head=2))
    ids = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])
    for model, n_blocks in ((neox, 2), (gpt2, 1)):
        states = attention_outputs(LanguageModel(model), ids)
        assert [tuple(one.shape) for one in states] == [(2, 4, 16)] * n_blocks
    block = gpt2.transformer.h[0]
    rows = gpt2.transformer.wte(ids) + gpt2.transformer.wpe.weight[:4]
    assert torch.allclose(states[0], block.attn(block.ln_1(rows))[0], atol=1e-6)


def test_a_model_without_attention_is_said() -> None:
    from transformers import MambaConfig, MambaForCausalLM

    model = MambaForCausalLM(MambaConfig(vocab_size=64, hidden_size=16, num_hidden_layers=2))
    with pytest.raises(CalibrationError, match=r"no attention .*'token-distillation'"):
        attention_outputs(LanguageModel(model), torch.tensor([[1, 2, 3]]))
