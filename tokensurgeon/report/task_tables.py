"""Tasks of lm-evaluation-harness as a table, and the commands that measure the same."""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING

from tokensurgeon.report import words
from tokensurgeon.report.checkpoint_tables import as_comparison, print_groups
from tokensurgeon.report.evaluation_tables import print_evaluation
from tokensurgeon.report.tables import figures_table, say

if TYPE_CHECKING:
    from rich.console import Console

    from tokensurgeon.evaluation import Evaluation, TaskTable
    from tokensurgeon.evaluation.tasks import TaskFigure, Uncertain

LARGE = 100_000
"""From here on a figure is a power of ten: perplexities have no upper bound, a terminal has."""


def print_measured(
    console: Console,
    evaluation: Evaluation | None,
    tasks: TaskTable | None,
    by: str | None = None,
) -> None:
    """Print what was measured on a text, also by file or language, on tasks, or on both."""
    if evaluation is not None:
        print_evaluation(console, evaluation)
        if by is not None:
            print_groups(console, as_comparison(evaluation, by))
    if evaluation is not None and tasks is not None:
        console.print()
    if tasks is not None:
        print_tasks(console, tasks)


def print_tasks(console: Console, tasks: TaskTable) -> None:
    """Print a line for each figure, then what to type so that the harness measures it by itself."""
    two = len(tasks.models) > 1
    names = ("source", "patched") if two else (words.short(tasks.models[0]),)
    table = figures_table("task", "metric", "items", *names, *(["difference"] if two else []))
    task = None
    for figure in tasks.figures:
        cells = [_uncertain(value) for value in figure.values]
        if figure.difference is not None:
            cells.append(_uncertain(figure.difference, sign=True))
        first = "" if figure.task == task else figure.task
        table.add_row(first, _metric(figure), f"{figure.n_items:,}", *cells)
        task = figure.task
    console.print(table)
    asked = [
        "" if tasks.limit is None else f", {tasks.limit:,} items of each task at most",
        ""
        if tasks.num_fewshot is None
        else f", {words.count(tasks.num_fewshot, 'example')} before each",
    ]
    errors = "± standard error" + (
        ", of the difference over the same items; ↑ more is better, ↓ less" if two else ""
    )
    say(console, f"{errors}; lm-evaluation-harness {tasks.version}{''.join(asked)}")
    for name, commands in tasks.commands.items():
        say(console, f"{PurePath(name).name or name}:", *(f"  {command}" for command in commands))


def _metric(figure: TaskFigure) -> str:
    name = figure.metric if figure.filter == "none" else f"{figure.metric} ({figure.filter})"
    arrow = {True: " ↑", False: " ↓", None: ""}[figure.higher_is_better]
    return f"{name}{arrow}"


def _uncertain(value: Uncertain, *, sign: bool = False) -> str:
    largest = max(abs(value.value), value.error or 0.0)

    def said(one: float, sign: bool = False) -> str:
        if largest >= LARGE:
            return f"{one:{'+' if sign else ''}.2e}"
        return words.number(one, 4 if largest < 10 else 2, sign=sign)

    return said(value.value, sign) + ("" if value.error is None else f" ± {said(value.error)}")
