"""The comparison with peers: turns, medians and the machine; the parts that need no peer run."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.scripts import script

measuring, peers, bench_peers = script("measuring"), script("peers"), script("bench_peers")
SCRIPT = Path(__file__).parents[1] / "scripts/bench_peers.py"


def test_works_take_turns_and_their_medians_are_kept() -> None:
    done: list[str] = []
    seconds = {"ours": iter([5.0, 1.0, 2.0]), "theirs": iter([4.0, 9.0, 8.0])}

    def work(name: str) -> Any:
        done.append(name)
        cost = next(seconds[name])
        return measuring.Cost(10 * cost, cost, int(cost))

    costs = measuring.in_turns({n: lambda n=n: work(n) for n in seconds}, turns=3)
    assert done == ["ours", "theirs"] * 3
    assert costs["ours"] == measuring.Cost(20.0, 2.0, 5)  # of memory the largest
    assert costs["theirs"] == measuring.Cost(80.0, 8.0, 9)
    one = bench_peers.line("part", "peer", costs["ours"], costs["theirs"], more=1)
    assert (one["ratio"], one["more"]) == (4.0, 1)


def test_work_in_this_process_is_measured_in_processor_time() -> None:
    cost = measuring.measured(lambda: sum(range(300_000)))
    assert cost.cpu_seconds > 0
    assert cost.peak_bytes > 1 << 20


def test_the_machine_says_what_a_figure_was_measured_on() -> None:
    facts = measuring.machine(["numpy", "no-such-package"])
    assert facts["cores"] >= 1
    assert facts["memory_gib"] > 0.5
    assert facts["processor"]
    assert set(facts["versions"]) == {"python", "numpy"}


def test_a_peer_sees_nothing_of_this_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "here")
    settings = peers.peer_settings(tmp_path, threads=3)
    assert "PYTHONPATH" not in settings
    assert settings["OMP_NUM_THREADS"] == "3"
    assert settings["XDG_CACHE_HOME"].startswith(str(tmp_path))


def test_every_part_is_there_and_in_the_table() -> None:
    bench = bench_peers.Bench(argparse.Namespace(threads=1), Path("unused"))
    for part in bench_peers.PARTS:
        assert callable(getattr(bench, part))
        assert f"| {part} |" in bench_peers.__doc__


@pytest.mark.sweep
def test_the_parts_without_a_peer_of_their_own_run(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--quick", "--json", "--only"]
    printed = subprocess.run(
        [*command, "evaluation", "vocabulary"], capture_output=True, text=True, check=False
    )
    assert printed.returncode == 0, printed.stderr
    told = json.loads(printed.stdout)
    assert [line["peer"] for line in told["lines"]] == [
        "forward passes", "tokenizers", "sentencepiece",
    ]  # fmt: skip
    assert all(line["ours_cpu_seconds"] > 0 < line["ratio"] for line in told["lines"])
