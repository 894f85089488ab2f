"""Where batches are counted: in processes of this machine, or by the workers of a Dask cluster.

Every executor hands its results on in the order of the batches, so that what is counted, dropped
and saved depends neither on their number nor on which of them is the fastest.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from tokensurgeon.errors import MissingExtraError, UsageError, reason
from tokensurgeon.trainers.counting.streams import Batch

ALONE_BYTES = 16_000_000
"""Up to this much text is counted in this process: workers take a second to start."""
WAITING = 2
"""Batches for each worker that are under way: one is counted while the next one is sent."""
RETRIES = 3
"""Times that a batch is counted anew where a worker of a cluster fails."""
ENGINES = ("processes", "dask")

R = TypeVar("R")
Work = Callable[[list[str]], R]
Executor = Callable[[Work[Any], Iterable[Batch]], Iterator[tuple[Batch, Any]]]
"""Applies a function to the texts of batches; yields each batch with its result, in their order."""


def make_executor(
    engine: str = "processes", n_workers: int | None = None, scheduler: str | None = None
) -> Executor:
    """Return an executor.

    Parameters
    ----------
    engine : {"processes", "dask"}
    n_workers : int or None
        None takes every processor.
    scheduler : str or None
        Address of a Dask scheduler; None starts a cluster on this machine.

    Raises
    ------
    UsageError
        If there is no such engine, or it has no scheduler.
    """
    if engine not in ENGINES:
        raise UsageError(f"no engine '{engine}'; there are {', '.join(ENGINES)}")
    if engine == "dask":
        return on_dask(n_workers, scheduler)
    if scheduler is not None:
        raise UsageError("a scheduler is one of Dask: add --engine dask, or leave it out")
    return in_processes(n_workers)


def in_processes(n_workers: int | None = None) -> Executor:
    """Return an executor of processes on this machine; little text is counted in this one."""
    from joblib import Parallel, delayed, effective_n_jobs

    jobs = effective_n_jobs(n_workers or -1)

    def run(work: Work[R], batches: Iterable[Batch]) -> Iterator[tuple[Batch, R]]:
        left, done = iter(batches), 0
        for batch in left:
            yield batch, work(batch.texts)
            done += batch.n_bytes
            if done >= ALONE_BYTES and jobs > 1:
                break
        sent: deque[Batch] = deque()

        def send() -> Iterator[Any]:
            for batch in left:
                sent.append(batch)
                yield delayed(work)(batch.texts)

        pool = Parallel(n_jobs=jobs, return_as="generator", pre_dispatch=WAITING * jobs)
        for result in pool(send()):
            yield sent.popleft(), result

    return run


def on_dask(n_workers: int | None = None, scheduler: str | None = None) -> Executor:
    """Return an executor of the workers of a Dask cluster; a batch whose worker dies is resent.

    Raises
    ------
    MissingExtraError
        If Dask is not installed.
    UsageError
        If no scheduler answers at the address.
    """
    try:
        from dask.distributed import Client, LocalCluster
    except ImportError as error:
        raise MissingExtraError(
            "--engine dask needs dask; pip install 'tokensurgeon[dask]'"
        ) from error

    def run(work: Work[R], batches: Iterable[Batch]) -> Iterator[tuple[Batch, R]]:
        if scheduler is None:
            where = {"n_workers": n_workers, "threads_per_worker": 1, "dashboard_address": None}
            cluster: Any = LocalCluster(**where)
        try:
            client = Client(scheduler if scheduler is not None else cluster)
        except (OSError, ValueError) as error:
            raise UsageError(
                f"no Dask scheduler answers at {scheduler}: {reason(error)}; check the address"
            ) from error
        waiting: deque[tuple[Batch, Any]] = deque()
        try:
            most = WAITING * max(1, sum(client.nthreads().values()))
            for batch in batches:
                # Not pure: each batch is there once, and hashing its text would take as long.
                task = client.submit(work, batch.texts, pure=False, retries=RETRIES)
                waiting.append((batch, task))
                if len(waiting) >= most:
                    first, done = waiting.popleft()
                    yield first, done.result()
            while waiting:
                first, done = waiting.popleft()
                yield first, done.result()
        finally:
            client.close()
            if scheduler is None:
                cluster.close()

    return run
