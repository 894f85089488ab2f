"""What is written for PEFT and TRL is run, as a user runs it, on the model that ships."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import tokensurgeon
from tokensurgeon.evaluation import evaluate_checkpoint

pytestmark = pytest.mark.sweep

DATA = Path(str(resources.files("tokensurgeon") / "data"))
OTHER = Path(__file__).parents[2] / "LICENSE"
"""Text of another domain than that of the model and of the training."""
STEPS = 50
MOST_RISE = 0.02
"""Bits per byte that other text may lose in 100 steps; in fact it gains."""


@pytest.fixture(scope="module")
def patched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("trained") / "patched"
    tokensurgeon.transplant(
        source=DATA / "source",
        tokenizer=DATA / "donor",
        init={"input": "subword-mean", "output": "subword-mean"},
        output=output,
        hand_over=["peft", "trl"],
    )
    return output


@pytest.fixture(scope="module")
def trained(patched: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], Path]:
    """Return what a stage of a tool writes, each run once."""
    root = tmp_path_factory.mktemp("stages")

    def train(tool: str, stage: int) -> Path:
        pytest.importorskip(tool, reason=f"pip install tokensurgeon[{tool}]")
        output = root / f"{tool}-{stage}"
        if not output.exists():
            run(patched, tool, stage, patched if stage == 1 else train(tool, 1), output)
        return output

    return train


def run(
    patched: Path, tool: str, stage: int, model: Path, output: Path, steps: int = STEPS
) -> None:
    """Run a script in a process in which tokensurgeon cannot be found."""
    command = [
        sys.executable, "-P", "-W", "ignore", str(patched / f"continue/train_{tool}.py"),
        "--stage", str(stage), "--text", str(DATA / "text/calibration.jsonl"),
        "--model", str(model), "--output", str(output), "--steps", str(steps),
        "--batch", "4", "--at-once", "4",
    ]  # fmt: skip
    # `-P` leaves out the script's folder too, which holds common.py.
    environment = {**os.environ, "PYTHONPATH": str(patched / "continue"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def bits(folder: Path, text: Path) -> float:
    result = evaluate_checkpoint(str(folder), [str(text)], max_bytes=40_000)
    return float(result.entries[0].bits_per_byte)


def changed_rows(before: Path, after: Path) -> dict[str, set[int]]:
    """Return which rows of each tensor differ, of tensors where any does."""
    old, new = (load_file(folder / "model.safetensors") for folder in (before, after))
    assert {n: (v.shape, v.dtype) for n, v in old.items()} == {
        n: (v.shape, v.dtype) for n, v in new.items()
    }
    rows = {
        name: torch.nonzero((new[name] != value).reshape(len(value), -1).any(dim=1)).flatten()
        for name, value in old.items()
    }
    return {name: set(found.tolist()) for name, found in rows.items() if len(found)}


def new_ids(folder: Path) -> set[int]:
    data = json.loads((folder / "new_token_ids.json").read_text("utf-8"))
    return set(data["new_token_ids"])


@pytest.mark.parametrize("tool", ["peft", "trl"])
def test_the_first_stage_changes_the_new_rows_alone(
    tool: str, patched: Path, trained: Callable[[str, int], Path]
) -> None:
    changed = changed_rows(patched, trained(tool, 1))
    assert set(changed) == {"model.embed_tokens.weight", "lm_head.weight"}
    assert set().union(*changed.values()) <= new_ids(patched)


@pytest.mark.parametrize("tool", ["peft", "trl"])
def test_a_tied_model_stays_tied(
    tool: str, handed_over: Callable[[bool], Path], tmp_path: Path
) -> None:
    pytest.importorskip(tool, reason=f"pip install tokensurgeon[{tool}]")
    tied, first, second = handed_over(True), tmp_path / "stage-1", tmp_path / "stage-2"
    run(tied, tool, 1, tied, first, steps=3)
    changed = changed_rows(tied, first)
    assert set(changed) == {"model.embed_tokens.weight"}
    assert changed["model.embed_tokens.weight"] <= new_ids(tied)
    run(tied, tool, 2, first, second, steps=3)
    changed = changed_rows(first, second)  # no second matrix came
    assert len(changed) > 1
    assert changed["model.embed_tokens.weight"]


def test_peft_and_trl_train_the_same_rows(trained: Callable[[str, int], Path]) -> None:
    """Two routes: rows of an adapter, and a mask of the gradients."""
    one, other = (load_file(trained(tool, 1) / "model.safetensors") for tool in ("peft", "trl"))
    for name, value in one.items():
        assert torch.allclose(value.float(), other[name].float(), rtol=0, atol=2e-3), name


@pytest.mark.parametrize("tool", ["peft", "trl"])
def test_both_stages_gain_on_the_domain_and_other_text_does_not_suffer(
    tool: str, patched: Path, trained: Callable[[str, int], Path]
) -> None:
    folders = (patched, trained(tool, 1), trained(tool, 2))
    domain = [bits(folder, DATA / "text/evaluation.jsonl") for folder in folders]
    other = [bits(folder, OTHER) for folder in folders]
    print(tool, "domain", domain, "other", other)  # noqa: T201 - `pytest -rP` shows the figures
    assert domain[0] > domain[1] > domain[2]
    assert max(other[1:]) < other[0] + MOST_RISE
