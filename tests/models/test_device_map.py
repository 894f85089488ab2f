"""A model whose blocks lie on disk computes what it computes in memory."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tokensurgeon import transplant
from tokensurgeon.errors import MissingExtraError, UsageError
from tokensurgeon.models import device_map, load
from tokensurgeon.models.language_model import LanguageModel
from tokensurgeon.models.load import load_model

IDS = [3, 40, 5, 9, 288, 17, 100]


class Memory:
    """So many bytes that a part of each tiny model is left on disk, and the maps that follow."""

    bytes = 45_000

    def __init__(self) -> None:
        self.maps: list[Any] = []


@pytest.fixture
def on_disk(monkeypatch: pytest.MonkeyPatch) -> Memory:
    """Leave so little memory that blocks go to disk."""
    pytest.importorskip("accelerate")
    memory = Memory()
    options = device_map.device_map_options

    def tight() -> dict[str, Any]:
        return options({"cpu": memory.bytes})

    move = device_map.rows_to_main_device

    def seen(model: Any, *others: Any) -> None:
        memory.maps.append(model.hf_device_map)
        move(model, *others)

    monkeypatch.setattr(load, "device_map_options", tight)
    monkeypatch.setattr(load, "rows_to_main_device", seen)
    return memory


@pytest.mark.parametrize(("family", "tied"), [("llama", False), ("llama", True), ("gpt2", False),
                                              ("gpt_neox", False), ("phi", False)])  # fmt: skip
def test_a_model_on_several_devices_computes_the_same(
    model_of: Callable[..., Path], on_disk: Memory, family: str, tied: bool
) -> None:
    if tied:
        on_disk.bytes = 34_000  # it has one matrix fewer
    folder = model_of(family, tied)
    plain, far = load_model(folder), load_model(folder, device="auto")
    assert {"cpu", "disk"} <= set(on_disk.maps[0].values())
    assert any(p.is_meta for p in far.model.parameters())
    assert same(plain, far)
    rows = np.random.default_rng(0).normal(size=(310, plain.width)).astype(np.float32)
    bias = rows[:, 0].copy() if family == "phi" else None
    one, other = (model.patched(rows, rows[::-1].copy(), bias) for model in (plain, far))
    assert same(one, other)
    assert same(plain, far)  # a patched copy leaves the model as it was


def same(one: LanguageModel, other: LanguageModel) -> bool:
    """Whether two models give the same logits, losses and states."""
    return bool(
        np.allclose(one.logits(IDS), other.logits(IDS), atol=1e-5)
        and np.allclose(one.nll([IDS])[0], other.nll([IDS])[0], atol=1e-5)
        and np.allclose(one.states([IDS], 1), other.states([IDS], 1), atol=1e-5)
    )


def test_a_surgery_of_a_model_on_several_devices(
    model_of: Callable[..., Path], on_disk: Memory, tmp_path: Path, tiny_donor: Path
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("the cat sat on the mat\n" * 20)
    made = []
    for device in ("cpu", "auto"):
        result = transplant(
            source=model_of("llama", False),
            tokenizer=tiny_donor,
            output=tmp_path / device,
            device=device,
            init={"input": "hidden-residual", "output": "subword-mean"},
            text={"evaluation": [str(text)]},
            baselines=[],
        )
        assert result.evaluation is not None
        made.append([entry.bits_per_byte for entry in result.evaluation.entries])
    assert made[0] == pytest.approx(made[1], rel=1e-5)
    assert any("lies on several devices" in line for line in result.report.warnings)
    files = [(tmp_path / each / "model.safetensors").read_bytes() for each in ("cpu", "auto")]
    assert files[0] == files[1]
    with pytest.raises(UsageError, match="--device auto does not allow"):
        transplant(
            source=model_of("llama", False), tokenizer=tiny_donor, device="auto", heal=1.0,
            text={"calibration": [str(text)]},
        )  # fmt: skip


def test_without_accelerate_it_is_named(
    model_of: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="pip install accelerate"):
        load_model(model_of(), device="auto")


@pytest.mark.parametrize("device", ["nosuch", "cuda:99", "cpu:x", "meta"])
def test_a_device_that_is_not_here_is_refused_first(
    model_of: Callable[..., Path], tiny_donor: Path, tmp_path: Path, device: str
) -> None:
    with pytest.raises(UsageError, match="torch has no device"):
        load_model(model_of(), device=device)
    with pytest.raises(UsageError, match="torch has no device"):
        transplant(source="nowhere", tokenizer=tiny_donor, device=device, output=tmp_path / "x")
