"""Tasks of lm-evaluation-harness: run on a checkpoint and its source, and made of any text."""

from tokensurgeon.evaluation.tasks.evaluate_tasks import evaluate_tasks
from tokensurgeon.evaluation.tasks.harness_command import STANDARD_TASKS, report_commands
from tokensurgeon.evaluation.tasks.make_tasks import make_tasks
from tokensurgeon.evaluation.tasks.task_table import TaskFigure, TaskTable, Uncertain

__all__ = [
    "STANDARD_TASKS",
    "TaskFigure",
    "TaskTable",
    "Uncertain",
    "evaluate_tasks",
    "make_tasks",
    "report_commands",
]
