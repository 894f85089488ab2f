"""An evaluation that two processes divide is that of one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.world import byte_level_bpe, make_model, save_tokenizer
from tokensurgeon.errors import UsageError
from tokensurgeon.evaluation.shared_work import SharedWork, shared_work

TEXT = "\n\n".join(
    f"The river of winter {i} is silver, and its letter is {i * i}." for i in range(60)
)


def test_each_chunk_is_of_one_process() -> None:
    chosen = np.array([0, 3, 4, 7, 8, 9])
    parts = [SharedWork(rank, 3).own(chosen).tolist() for rank in range(3)]
    assert sorted(i for part in parts for i in part) == chosen.tolist()
    assert SharedWork().own(chosen).tolist() == chosen.tolist()
    assert SharedWork().gathered({1: "a"}) == {1: "a"}
    assert SharedWork(1, 2).device("cpu") == "cpu"
    assert SharedWork(1, 2).device("cuda") == "cuda:0"


@pytest.mark.parametrize(("rank", "n"), [("2", "2"), ("-1", "1"), ("a", "2")])
def test_numbers_that_are_none_are_refused(
    rank: str, n: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", n)
    with pytest.raises(UsageError, match=r"unset RANK and WORLD_SIZE|unset them"):
        shared_work()


def run(command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line as a process of its own."""
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
    )


def test_two_processes_find_what_one_does(tmp_path: Path) -> None:
    for name, family, seed in (("a", "llama", 1), ("b", "gpt2", 2)):
        make_model(tmp_path / name, family, 320, seed=seed, noise=0.1)
        tokenizer = byte_level_bpe(300 + 10 * seed, ("<s>",), [TEXT])
        save_tokenizer(tokenizer, tmp_path / name, bos_token="<s>")
    (tmp_path / "text.txt").write_text(TEXT)
    asked = ["-m", "tokensurgeon", "evaluate", str(tmp_path / "b"), str(tmp_path / "text.txt")]
    asked += ["--against", str(tmp_path / "a"), "--json", "--chunk-bytes", "100"]
    alone = run([sys.executable, *asked])
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    launcher += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    shared = run([*launcher, *asked])
    assert shared.returncode == alone.returncode == 0, shared.stderr
    one, two = json.loads(alone.stdout), json.loads(shared.stdout)
    # Each process pads batches of its own, and float32 rounds a sum by the shape of the batch.
    assert one["entries"][1]["bits_per_byte"] == pytest.approx(
        two["entries"][1]["bits_per_byte"], rel=float(np.finfo(np.float32).eps)
    )
    assert json.dumps(one).count(":") == json.dumps(two).count(":")


def test_what_is_not_divided_is_refused() -> None:
    told = run(
        [sys.executable, "-m", "tokensurgeon", "verify", "nowhere"], RANK="0", WORLD_SIZE="2"
    )
    assert told.returncode == 2
    assert "2 processes would each do all of verify: start it without a launcher" in told.stderr
