"""Counting by clusters, pipelines and other engines: as counting here, to the byte."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scripts import script
from tokensurgeon.errors import MissingExtraError, UsageError
from tokensurgeon.text.corpus import corpus_of_texts
from tokensurgeon.trainers import count_corpus, import_counts, merge_counts
from tokensurgeon.trainers.corpus_counts import import_cutter
from tokensurgeon.trainers.counting import datatrove_step, streams
from tokensurgeon.trainers.counting.executors import on_dask
from tokensurgeon.trainers.plan import Shape

TEXTS = [f"Text {i} of {i * i} – naïve 世界 words, {'ever' * (i % 4)}.\n" for i in range(80)]
CORPUS = corpus_of_texts(TEXTS)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Count in this process."""
    output = tmp_path_factory.mktemp("here") / "counts"
    count_corpus(CORPUS, output, hold_out=False, processes=1)
    return output


def tables(folder: Path) -> dict[str, bytes]:
    """Return every table of a folder of counts."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.parquet")
    }


def words_file(folder: Path) -> Path:
    """Write the texts as JSON lines."""
    folder.mkdir(exist_ok=True)
    file = folder / "text.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    return file


def test_without_the_package_the_install_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dask.distributed", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'tokensurgeon\[dask\]'"):
        on_dask()
    monkeypatch.setattr(datatrove_step, "PipelineStep", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'tokensurgeon\[datatrove\]'"):
        datatrove_step.CountSegments("counted")


@pytest.mark.filterwarnings("ignore")  # Dask's own, of ports and of workers that go
def test_a_cluster_counts_as_this_process_though_a_worker_dies(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distributed = pytest.importorskip("dask.distributed", reason="needs dask")
    monkeypatch.setattr(streams, "BATCH_BYTES", 200)
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None
    ) as cluster:
        pids = [worker.process.pid for worker in cluster.workers.values()]
        killed: list[int] = []

        def kill(done: int, total: int, what: str) -> None:
            if done > 1_000 and not killed:
                killed.append(pids[0])
                os.kill(pids[0], signal.SIGKILL)

        count_corpus(
            CORPUS,
            tmp_path / "counts",
            hold_out=False,
            engine="dask",
            scheduler=cluster.scheduler_address,
            progress=kill,
        )
    assert killed
    assert tables(tmp_path / "counts") == tables(here)
    with pytest.raises(UsageError, match="no Dask scheduler answers"):
        count_corpus(CORPUS, tmp_path / "b", engine="dask", scheduler="nowhere")


def test_a_pipeline_counts_as_this_process(here: Path, tmp_path: Path) -> None:
    pytest.importorskip("datatrove", reason="needs datatrove")
    from datatrove.data import Document

    step = datatrove_step.CountSegments(tmp_path / "tasks")
    for rank in range(3):
        documents = (Document(text, str(i)) for i, text in enumerate(TEXTS) if i % 3 == rank)
        assert list(step.run(documents, rank, 3)) == []
    assert list(step.run(iter(()), 3, 4)) == []
    folders = sorted((tmp_path / "tasks").iterdir())
    assert [folder.name for folder in folders] == ["task-00000", "task-00001", "task-00002"]
    merge_counts(folders, tmp_path / "counts")
    assert tables(tmp_path / "counts") == tables(here)


@pytest.mark.filterwarnings("ignore")  # the pipeline's own
def test_an_executor_counts_as_this_process(here: Path, tmp_path: Path) -> None:
    pytest.importorskip("datatrove", reason="needs datatrove")
    from datatrove.data import Document
    from datatrove.executor import LocalPipelineExecutor

    def read(_: object, rank: int, world_size: int) -> Iterator[Document]:
        for number, text in enumerate(TEXTS[rank::world_size]):
            yield Document(text, str(number))

    steps = [read, datatrove_step.CountSegments(tmp_path / "tasks")]
    LocalPipelineExecutor(steps, tasks=2, workers=1, logging_dir=str(tmp_path / "log")).run()
    merge_counts(sorted((tmp_path / "tasks").iterdir()), tmp_path / "counts")
    assert tables(tmp_path / "counts") == tables(here)


@pytest.mark.filterwarnings("ignore")  # the engines' own, of functions in Python
@pytest.mark.parametrize(("engine", "package"), [("duckdb", "duckdb"), ("polars", "polars")])
def test_an_engine_counts_as_this_process(
    engine: str, package: str, here: Path, tmp_path: Path
) -> None:
    pytest.importorskip(package, reason=f"needs {package}")
    script("count_by_engine").ENGINES[engine](words_file(tmp_path), tmp_path / "words.parquet")
    cutter = import_cutter("words", "cl100k", "left-3", Shape())
    import_counts([tmp_path / "words.parquet"], tmp_path / "counts", cutter)
    assert tables(tmp_path / "counts") == tables(here)


def test_a_count_that_is_killed_goes_on(tmp_path: Path) -> None:
    """The whole command, ended by the system while it counts."""
    text = tmp_path / "text.jsonl"
    lines = (
        json.dumps({"text": f"line {i} of a text, {i * 7919 % 10007}\n" * 40}) for i in range(4000)
    )
    text.write_text("\n".join(lines))
    command = [sys.executable, "-m", "tokensurgeon", "count", str(text), "-o", str(tmp_path / "c")]
    command += ["--processes", "1", "--memory-gib", "0.4"]
    running = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    timer = threading.Timer(240, running.kill)
    timer.start()
    state = tmp_path / "c.counting" / "state.json"
    while running.poll() is None and not state.is_file():
        time.sleep(0.02)
    running.send_signal(signal.SIGKILL)
    running.wait()
    timer.cancel()
    again = subprocess.run(command, capture_output=True, text=True, check=True, timeout=240)
    assert "documents" in again.stdout
    count_corpus([text], tmp_path / "whole", processes=1)
    assert tables(tmp_path / "c") == tables(tmp_path / "whole")
    assert not (tmp_path / "c.counting").exists()
