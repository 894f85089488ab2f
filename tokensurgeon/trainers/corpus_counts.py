"""Count a corpus for later trainings: which tables methods need, and where they are counted."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tokensurgeon.errors import SettingError
from tokensurgeon.outputs.ownership import COUNTS
from tokensurgeon.progress import Progress, no_progress
from tokensurgeon.text.borders import borders_of
from tokensurgeon.trainers.control_tokens import EOS
from tokensurgeon.trainers.counting.count_corpus import (
    count_documents,
    least_gib,
    workers_within,
)
from tokensurgeon.trainers.counting.count_tables import CountTables
from tokensurgeon.trainers.counting.cutters import Cutter
from tokensurgeon.trainers.counting.executors import make_executor
from tokensurgeon.trainers.counting.held_out import HeldOut
from tokensurgeon.trainers.counting.pretokenizers import (
    DIGITS,
    NO_CROSS,
    PRETOKENIZER,
    PRETOKENIZERS,
    SCHEME,
    check_choice,
)
from tokensurgeon.trainers.learners.learn import tables_of
from tokensurgeon.trainers.mixture import CorpusLike, as_parts, documents_of, shares
from tokensurgeon.trainers.plan import Plan, Shape
from tokensurgeon.trainers.trained import check_output
from tokensurgeon.trainers.training_methods import METHODS

TABLES = {"words": "bpe", "runs": "superbpe"}
"""Tables that other engines can count, and a method that needs each."""


def count_corpus(
    corpus: CorpusLike,
    output: str | Path,
    *,
    methods: Sequence[str] = ("bpe",),
    pretokenizer: str = PRETOKENIZER,
    digits: str = SCHEME,
    no_cross: Sequence[str] = NO_CROSS,
    max_pieces: int | None = None,
    seed: int = 0,
    controls: Sequence[str] = (),
    borders: str = "known",
    hold_out: bool = True,
    field: str = "text",
    memory_gib: float = 2.0,
    engine: str = "processes",
    processes: int | None = None,
    scheduler: str | None = None,
    prune: bool = False,
    force: bool = False,
    progress: Progress = no_progress,
) -> CountTables:
    """Count the segments of a corpus into a folder that vocabularies are trained from.

    Parameters
    ----------
    corpus
        As for `train_vocabulary`.
    output : str or Path
        The folder to write.
    methods : sequence of str
        Methods that are to be trained; each says which segments it counts.
    pretokenizer, digits, no_cross, max_pieces, seed
        As they are to be trained with.
    controls : sequence of str
        Control tokens of the vocabularies, which end a document besides ``<|endoftext|>``.
    borders : {"known", "own"}
        As for `train_vocabulary`.
    hold_out : bool
        Whether some documents are not counted and kept to measure on.
    field : str
    memory_gib : float
        Memory of all processes on this machine, in GiB; counts beyond it are spilled to disk. The
        processes alone take 0.4 GiB with one worker, and 0.2 more with each other.
    engine : {"processes", "dask"}
    processes : int or None
        Workers; None takes every processor that the memory has room for. It does not change the
        result.
    scheduler : str or None
        Address of a Dask scheduler; None starts a cluster on this machine.
    prune : bool
        Drop the rarest segments where memory is full, instead of spilling.
    force : bool
    progress : callable(done, total, what)

    Returns
    -------
    CountTables

    Raises
    ------
    UsageError
        If a setting is unknown, two methods count otherwise, the memory does not hold the workers,
        or the output exists.
    CorpusError
        If the text cannot be read, or the work kept is of another.
    MissingExtraError
        If pyarrow is not installed, or Dask where it is asked for.
    """
    check_output(output, force, corpus, kind=COUNTS)
    check_choice("pre-tokenizer", pretokenizer, PRETOKENIZERS)
    check_choice("digit scheme", digits, DIGITS)
    shape = Shape(no_cross=tuple(no_cross), max_pieces=max_pieces)
    plan = Plan("bpe", 0, preset=pretokenizer, digits=digits, shape=shape, seed=seed)
    if scheduler is None:
        processes = processes or workers_within(memory_gib, os.cpu_count() or 1)
    n_workers = 0 if processes is None else processes
    if memory_gib < (least := least_gib(n_workers)):
        raise SettingError(
            f"{n_workers or 1} worker{'s take' if n_workers > 1 else ' takes'} {least:.2f} GiB "
            f"before anything is counted, and {memory_gib:g} GiB are given: raise --memory-gib"
            + (", or lower --processes" if n_workers > 1 else "")
        )
    parts = as_parts(corpus)
    ends = borders_of((EOS, *controls), borders)
    return count_documents(
        {name: documents_of(part, field, ends) for name, part in parts.items()},
        tables_for(methods, plan),
        output,
        execute=make_executor(engine, processes, scheduler),
        n_workers=n_workers,
        held_out=HeldOut() if hold_out else None,
        ends=ends,
        memory_gib=memory_gib,
        prune=prune,
        settings={
            "methods": list(methods),
            "pretokenizer": pretokenizer,
            "digits": digits,
            "no_cross": list(no_cross),
            "max_pieces": max_pieces,
            "seed": seed,
            "borders": borders,
            "held_out": hold_out,
            "shares": shares(parts),
        },
        force=force,
        progress=progress,
    )


def tables_for(methods: Sequence[str], plan: Plan) -> Mapping[str, Cutter]:
    """Return the cutters of all tables that methods need, by name.

    Raises
    ------
    SettingError
        If two methods need tables of one name that are cut otherwise, or none is named.
    """
    if not methods:
        raise SettingError(f"no method to count for; name some of {', '.join(METHODS)}")
    found: dict[str, Cutter] = {}
    for method in methods:
        check_choice("method", method, METHODS)
        tables, _, _ = tables_of(replace(plan, method=method))
        for name, cutter in tables.items():
            if found.setdefault(name, cutter) != cutter:
                raise SettingError(
                    f"{method} cuts {name} otherwise than {methods[0]}: count them apart"
                )
    return found


def import_cutter(table: str, pretokenizer: str, digits: str, shape: Shape) -> Cutter:
    """Return what must have cut a table that another engine counted.

    Raises
    ------
    SettingError
        If a name is unknown.
    """
    check_choice("pre-tokenizer", pretokenizer, PRETOKENIZERS)
    check_choice("digit scheme", digits, DIGITS)
    check_choice("table", table, tuple(TABLES))
    plan = Plan(TABLES[table], 0, preset=pretokenizer, digits=digits, shape=shape)
    return tables_for([plan.method], plan)[table]
