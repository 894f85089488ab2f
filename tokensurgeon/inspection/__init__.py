"""What a tokenizer does to text, and what it and its model's rows reveal about their training."""

from __future__ import annotations

from tokensurgeon.inspection.inspect import Inspected, Inspection, inspect_tokenizer, read_sources
from tokensurgeon.inspection.mixture_inference import Mixture, infer_mixture
from tokensurgeon.inspection.reach import Reach, find_unreachable, no_longer_reached
from tokensurgeon.inspection.reload import Reload, check_reload
from tokensurgeon.inspection.spans import Excerpt, Span, spans_of, visible
from tokensurgeon.inspection.undertrained import UnderTrained, find_undertrained, judge_rows
from tokensurgeon.trainers.measures.figures import Figures, measure_vocabulary
from tokensurgeon.trainers.measures.sources import Source

__all__ = [
    "Excerpt",
    "Figures",
    "Inspected",
    "Inspection",
    "Mixture",
    "Reach",
    "Reload",
    "Source",
    "Span",
    "UnderTrained",
    "check_reload",
    "find_undertrained",
    "find_unreachable",
    "infer_mixture",
    "inspect_tokenizer",
    "judge_rows",
    "measure_vocabulary",
    "no_longer_reached",
    "read_sources",
    "spans_of",
    "visible",
]
