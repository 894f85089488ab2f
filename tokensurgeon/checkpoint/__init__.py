"""Checkpoints: which tensors are vocabulary-shaped, shards in and out, config and ids.

Nothing here imports torch or transformers at the top level; functions do when they need them.
"""

from __future__ import annotations

from tokensurgeon.checkpoint.body_update import BodyUpdate
from tokensurgeon.checkpoint.checkpoint import Checkpoint, round_rows
from tokensurgeon.checkpoint.donor import DonorFiles, read_donor_rows
from tokensurgeon.checkpoint.layout import Layout
from tokensurgeon.checkpoint.manifest import verify_manifest
from tokensurgeon.checkpoint.plan import PatchPlan
from tokensurgeon.checkpoint.recheck import Recheck, recheck
from tokensurgeon.checkpoint.tokenizer_record import Decision
from tokensurgeon.checkpoint.write import WriteResult, check_tokenizer, write_checkpoint

__all__ = [
    "BodyUpdate",
    "Checkpoint",
    "Decision",
    "DonorFiles",
    "Layout",
    "PatchPlan",
    "Recheck",
    "WriteResult",
    "check_tokenizer",
    "read_donor_rows",
    "recheck",
    "round_rows",
    "verify_manifest",
    "write_checkpoint",
]
