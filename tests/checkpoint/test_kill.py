"""A writer that is killed outright never leaves half a checkpoint at the output path."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.world import N_ROWS, plan_of
from tokensurgeon.checkpoint import Checkpoint, PatchPlan, verify_manifest, write_checkpoint
from tokensurgeon.errors import CheckpointError, OutputExistsError
from tokensurgeon.models.reload import reload_check
from tokensurgeon.outputs import staged
from tokensurgeon.vocabulary import load_vocabulary

SCRIPT = """
import sys
import numpy as np
import torch
torch.set_num_threads(1)
from tests.world import N_ROWS, plan_of
from tokensurgeon.checkpoint import Checkpoint, write_checkpoint
from tokensurgeon.models.reload import reload_check
from tokensurgeon.vocabulary import load_vocabulary
source, output, force = sys.argv[1:]
plan = plan_of(Checkpoint.open(source), load_vocabulary(source), np.arange(N_ROWS))
print("ready", flush=True)
write_checkpoint(plan, output, force=force == "force", check=reload_check(plan))
print("done", flush=True)
"""


WRITES = ("open", "os.rename", "os.link", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree")
"""What Python tells its audit hooks before a file or folder changes."""
STEPS_AT_MOST = 400


def write_and_die(plan: PatchPlan, output: Path, force: bool, at: int) -> int:
    """Write in a process of its own that kills itself before step `at`; return its status."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    try:
        steps = 0

        def count(event: str, args: tuple[object, ...]) -> None:
            nonlocal steps
            if event not in WRITES or not str(args[0] or "").startswith(str(output.parent)):
                return
            if event == "open" and not set(str(args[1])) & set("wxa+"):
                return
            steps += 1
            if steps == at:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
        write_checkpoint(plan, output, force=force, check=reload_check(plan))
        os._exit(0)
    finally:
        os._exit(1)


@pytest.mark.parametrize("existing", [False, True])
def test_kill_9_before_every_step(
    model_of: Callable[..., Path], tmp_path: Path, existing: bool
) -> None:
    source = model_of(shard="10KB")
    plan = plan_of(Checkpoint.open(source), load_vocabulary(source), np.arange(N_ROWS))
    output = tmp_path / "folder" / "out"
    output.parent.mkdir()
    if existing:
        write_checkpoint(plan, output, check=reload_check(plan))
    killed = 0
    for step in range(1, STEPS_AT_MOST):
        status = write_and_die(plan, output, existing, step)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
        killed += 1
        assert output.exists() or not existing
        if output.exists():
            assert verify_manifest(output) == []
            if not existing:
                shutil.rmtree(output)
    else:
        pytest.fail("the writer has more steps than were tried")
    assert killed > 10
    assert verify_manifest(output) == []
    assert {path.name for path in output.iterdir()} >= {"config.json", "manifest.json"}
    # What killed runs left behind is cleared away by the one that ended.
    assert [path.name for path in output.parent.iterdir()] == ["out"]


def test_a_living_writers_folder_is_left_alone(tmp_path: Path) -> None:
    with staged(tmp_path / "out", force=False) as mine:
        (mine / "a").touch()
        with staged(tmp_path / "out", force=False) as other:
            assert (mine / "a").exists()
            assert other != mine
            (other / "b").touch()
        with pytest.raises(OutputExistsError), staged(tmp_path / "out", force=False):
            pass
        assert (mine / "a").exists()
        shutil.rmtree(tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a"]


def write_where_it_ends(plan: PatchPlan, output: Path, most_bytes: int) -> int:
    """Write in a process in which no file may grow past a bound; 0 if it ended, 2 if refused."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
        try:
            write_checkpoint(plan, output, check=reload_check(plan))
        except OSError as error:
            os._exit(2 if error.errno == errno.EFBIG else 3)
        except CheckpointError:  # a library beneath has said it in its own words
            os._exit(2)
        os._exit(0)
    finally:
        os._exit(1)


def test_where_no_more_can_be_written_nothing_is_left(
    model_of: Callable[..., Path], tmp_path: Path
) -> None:
    source = model_of(shard="10KB")
    plan = plan_of(Checkpoint.open(source), load_vocabulary(source), np.arange(N_ROWS))
    output, statuses = tmp_path / "folder" / "out", []
    output.parent.mkdir()
    for most_bytes in (0, 1, 100, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 1 << 20):
        statuses.append(write_where_it_ends(plan, output, most_bytes))
        if statuses[-1]:
            assert list(output.parent.iterdir()) == []
    assert statuses[-1] == 0
    assert statuses[:-1].count(2) > 5
    assert not {1, 3} & set(statuses)
    assert verify_manifest(output) == []


@pytest.mark.sweep
def test_a_full_disk_leaves_nothing(model_of: Callable[..., Path], tmp_path: Path) -> None:
    """On file systems of one size after another, until the checkpoint fits."""
    source, disk = model_of(shard="10KB"), tmp_path / "disk"
    plan = plan_of(Checkpoint.open(source), load_vocabulary(source), np.arange(N_ROWS))
    disk.mkdir()
    refused = 0
    for kilobytes in range(4, 4096, 4):
        size = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(disk)]
        if subprocess.run(size, check=False, capture_output=True).returncode:
            pytest.skip("no file system of a chosen size can be mounted here")
        try:
            write_checkpoint(plan, disk / "out", check=reload_check(plan))
            assert verify_manifest(disk / "out") == []
            break
        except (OSError, CheckpointError):
            refused += 1
            assert list(disk.iterdir()) == []
        finally:
            subprocess.run(["umount", str(disk)], check=True)
    assert refused > 5


@pytest.mark.sweep
@pytest.mark.parametrize("existing", [False, True])
def test_kill_9_at_any_moment(
    model_of: Callable[..., Path], tmp_path: Path, existing: bool
) -> None:
    output = tmp_path / "out"
    root = Path(__file__).parents[2]
    ended = 0
    moments = np.random.default_rng(0).uniform(0.0, 1.5, 25).tolist()
    source = model_of(shard="10KB")
    plan = plan_of(Checkpoint.open(source), load_vocabulary(source), np.arange(N_ROWS))
    for moment in moments:
        if existing and not output.exists():
            write_checkpoint(plan, output, extra_files={"old.txt": "old"})
        arguments = [str(source), str(output), "force" if existing else "no"]
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
        assert output.exists() or not existing
        if output.exists():
            assert verify_manifest(output) == []
            if not (output / "old.txt").exists():
                ended += 1
                shutil.rmtree(output)
    assert ended < len(moments)
    write_checkpoint(plan, output, force=True, check=reload_check(plan))
    assert verify_manifest(output) == []
