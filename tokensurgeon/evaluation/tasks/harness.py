"""lm-evaluation-harness (EleutherAI) as far as it is used: its tasks found and loaded, and run.

No other module imports it. It writes to stdout, warns and shows bars of its own: here stdout is
stderr meanwhile, warnings are off unless this package is verbose, and what it has done is told to
`progress`.
"""

from __future__ import annotations

import contextlib
import difflib
import logging
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokensurgeon.errors import EvaluationError, MissingExtraError, UnknownNameError, reason
from tokensurgeon.evaluation.tasks.harness_command import HarnessSettings
from tokensurgeon.progress import Progress
from tokensurgeon.vocabulary.originals import installed

PACKAGES = {"lm_eval": "lm-eval", "accelerate": "accelerate"}
"""Modules without which the harness runs no model, and the packages that have them."""
SEEDS = (0, 1234, 1234)
"""Of Python's generator, of numpy's and torch's, and of the choice of examples: the defaults of the
harness' command."""
ROLLING = "loglikelihood_rolling"
"""The harness' word for tasks that score whole texts."""


@dataclass(frozen=True)
class TaskSet:
    """Tasks that the harness knows, their data on this machine.

    Attributes
    ----------
    names : tuple of str
        As they are asked for: tasks, and groups of them.
    rolling : tuple of bool
        For each name, whether its tasks score whole texts.
    tasks : mapping of str to object
        Every single task by its name, as the harness has it.
    manager : object
        The harness' index of tasks.
    """

    names: tuple[str, ...]
    rolling: tuple[bool, ...]
    tasks: Mapping[str, Any]
    manager: Any

    def of_kind(self, rolling: bool) -> tuple[str, ...]:
        """Return the names whose tasks score whole texts, or the others."""
        return tuple(n for n, own in zip(self.names, self.rolling, strict=True) if own == rolling)


def check_installed() -> None:
    """Refuse to go on without the harness.

    Raises
    ------
    MissingExtraError
    """
    lacking = [package for module, package in PACKAGES.items() if not installed(module)]
    if lacking:
        raise MissingExtraError(
            f"--tasks needs {' and '.join(lacking)}, which {'is' if len(lacking) == 1 else 'are'} "
            f"not installed; run: pip install {' '.join(lacking)}"
        )


def harness_version() -> str:
    """Return the version of the harness."""
    from importlib.metadata import version

    return version("lm_eval")


def load_tasks(wanted: Sequence[str], folder: Path | None) -> TaskSet:
    """Find tasks by name, and load their data.

    Parameters
    ----------
    wanted : sequence of str
        Names of tasks, groups or tags, or patterns of them; none for all tasks of `folder`.
    folder : Path or None
        Of task files, which come before the harness' own of the same name. Python code that they
        name is run.

    Raises
    ------
    UnknownNameError
        If there is no such task.
    EvaluationError
        If the folder has no task, or a task's data cannot be had.
    """
    with quiet():
        from lm_eval.tasks import TaskManager

        own = None
        if folder is not None:
            own = TaskManager(include_path=str(folder), include_defaults=False)
            if not own.all_subtasks:
                raise EvaluationError(
                    f"{folder} holds no task of lm-evaluation-harness: give a folder with .yaml "
                    "files that have a key 'task'"
                )
        # The harness' own index takes ten seconds to read.
        if own is not None and all(own.match_tasks([name]) for name in wanted):
            manager = own
        else:
            manager = TaskManager(include_path=None if folder is None else str(folder))
        names = dict.fromkeys(own.all_subtasks if own is not None and not wanted else ())
        for name in wanted:
            found = manager.match_tasks([name])
            if not found:
                raise _unknown(name, manager.all_tasks, folder)
            names.update(dict.fromkeys(found))
        loaded = {name: _load(manager, name) for name in names}
    kinds: dict[str, bool] = {}
    for name, tasks in loaded.items():
        rolling = {task: one.OUTPUT_TYPE == ROLLING for task, one in tasks.items()}
        # A group of both kinds is taken apart: the two are asked for in different ways.
        kinds |= rolling if len(set(rolling.values())) > 1 else {name: any(rolling.values())}
    single = {task: one for tasks in loaded.values() for task, one in tasks.items()}
    return TaskSet(tuple(kinds), tuple(kinds.values()), single, manager)


