"""What a surgery did: as data (`SurgeryReport`), as a Markdown card, as a table on a terminal."""

from __future__ import annotations

from tokensurgeon.report.card import model_card
from tokensurgeon.report.model import (
    DonorFacts,
    ModelFacts,
    RowAudit,
    RowCounts,
    SideReport,
    SurgeryReport,
    TokenFact,
    TokenizerFacts,
    UntieFacts,
    audit_rows,
    versions,
)

__all__ = [
    "DonorFacts",
    "ModelFacts",
    "RowAudit",
    "RowCounts",
    "SideReport",
    "SurgeryReport",
    "TokenFact",
    "TokenizerFacts",
    "UntieFacts",
    "audit_rows",
    "model_card",
    "versions",
]
