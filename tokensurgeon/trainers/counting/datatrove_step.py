"""Counting as the last step of a datatrove pipeline, which brings readers, Slurm and Ray.

Each task counts what it reads into a folder of its own; `merge_counts` adds them up::

    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.readers import JsonlReader
    from tokensurgeon.trainers.counting.datatrove_step import CountSegments

    LocalPipelineExecutor([JsonlReader("text/"), CountSegments("counted/")], tasks=8).run()
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tokensurgeon.errors import MissingExtraError
from tokensurgeon.trainers.corpus_counts import count_corpus
from tokensurgeon.trainers.mixture import Streamed

try:
    from datatrove.pipeline.base import PipelineStep
except ImportError:  # what runs a pipeline has it; the class says so where it is missing
    PipelineStep = None


class CountSegments(PipelineStep or object):  # type: ignore[misc]
    """Counts the segments of all documents of a task into ``FOLDER/task-00000``; hands none on.

    Parameters
    ----------
    folder : str or Path
    **settings
        As for `count_corpus`. Nothing is held out: a task does not see the corpus. One process
        counts, the task's own.

    Raises
    ------
    MissingExtraError
        If datatrove is not installed.
    """

    name = "Count segments"
    type = "TOKENIZER"

    def __init__(self, folder: str | Path, **settings: Any) -> None:
        if PipelineStep is None:
            raise MissingExtraError(
                "a pipeline needs datatrove; pip install 'tokensurgeon[datatrove]'"
            )
        super().__init__()
        self.folder, self.settings = Path(folder), settings

    def run(self, data: Iterable[Any], rank: int = 0, world_size: int = 1) -> Iterator[Any]:
        """Count the documents of a task; one that has none writes nothing."""
        documents = iter(data)
        first = next(documents, None)
        if first is None:
            return
        counts = count_corpus(
            Streamed(self._texts(first, documents)),
            self.folder / f"task-{rank:05d}",
            hold_out=False,
            processes=1,
            **self.settings,
        )
        self.stat_update("documents", value=sum(counts.counted.n_documents))
        yield from ()

    def _texts(self, first: Any, others: Iterator[Any]) -> Iterator[str]:
        yield str(first.text)
        for document in others:
            yield str(document.text)
