"""Figures of tasks under one model or two, and how sure their difference is.

Both models answer the same items, so the standard error of a difference is that of paired
differences: much smaller than two errors of their own would make one believe.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

DRAWS = 500
"""Of a bootstrap, where a figure is no mean: its standard error is then known within 3 %."""
MEANS = ("mean", "nanmean")
"""Names of the functions by which the harness makes a mean of items."""

Aggregate = Callable[[Sequence[Any]], float]


@dataclass(frozen=True)
class Uncertain:
    """A value and its standard error, None where that is not known."""

    value: float
    error: float | None


@dataclass(frozen=True)
class TaskFigure:
    """One metric of one task.

    Attributes
    ----------
    task, metric, filter : str
        `filter` is what the harness made of an answer before; ``"none"`` mostly.
    n_items : int
        Of the task.
    higher_is_better : bool or None
        None where the task does not say.
    values : tuple of Uncertain
        Of each model, in the order of the table.
    difference : Uncertain or None
        The last model's value above the first's; None where there is one model.
    """

    task: str
    metric: str
    filter: str
    n_items: int
    higher_is_better: bool | None
    values: tuple[Uncertain, ...]
    difference: Uncertain | None


@dataclass(frozen=True)
class TaskTable:
    """Tasks under one model, or under two.

    Attributes
    ----------
    models : tuple of str
        Names; of two, the source first.
    commands : dict of str to tuple of str
        For each model, what to type so that the harness measures the same by itself.
    figures : tuple of TaskFigure
    limit, num_fewshot : int or None
        As asked for.
    version : str
        Of the harness.
    """

    models: tuple[str, ...]
    commands: dict[str, tuple[str, ...]]
    figures: tuple[TaskFigure, ...]
    limit: int | None
    num_fewshot: int | None
    version: str

    def to_dict(self) -> dict[str, Any]:
        """Return the table as plain values, ready for JSON."""
        return asdict(self)


def figures_of(results: Sequence[Mapping[str, Any]], tasks: Mapping[str, Any]) -> list[TaskFigure]:
    """Return every figure that the harness gives for one model, or for two.

    Parameters
    ----------
    results : sequence of mapping
        What the harness returned for each model on the same tasks, its samples among it.
    tasks : mapping of str to object
        The harness' tasks by name: they know how a figure is made of items.
    """
    figures = []
    first = results[0]
    rows = [one["results"] | one.get("groups", {}) for one in results]
    for name, values in rows[0].items():
        for key, value in sorted(values.items()):
            metric, _, filter_name = key.partition(",")
            if not filter_name or metric.endswith("_stderr") or not _is_number(value):
                continue
            samples = [_samples(one, name, metric, filter_name) for one in results]
            aggregate = tasks[name].aggregation().get(metric) if name in tasks else None
            own = [float(one[name][key]) for one in rows]
            figures.append(
                TaskFigure(
                    task=name,
                    metric=metric,
                    filter=filter_name,
                    n_items=_n_items(first, name),
                    higher_is_better=first.get("higher_is_better", {}).get(name, {}).get(metric),
                    values=tuple(
                        Uncertain(v, standard_error([s], aggregate))
                        for v, s in zip(own, samples, strict=True)
                    ),
                    difference=None
                    if len(own) == 1
                    else Uncertain(own[-1] - own[0], standard_error(samples, aggregate)),
                )
            )
    return figures


def standard_error(
    samples: Sequence[Sequence[Any]], aggregate: Aggregate | None, seed: int = 0
) -> float | None:
    """Return the standard error of a figure, or of the difference of two on the same items.

    Of a mean by the spread of (paired differences of) items; of anything else by a bootstrap that
    draws the same items for both.

    Parameters
    ----------
    samples : sequence of sequences
        One or two, of the values of the same items in the same order.
    aggregate : callable or None
        Makes the figure of one of them; None where nobody knows how.
    seed : int
        Of the bootstrap.

    Examples
    --------
    >>> def mean(values):
    ...     return sum(values) / len(values)
    >>> standard_error([[1.0, 0.0, 1.0, 0.0]], mean)
    0.28867513459481287
    >>> standard_error([[1.0, 0.0, 1.0], [2.0, 1.0, 2.0]], mean)  # each item is higher by one
    0.0
    """
    n = len(samples[0])
    if aggregate is None or n < 2 or any(len(one) != n for one in samples):
        return None
    if aggregate.__name__ in MEANS and all(_is_number(value) for one in samples for value in one):
        last, first = (np.array(samples[i], dtype=np.float64) for i in (-1, 0))
        values = last if len(samples) == 1 else last - first
        return float(values.std(ddof=1) / math.sqrt(n))
    generator = np.random.default_rng(seed)
    drawn = np.empty(DRAWS)
    for i in range(DRAWS):
        chosen = generator.integers(0, n, size=n).tolist()
        values_of = [aggregate([one[j] for j in chosen]) for one in samples]
        drawn[i] = values_of[-1] - (values_of[0] if len(samples) > 1 else 0.0)
    error = float(drawn.std(ddof=1))
    return error if math.isfinite(error) else None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | np.number) and math.isfinite(value)


def _samples(result: Mapping[str, Any], task: str, metric: str, filter_name: str) -> list[Any]:
    """Return the values of a metric, one for each item, in the order of the items."""
    found = {
        one["doc_id"]: one[metric]
        for one in result["samples"].get(task, ())
        if one.get("filter") == filter_name and metric in one
    }
    return [found[key] for key in sorted(found)]


def _n_items(result: Mapping[str, Any], name: str) -> int:
    """Return how many items a task has that were run, or all tasks of a group."""
    counted = result["n-samples"].get(name)
    if counted is not None:
        return int(counted["effective"])
    return sum(_n_items(result, child) for child in result["group_subtasks"].get(name, ()))
