"""A model that was trained on keeps its signs; one that was trained apart shares half of them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from tests.world import BIASED, FAMILIES
from tokensurgeon.checkpoint import Checkpoint
from tokensurgeon.checkpoint.likeness import LEAST_ALIKE, Likeness, Sketch, likeness

WEIGHTS = "model.safetensors"


def compared(one: Path, other: Path) -> Likeness:
    return likeness(Sketch.of(Checkpoint.open(one)), Checkpoint.open(other))


def trained_on(folder: Path, out: Path, rate: float, steps: int) -> Path:
    """Train every weight of a model on random ids."""
    import torch
    from transformers import AutoModelForCausalLM

    shutil.copytree(folder, out)
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(folder)
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.1)
    for _ in range(steps):
        ids = torch.randint(0, 290, (4, 24))
        model(input_ids=ids, labels=ids).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    model.save_pretrained(out)
    return out


@pytest.mark.parametrize("family", FAMILIES)
def test_models_that_were_made_apart_share_half(family: str, model_of: Callable[..., Path]) -> None:
    tied = family not in BIASED
    shares = compared(model_of(family, tied), model_of(family, tied, seed=3))
    assert not shares.related
    assert 0.4 < shares.rows < 0.6
    assert 0.4 < shares.body < 0.6
    assert compared(model_of(family, tied), model_of(family, tied)) == Likeness(1, 1)


@pytest.mark.parametrize(("rate", "steps"), [(1e-4, 20), (1e-3, 60)])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_model_that_was_trained_on_is_related(
    family: str, rate: float, steps: int, model_of: Callable[..., Path], tmp_path: Path
) -> None:
    source = model_of(family)
    shares = compared(source, trained_on(source, tmp_path / "tuned", rate, steps))
    assert shares.related
    assert min(shares.rows, shares.body) > (LEAST_ALIKE + 1) / 2


def test_rows_or_a_body_of_another_model_are_noticed_alone(
    model_of: Callable[..., Path], tmp_path: Path
) -> None:
    own, other = (load_file(model_of(seed=seed) / WEIGHTS) for seed in (7, 3))
    for name, is_taken in (("rows", "embed"), ("body", "layers")):
        folder = Path(shutil.copytree(model_of(), tmp_path / name))
        mixed = {key: other[key] if is_taken in key else own[key] for key in own}
        save_file(mixed, folder / WEIGHTS, metadata={"format": "pt"})
        shares = compared(model_of(), folder)
        assert not shares.related
        assert getattr(shares, name) < LEAST_ALIKE
        assert getattr(shares, "body" if name == "rows" else "rows") == 1


def test_names_with_and_without_the_prefix_of_a_class_are_the_same(
    model_of: Callable[..., Path], tmp_path: Path
) -> None:
    """Files of gpt2 on the hub say ``h.0``, those of its fine-tunes ``transformer.h.0``."""
    source = model_of("gpt2", True)
    folder = Path(shutil.copytree(source, tmp_path / "bare"))
    tensors = load_file(folder / WEIGHTS)
    bare = {key.removeprefix("transformer."): one for key, one in tensors.items()}
    assert bare.keys() != tensors.keys()
    save_file(bare, folder / WEIGHTS, metadata={"format": "pt"})
    for one, other in ((source, folder), (folder, source)):
        assert compared(one, other) == Likeness(1, 1)
    assert compared(folder, model_of("gpt2", True, seed=3)).body < LEAST_ALIKE


def test_another_dtype_makes_no_difference(model_of: Callable[..., Path]) -> None:
    shares = compared(model_of(), model_of(dtype="bfloat16"))
    assert min(shares.rows, shares.body) > 0.98
