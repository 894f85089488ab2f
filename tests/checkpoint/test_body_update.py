"""A change of the body is merged into the weights on disk, and into nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from tests.world import N_ROWS, body_update, plan_of
from tokensurgeon.checkpoint import BodyUpdate, Checkpoint, PatchPlan, recheck, write_checkpoint
from tokensurgeon.checkpoint.body_update import as_stored, changeable_weights
from tokensurgeon.errors import CheckpointError, UnsafeCheckpointError
from tokensurgeon.models import load_model
from tokensurgeon.models.reload import reload_check
from tokensurgeon.vocabulary import load_vocabulary

IDS = [3, 40, 5, 9, 288]
LAYER = "model.layers.1.self_attn.q_proj.weight"


def plan_with(folder: Path, body: BodyUpdate) -> PatchPlan:
    checkpoint = Checkpoint.open(folder)
    return plan_of(checkpoint, load_vocabulary(folder), np.arange(N_ROWS), body=body)


def tensors(folder: Path) -> dict[str, bytes]:
    return {
        name: tensor.float().numpy().tobytes()
        for path in sorted(folder.glob("*.safetensors"))
        for name, tensor in load_file(path).items()
    }


@pytest.mark.parametrize("options", [{}, {"shard": "10KB", "dtype": "bfloat16"}])
@pytest.mark.parametrize("family", ["llama", "gpt_neox", "phi"])
def test_a_merged_checkpoint_is_the_model_patched_in_memory(
    model_of: Callable[..., Path], tmp_path: Path, family: str, options: dict[str, str]
) -> None:
    folder = model_of(family, **options)
    source = load_model(folder)
    body = as_stored(Checkpoint.open(folder), body_update(folder))
    plan = plan_with(folder, body)
    expected = source.patched(plan.input_rows, plan.output_rows, plan.output_bias, body)
    assert np.abs(expected.logits(IDS) - source.logits(IDS)).max() > 0.1
    out = tmp_path / "out"
    check = reload_check(plan, expected)
    write_checkpoint(plan, out, check=check, allow_autotokenizer_mismatch=True)
    np.testing.assert_array_equal(load_model(out).logits(IDS), expected.logits(IDS))
    before, after = tensors(folder), tensors(out)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == set(plan.body_keys)
    said = json.loads((out / "manifest.json").read_text())["body"]
    assert (said["rank"], said["numbers"]) == (2, body.n_numbers)
    assert said["tensors"] == sorted(changed)
    sound = recheck(out)
    assert sound.problems == []
    assert sound.checked["body"].startswith(
        f"{len(changed)} weights changed by an update of rank 2"
    )


def test_without_a_change_the_manifest_names_no_body(
    model_of: Callable[..., Path], tmp_path: Path
) -> None:
    plan = replace(plan_with(model_of(), BodyUpdate({})), body=None)
    result = write_checkpoint(plan, tmp_path / "out")
    assert "body" not in result.manifest
    assert "body" not in recheck(tmp_path / "out").checked


def test_only_weights_that_the_file_holds_as_they_are_can_change(
    model_of: Callable[..., Path], tmp_path: Path
) -> None:
    # GPT-2 transposes its weights, and what is no linear layer's is not listed.
    assert changeable_weights(Checkpoint.open(model_of("gpt2"))) == {}
    llama = changeable_weights(Checkpoint.open(model_of("llama")))
    assert len(llama) == 2 * 7
    assert all("proj" in name for name in llama)
    # The file of a GPT-NeoX calls its output matrix otherwise; no vocabulary row is listed.
    neox = changeable_weights(Checkpoint.open(model_of("gpt_neox")))
    assert len(neox) == 2 * 4
    assert not any("embed" in name or "lm_head" in name for name in neox)


def test_what_the_loader_fuses_is_left_alone(tmp_path: Path, model_of: Callable[..., Path]) -> None:
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.MixtralConfig(
        vocab_size=N_ROWS, hidden_size=16, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, num_local_experts=2,
    )  # fmt: skip
    transformers.MixtralForCausalLM(config).save_pretrained(tmp_path / "moe")
    known = changeable_weights(Checkpoint.open(tmp_path / "moe"))
    assert known
    assert all(".self_attn." in name or "gate" in name for name in known)


def test_what_does_not_fit_is_named_and_nothing_is_written(
    model_of: Callable[..., Path], tmp_path: Path
) -> None:
    folder = model_of()
    one = np.ones((16, 1), np.float32), np.ones((1, 16), np.float32)
    for factors, words in (
        ({"model.nowhere.weight": one}, "does not store as a linear weight"),
        ({"model.embed_tokens.weight": one}, "does not store as a linear weight"),
        ({LAYER: (one[0][:4], one[1])}, "it is of another model"),
    ):
        with pytest.raises(CheckpointError, match=words):
            write_checkpoint(plan_with(folder, BodyUpdate(factors)), tmp_path / "out")
    broken = BodyUpdate({LAYER: (np.full((16, 1), np.inf, np.float32), one[1])})
    with pytest.raises(UnsafeCheckpointError, match="is not finite once the update"):
        write_checkpoint(plan_with(folder, broken), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_weight_that_was_spoilt_later_is_a_problem(
    model_of: Callable[..., Path], tmp_path: Path
) -> None:
    from safetensors.torch import save_file

    out = tmp_path / "out"
    write_checkpoint(plan_with(model_of(), body_update(model_of())), out)
    weights = load_file(out / "model.safetensors")
    weights[LAYER][0, 0] = float("nan")
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    assert any(f"{LAYER}, which was changed" in line for line in recheck(out).problems)


def test_updates_are_scaled_and_added_as_what_they_add() -> None:
    rng = np.random.default_rng(0)

    def drawn(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    one = BodyUpdate({"a": (drawn(4, 2), drawn(2, 3))})
    two = BodyUpdate({"a": (drawn(4, 1), drawn(1, 3)), "b": (drawn(2, 1), drawn(1, 2))})
    both, zero = one.scaled(0.25).plus(two), np.zeros((4, 3), np.float32)
    wanted = 0.25 * one.merged("a", zero) + two.merged("a", zero)
    np.testing.assert_allclose(both.merged("a", zero), wanted, atol=1e-6)
    assert (both.rank, both.names) == (3, ("a", "b"))
    again = BodyUpdate.from_arrays(both.to_arrays())
    np.testing.assert_array_equal(again.merged("a", zero), both.merged("a", zero))
    assert again.names == both.names
    assert again.n_numbers == both.n_numbers == 4 * 3 + 3 * 3 + 4
