"""What a surgery did: as data (`SurgeryReport`), as a Markdown card, on a terminal, as a page."""

from __future__ import annotations

from tokensurgeon.report.card import model_card
from tokensurgeon.report.surgery_page import surgery_page, write_surgery_page
from tokensurgeon.report.surgery_report import (
    BodyFacts,
    ChoiceFact,
    DonorFacts,
    HeavyFact,
    ModelFacts,
    OverPredictedFact,
    RowAudit,
    RowCounts,
    SideReport,
    StepFact,
    SurgeryReport,
    TokenFact,
    TokenizerDecision,
    TokenizerFacts,
    UntieFacts,
    versions,
)

__all__ = [
    "BodyFacts",
    "ChoiceFact",
    "StepFact",
    "DonorFacts",
    "HeavyFact",
    "ModelFacts",
    "OverPredictedFact",
    "RowAudit",
    "RowCounts",
    "SideReport",
    "SurgeryReport",
    "TokenFact",
    "TokenizerDecision",
    "TokenizerFacts",
    "UntieFacts",
    "model_card",
    "surgery_page",
    "versions",
    "write_surgery_page",
]
