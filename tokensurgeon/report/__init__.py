"""What a surgery did: as data (`SurgeryReport`), as a Markdown card, as a table on a terminal."""

from __future__ import annotations

from tokensurgeon.report.audit import heavy_rows, loud_rows, weight_norms
from tokensurgeon.report.card import model_card
from tokensurgeon.report.model import (
    ChoiceFact,
    DonorFacts,
    HeavyFact,
    LoudFact,
    ModelFacts,
    RowAudit,
    RowCounts,
    SideReport,
    StageFact,
    SurgeryReport,
    TokenFact,
    TokenizerFacts,
    UntieFacts,
    audit_rows,
    percentiles,
    versions,
)

__all__ = [
    "ChoiceFact",
    "DonorFacts",
    "HeavyFact",
    "LoudFact",
    "ModelFacts",
    "RowAudit",
    "RowCounts",
    "SideReport",
    "StageFact",
    "SurgeryReport",
    "TokenFact",
    "TokenizerFacts",
    "UntieFacts",
    "audit_rows",
    "heavy_rows",
    "loud_rows",
    "model_card",
    "percentiles",
    "versions",
    "weight_norms",
]