def _load(manager: Any, name: str) -> dict[str, Any]:
    try:
        tasks: dict[str, Any] = manager.load([name])["tasks"]
    except MemoryError:
        raise
    except Exception as error:
        raise EvaluationError(
            f"the data of task '{name}' cannot be had: {reason(error)}; fetch it where there is a "
            "network, or give task files of your own with --tasks-folder"
        ) from error
    return tasks


def _unknown(name: str, known: Sequence[str], folder: Path | None) -> UnknownNameError:
    near = difflib.get_close_matches(name, known, n=1)
    where = "" if folder is None else f", nor in {folder}"
    hint = f"take '{near[0]}'" if near else "run 'lm_eval ls tasks' for a list"
    return UnknownNameError(f"lm-evaluation-harness has no task '{name}'{where}; {hint}")


def run_tasks(
    tasks: TaskSet,
    names: Sequence[str],
    args: Mapping[str, Any],
    settings: HarnessSettings,
    progress: Progress,
    what: str,
) -> dict[str, Any]:
    """Load a model as the harness does, and return what it says of these tasks.

    The harness seeds Python's, numpy's and torch's generators.

    Parameters
    ----------
    tasks : TaskSet
    names : sequence of str
        Of it.
    args : mapping
        As `model_args` gives them.
    settings : HarnessSettings
    progress : callable(done, total, what)
    what : str
        For progress and messages.

    Raises
    ------
    EvaluationError
        Where the harness fails.
    """
    device = None if args.get("parallelize") else settings.device
    try:
        with quiet():
            # Not its simple_evaluate: that asks git and pip about the machine for seconds, and git
            # answers on stderr.
            from lm_eval import evaluate

            model = _reporting(progress, what)(
                batch_size=settings.batch_size, device=device, **args
            )
            results: dict[str, Any] = evaluate(
                lm=model,
                task_dict=_prepared(tasks.manager, names, settings.num_fewshot),
                limit=settings.limit,
                bootstrap_iters=0,  # standard errors are computed here, of differences too
            )
    except MemoryError:
        raise
    except Exception as error:
        raise EvaluationError(
            f"lm-evaluation-harness failed on {what}: {reason(error)}; run its own command for "
            "more, or leave out the task"
        ) from error
    return results


def _prepared(manager: Any, names: Sequence[str], num_fewshot: int | None) -> Any:
    """Load tasks, seeded and with as many examples as the harness' own command would have them."""
    import random

    import numpy as np
    import torch

    seed, other, few_shot = SEEDS
    random.seed(seed)
    np.random.seed(other)  # noqa: NPY002 - tasks draw from the global generators
    torch.manual_seed(other)
    loaded = manager.load(list(names))
    for task in loaded["tasks"].values():
        own = task.get_config("num_fewshot")
        if num_fewshot is not None and own != 0:  # a task that says 0 cannot have any
            task.set_config(key="num_fewshot", value=num_fewshot)
        elif own is None:
            task.set_config(key="num_fewshot", value=0)
        task.set_fewshot_seed(seed=few_shot)
    return loaded


def _reporting(progress: Progress, what: str) -> Any:
    """Return the harness' class of models, which tells `progress` instead of drawing bars."""
    from lm_eval.models.huggingface import HFLM

    class Reporting(HFLM):  # type: ignore[misc]
        done = total = 0

        def loglikelihood(self, requests: Any, disable_tqdm: bool = True) -> Any:
            self.done, self.total = 0, len(requests)
            return super().loglikelihood(requests, disable_tqdm=True)

        def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = True) -> Any:
            self.done, self.total = 0, len(requests)
            return super().loglikelihood_rolling(requests, disable_tqdm=True)

        def generate_until(self, requests: Any, disable_tqdm: bool = True) -> Any:
            progress(0, 0, what)
            return super().generate_until(requests, disable_tqdm=True)

        def _loglikelihood_tokens(
            self, requests: Any, disable_tqdm: bool = True, **options: Any
        ) -> Any:
            return super()._loglikelihood_tokens(requests, disable_tqdm=True, **options)

        def _model_call(self, inps: Any, **options: Any) -> Any:
            result = super()._model_call(inps, **options)
            # Of choices that differ in one token the harness runs one; long texts take several.
            self.done = min(self.done + len(inps), self.total)
            progress(self.done, self.total, what)
            return result

    return Reporting


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep stdout and warnings to ourselves; say on stderr what the harness logs if verbose."""
    logger = logging.getLogger("lm_eval")
    level, verbose = logger.level, logging.getLogger("tokensurgeon").isEnabledFor(logging.INFO)
    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        if not verbose:
            warnings.simplefilter("ignore")
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)
