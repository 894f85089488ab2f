"""A writer that is killed outright never leaves half a checkpoint at the output path."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tokensurgeon.checkpoint import verify_manifest

SCRIPT = """
import sys
import numpy as np
import torch
torch.set_num_threads(1)
from tests.checkpoint.conftest import N_ROWS, plan_of
from tokensurgeon.checkpoint import Checkpoint, write_checkpoint
from tokensurgeon.vocabulary import load_vocabulary
source, output, force = sys.argv[1:]
plan = plan_of(Checkpoint.open(source), load_vocabulary(source), np.arange(N_ROWS))
print("ready", flush=True)
write_checkpoint(plan, output, force=force == "force")
print("done", flush=True)
"""


@pytest.mark.sweep
@pytest.mark.parametrize("existing", [False, True])
def test_kill_9_at_any_moment(
    model_of: Callable[..., Path], tmp_path: Path, existing: bool
) -> None:
    output = tmp_path / "out"
    root = Path(__file__).parents[2]
    moments = [0.05, 0.3, 0.8]
    for moment in moments:
        if existing and not output.exists():
            output.mkdir()
            (output / "config.json").write_text("old")
        arguments = [str(model_of(shard="10KB")), str(output), "force" if existing else "no"]
        with subprocess.Popen(
            [sys.executable, "-c", SCRIPT, *arguments],
            cwd=root, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env={**os.environ, "PYTHONPATH": str(root)},
        ) as process:  # fmt: skip
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            time.sleep(moment)
            process.send_signal(signal.SIGKILL)
            process.wait()
        names = sorted(path.name for path in output.iterdir()) if output.exists() else []
        if names and names != ["config.json"]:
            assert verify_manifest(output) == []
            if not existing:
                break
