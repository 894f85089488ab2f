"""Run tasks of lm-evaluation-harness on a checkpoint, and on the one to compare it with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tokensurgeon.checkpoint import Checkpoint
from tokensurgeon.checkpoint.embeddings import CAUSAL, KIND_WORDS
from tokensurgeon.errors import EvaluationError, UsageError
from tokensurgeon.evaluation.tasks.harness import (
    check_installed,
    harness_version,
    load_tasks,
    run_tasks,
)
from tokensurgeon.evaluation.tasks.harness_command import (
    HarnessSettings,
    command_line,
    model_args,
)
from tokensurgeon.evaluation.tasks.task_table import TaskFigure, TaskTable, figures_of
from tokensurgeon.models.device_map import check_device
from tokensurgeon.progress import Progress, no_progress
from tokensurgeon.vocabulary import Vocabulary, load_vocabulary


def evaluate_tasks(
    path: str | Path,
    tasks: Sequence[str],
    against: str | Path | None = None,
    *,
    folder: str | Path | None = None,
    limit: int | None = None,
    num_fewshot: int | None = None,
    batch_size: int = 1,
    device: str = "cpu",
    dtype: str = "float32",
    trust_remote_code: bool = False,
    progress: Progress = no_progress,
) -> TaskTable:
    """Let lm-evaluation-harness measure a checkpoint on tasks, and another one beside it.

    The harness (Gao et al., 2024, the extra ``lm-eval``) loads each model by itself, as its own
    command would that stands in the table. It seeds Python's, numpy's and torch's generators.

    Parameters
    ----------
    path : str or Path
        A causal language model with its own tokenizer.
    tasks : sequence of str
        Names of tasks, groups or tags of the harness, or one folder of task files.
    against : str, Path or None
        Another checkpoint, mostly the source of `path`; it comes first in the table.
    folder : str, Path or None
        Of task files that have the names; Python code that they name is run.
    limit : int or None
        Items of each task at most, the first ones.
    num_fewshot : int or None
        Examples before each item; as the task says if None.
    batch_size : int
    device, dtype : str
        Of the forward passes.
    trust_remote_code : bool
    progress : callable(done, total, what)

    Raises
    ------
    MissingExtraError
        If the harness is not installed.
    UsageError
        If there is no such task, or several folders are named.
    CheckpointError
        If there is no such checkpoint.
    EvaluationError
        If a checkpoint is no causal language model, or a task cannot be run.
    """
    check_device(device)
    names, task_folder = _parted(tasks, folder)
    settings = HarnessSettings(
        task_folder, limit, num_fewshot, batch_size, device, dtype, trust_remote_code
    )
    models: dict[str, tuple[str | Path, Path, Vocabulary]] = {}
    for given in (path,) if against is None else (against, path):
        checkpoint, vocabulary = _opened(given, trust_remote_code)
        models[f"{given} (again)" if str(given) in models else str(given)] = (
            given,
            checkpoint.path,
            vocabulary,
        )
    check_installed()
    task_set = load_tasks(names, task_folder)
    commands: dict[str, tuple[str, ...]] = dict.fromkeys(models, ())
    figures: list[TaskFigure] = []
    for rolling in (False, True):
        asked = task_set.of_kind(rolling)
        if not asked:
            continue
        results = []
        for name, (given, local, vocabulary) in models.items():
            args = model_args(given, vocabulary, settings, rolling=rolling)
            commands[name] += (command_line(args, asked, settings),)
            args = model_args(local, vocabulary, settings, rolling=rolling)
            what = f"tasks under {name}"
            results.append(run_tasks(task_set, asked, args, settings, progress, what))
        figures += figures_of(results, task_set.tasks)
    return TaskTable(
        models=tuple(models),
        commands=commands,
        figures=tuple(figures),
        limit=limit,
        num_fewshot=num_fewshot,
        version=harness_version(),
    )


def _opened(name: str | Path, trust_remote_code: bool) -> tuple[Checkpoint, Vocabulary]:
    """Open a checkpoint as `load_model` does, and refuse what the harness would measure wrongly."""
    checkpoint = Checkpoint.open(name, trust_remote_code=trust_remote_code)
    kind = checkpoint.layout.kind
    if kind != CAUSAL:
        raise EvaluationError(
            f"{name} is {KIND_WORDS[kind]}, and tasks are measured on causal language models "
            "alone; leave out --tasks"
        )
    vocabulary = load_vocabulary(name)
    if vocabulary.start_id is None:
        raise EvaluationError(
            f"the tokenizer of {name} has neither a BOS nor an EOS token, and "
            "lm-evaluation-harness reads no text without one; leave out --tasks"
        )
    if any("dropout" in note for note in vocabulary.notes):
        raise EvaluationError(
            f"{name} stores a BPE dropout, and lm-evaluation-harness leaves it on, so that no "
            "figure could be had twice; set it to null in tokenizer.json"
        )
    return checkpoint, vocabulary


def _parted(tasks: Sequence[str], folder: str | Path | None) -> tuple[list[str], Path | None]:
    """Tell names of tasks from the folder that holds their files."""
    folders = [] if folder is None else [str(folder)]
    names = []
    for word in tasks:
        path = Path(word).expanduser()
        if path.is_file():
            raise UsageError(
                f"{word} is a file; give its folder with --tasks-folder, and the task's name"
            )
        if path.is_dir():
            folders.append(word)
        elif {"/", "\\"} & set(word):
            raise UsageError(f"there is no folder of tasks {word}; check the path")
        else:
            names.append(word)
    paths = dict.fromkeys(Path(one).expanduser().absolute() for one in folders)
    for one in paths:
        if not one.is_dir():
            raise UsageError(f"there is no folder of tasks {one}; check the path")
    if len(paths) > 1:
        raise UsageError(
            f"{len(paths)} folders of tasks are named, and lm-evaluation-harness takes one; "
            "measure them one after another"
        )
    if not names and not paths:
        raise UsageError("no task is named; give names or a folder of tasks")
    # A folder in the place of a name stands for all that it holds.
    if names and len(folders) > (folder is not None):
        raise UsageError(
            "a folder of tasks and names are given together; give the folder with --tasks-folder"
        )
    return names, next(iter(paths), None)
