"""Rows that two processes train are those of one."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.world import SENTENCES
from tokensurgeon.calibration.training.loop import train_rows
from tokensurgeon.evaluation.shared_work import SharedWork, followers, leading, shared_work
from tokensurgeon.models.load import load_model
from tokensurgeon.vocabulary import load_vocabulary

TEXTS = [f"{i}. {SENTENCES[i % 5]} {SENTENCES[(i + 2) % 5]}" for i in range(10)]
SETTINGS = {"minutes": 60.0, "max_tokens": 1200, "max_passes": None, "learning_rate": 0.1}
CASES = {"untied": (False, 256), "tied": (True, 256), "a chunk each step": (False, 16)}
"""Whether tied, and tokens of a step: of a single chunk, one of two processes has nothing."""
PROGRAM = """
import sys
import numpy as np, torch
torch.set_num_threads(1)
from tests.calibration.test_together import CASES, SETTINGS, trained
from tokensurgeon.calibration.training.together import follow
from tokensurgeon.evaluation.shared_work import leading, shared_work
from tokensurgeon.models.load import load_model

folder, output = sys.argv[1:]
if shared_work().rank:
    print(follow(load_model(folder), shared_work()))
else:
    with leading(shared_work()):
        np.savez(output, **trained(folder))
"""


def trained(folder: Path | str) -> dict[str, np.ndarray]:
    """Return input and output rows by case, trained with a validation that makes them go back."""
    model, vocabulary, found = load_model(folder), load_vocabulary(folder), {}
    every = np.ones(model.n_rows, dtype=bool)
    for name, (tied, tokens) in CASES.items():
        values = iter([3.0, 2.0, *[2.5] * 20])
        done = train_rows(
            model,
            vocabulary,
            TEXTS,
            train_input=every,
            train_output=every,
            tied=tied,
            tokens_per_step=tokens,
            selection=lambda _, values=values: next(values),  # type: ignore[misc]
            **SETTINGS,  # type: ignore[arg-type]
        )
        found[f"{name}, input"] = done.matrices.input
        found[f"{name}, output"] = done.matrices.output
    return found


def environments() -> list[dict[str, str]]:
    """Return what a launcher tells two processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    told = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    told |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    return [os.environ | told | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in (0, 1)]


def run_both(arguments: list[str]) -> list[str]:
    """Run two processes; return what they print."""
    started = [
        subprocess.Popen(
            [sys.executable, *arguments],
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for environment in environments()
    ]
    said = [process.communicate(timeout=600) for process in started]
    for process, (_, errors) in zip(started, said, strict=True):
        assert process.returncode == 0, errors
    return [output for output, _ in said]


def test_two_processes_train_the_rows_of_one(tiny_source: Path, tmp_path: Path) -> None:
    alone = trained(tiny_source)
    _, steps = run_both(["-c", PROGRAM, str(tiny_source), str(tmp_path / "rows.npz")])
    assert int(steps) > 15
    together = np.load(tmp_path / "rows.npz")
    model = load_model(tiny_source).model
    for name, rows in alone.items():
        side = model.get_output_embeddings() if "output" in name else model.get_input_embeddings()
        if name == "tied, output":
            side = model.get_input_embeddings()
        moved = abs(rows - side.weight.numpy()).max()
        assert moved > 1e-4, name
        assert abs(together[name] - rows).max() < 0.02 * moved, name


def test_whoever_leads_works_alone_besides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert followers() == shared_work() == SharedWork()
    with leading(SharedWork()):
        assert followers() == SharedWork()


@pytest.mark.sweep
def test_a_surgery_heals_in_two_processes_as_in_one(tiny_source: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    from tokensurgeon.cli.main import main

    text, alone, shared = tmp_path / "text.jsonl", tmp_path / "alone", tmp_path / "shared"
    text.write_text("\n".join(json.dumps({"text": one}) for one in TEXTS * 3), "utf-8")
    asked = ["transplant", str(tiny_source), "--tokenizer", str(tiny_source), "--init"]
    asked += ["subword-mean", "--heal", "20", "--calibration-text", str(text), "-o"]
    assert main([*asked, str(alone)], standalone_mode=False) in (None, 0)
    outputs = run_both(["-m", "tokensurgeon", *asked, str(shared)])
    assert outputs[0]
    assert not outputs[1]
    one, two = (load_file(next(path.glob("*.safetensors"))) for path in (alone, shared))
    for name, values in one.items():
        np.testing.assert_allclose(two[name], values, atol=2e-3, err_msg=name)


@pytest.mark.parametrize(
    ("more", "told"), [([], "divide the training of --heal"), (["--heal-body"], "train rows alone")]
)
def test_what_cannot_be_divided_is_refused(
    more: list[str],
    told: str,
    tiny_source: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    from tokensurgeon.errors import UsageError
    from tokensurgeon.recipe import Recipe
    from tokensurgeon.surgery.by_processes import transplant_together

    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    fields = {"heal": 1.0, "heal_body": True} if more else {}
    recipe = Recipe.parse(
        {
            "source": str(tiny_source),
            "tokenizer": str(tiny_source),
            "output": str(tmp_path / "out"),
            **fields,
        }
    )
    with pytest.raises(UsageError, match=told):
        transplant_together(recipe)
