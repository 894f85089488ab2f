"""What a model costs in bits per byte, beside its source and the plain baselines."""

from tokensurgeon.evaluation.breakdown import Part, token_kind
from tokensurgeon.evaluation.draft import evaluate_draft
from tokensurgeon.evaluation.draft_figures import DraftResult
from tokensurgeon.evaluation.evaluate import (
    evaluate,
    evaluate_checkpoint,
    evaluate_checkpoints,
)
from tokensurgeon.evaluation.excess import loss_on_spans
from tokensurgeon.evaluation.generation import measure_generation
from tokensurgeon.evaluation.measured_source import MeasuredSource
from tokensurgeon.evaluation.metrics import bits_per_byte, bootstrap_ratio, perplexity
from tokensurgeon.evaluation.protocol import Entry, EvaluationProtocol
from tokensurgeon.evaluation.scoring import Scores, left_out_bytes, score
from tokensurgeon.evaluation.span_relations import RELATIONS, SpanPart
from tokensurgeon.evaluation.table import EntryResult, Evaluation
from tokensurgeon.evaluation.tasks import TaskTable, evaluate_tasks, make_tasks

__all__ = [
    "RELATIONS",
    "DraftResult",
    "Entry",
    "EntryResult",
    "Evaluation",
    "EvaluationProtocol",
    "MeasuredSource",
    "Part",
    "Scores",
    "SpanPart",
    "TaskTable",
    "bits_per_byte",
    "bootstrap_ratio",
    "evaluate",
    "evaluate_checkpoint",
    "evaluate_checkpoints",
    "evaluate_draft",
    "evaluate_tasks",
    "left_out_bytes",
    "loss_on_spans",
    "make_tasks",
    "measure_generation",
    "perplexity",
    "score",
    "token_kind",
]
