"""What a model costs in bits per byte, beside its source and the plain baselines."""

from tokensurgeon.evaluation.breakdown import Part, token_kind
from tokensurgeon.evaluation.draft import DraftResult, evaluate_draft
from tokensurgeon.evaluation.evaluate import evaluate, evaluate_checkpoint
from tokensurgeon.evaluation.excess import Excess, excess_parts, loss_on_spans
from tokensurgeon.evaluation.generation import Generation, measure_generation
from tokensurgeon.evaluation.metrics import (
    Interval,
    bits_per_byte,
    bootstrap_ratio,
    bytes_per_token,
    perplexity,
)
from tokensurgeon.evaluation.protocol import Entry, EvaluationProtocol
from tokensurgeon.evaluation.scoring import (
    Scorer,
    Scores,
    left_out_bytes,
    score,
)
from tokensurgeon.evaluation.table import EntryResult, Evaluation

__all__ = [
    "DraftResult",
    "Entry",
    "EntryResult",
    "Evaluation",
    "EvaluationProtocol",
    "Excess",
    "Generation",
    "Interval",
    "Part",
    "Scorer",
    "Scores",
    "bits_per_byte",
    "bootstrap_ratio",
    "bytes_per_token",
    "evaluate",
    "evaluate_checkpoint",
    "evaluate_draft",
    "excess_parts",
    "token_kind",
    "left_out_bytes",
    "loss_on_spans",
    "measure_generation",
    "perplexity",
    "score",
]
