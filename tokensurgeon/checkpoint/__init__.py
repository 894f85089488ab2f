"""Checkpoints: which tensors are vocabulary-shaped, shards in and out, config and ids.

Nothing here imports torch or transformers at the top level; functions do when they need them.
"""

from __future__ import annotations

from tokensurgeon.checkpoint.checkpoint import Checkpoint, round_rows
from tokensurgeon.checkpoint.donor import DonorFiles, read_donor_rows
from tokensurgeon.checkpoint.layout import Layout
from tokensurgeon.checkpoint.model import LanguageModel, load_model

__all__ = [
    "Checkpoint",
    "DonorFiles",
    "LanguageModel",
    "Layout",
    "load_model",
    "read_donor_rows",
    "round_rows",
]
