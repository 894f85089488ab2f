"""Checkpoints that are larger than memory: patched by their tensors alone, and nothing is run."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tokensurgeon
from tokensurgeon.checkpoint import Checkpoint
from tokensurgeon.errors import CheckpointError, InitialiserError, UsageError
from tokensurgeon.models import memory
from tokensurgeon.models.load import load_model

MEAN = {"input": "subword-mean", "output": "subword-mean"}


@pytest.fixture
def sharded(checkpoints, tmp_path: Path) -> Path:
    """Return a checkpoint in many shards."""
    import torch
    import transformers

    folder = tmp_path / "sharded"
    shutil.copytree(checkpoints("llama", False), folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="20KB")
    assert len(list(folder.glob("*.safetensors"))) > 3
    return folder


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave hardly any memory."""
    for module in ("models.memory", "surgery.requirements"):
        monkeypatch.setattr(f"tokensurgeon.{module}.available_memory", lambda: 1000)

    def never(*args: object, **more: object) -> None:
        raise AssertionError("the model was loaded")

    for module in ("models.load", "models.reload"):
        monkeypatch.setattr(f"tokensurgeon.{module}.load_checked", never)


def test_free_memory_is_told_and_a_small_model_fits(checkpoints) -> None:
    free = memory.available_memory()
    assert free is None or free > 0
    checkpoint = Checkpoint.open(checkpoints("llama", False))
    assert memory.fits(checkpoint, "float32")
    both = [memory.needed_memory(checkpoint, dtype) for dtype in ("float32", "bfloat16")]
    assert both[0] == pytest.approx(2 * both[1], rel=1e-3)


def test_what_is_larger_than_memory_gets_the_same_rows_without_being_run(
    sharded: Path, world: Path, tmp_path: Path, small: None
) -> None:
    result = tokensurgeon.transplant(
        source=sharded, tokenizer=world / "target", output=tmp_path / "out", init=MEAN
    )
    assert any("larger than memory" in line for line in result.report.warnings)
    auto = tokensurgeon.transplant(
        source=sharded, tokenizer=world / "target", output=tmp_path / "auto"
    )
    assert "not run" in (auto.report.choice_why or "")


def test_the_rows_are_those_of_a_surgery_in_memory(
    sharded: Path, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {"source": sharded, "tokenizer": world / "target", "init": MEAN}
    tokensurgeon.transplant(**asked, output=tmp_path / "in")
    monkeypatch.setattr("tokensurgeon.surgery.output.fits", lambda *args, **more: False)
    tokensurgeon.transplant(**asked, output=tmp_path / "out")
    for path in (tmp_path / "in").glob("*.safetensors"):
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()
    assert np.isfinite(load_model(tmp_path / "out").logits([1, 2, 3])).all()


def test_untouched_shards_are_the_same_file(sharded: Path, world: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    tokensurgeon.transplant(source=sharded, tokenizer=world / "target", output=out, init=MEAN)
    same = [
        path.stat().st_ino == (sharded / path.name).stat().st_ino
        for path in sorted(out.glob("*.safetensors"))
    ]
    assert any(same)
    assert not all(same)


def test_across_file_systems_shards_are_copied(
    sharded: Path, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("os.link", refuse)
    out = tmp_path / "out"
    tokensurgeon.transplant(source=sharded, tokenizer=world / "target", output=out, init=MEAN)
    assert all(path.stat().st_nlink == 1 for path in out.glob("*.safetensors"))


@pytest.mark.parametrize(
    ("more", "flag"),
    [
        ({"text": {"evaluation": ["text.txt"]}}, "--text"),
        ({"calibrate": ["prior"]}, "--calibrate"),
        ({"heal": 1.0}, "--heal"),
    ],
)
def test_what_must_run_the_source_is_refused_with_its_size(
    sharded: Path,
    world: Path,
    tmp_path: Path,
    small: None,
    more: dict,
    flag: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("some text")
    asked: dict[str, Any] = {
        "source": sharded,
        "tokenizer": world / "target",
        "output": tmp_path / "out",
    }
    with pytest.raises(UsageError, match=f"{flag} runs the source, which takes .* GiB"):
        tokensurgeon.transplant(**asked, init=MEAN, **more)
    assert not (tmp_path / "out").exists()
    residual = {"input": "hidden-residual", "output": "subword-mean"}
    with pytest.raises(InitialiserError, match="not at hand"):
        tokensurgeon.transplant(**asked, init=residual)


def test_headers_that_do_not_fit_the_plan_are_refused(
    sharded: Path, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tokensurgeon.surgery.output.fits", lambda *args, **more: False)
    monkeypatch.setattr("os.link", lambda source, target: target.write_bytes(b""))
    with pytest.raises(CheckpointError):
        tokensurgeon.transplant(
            source=sharded, tokenizer=world / "target", output=tmp_path / "out", init=MEAN
        )
    assert not (tmp_path / "out").exists()
