"""Probes that tell where a surgery hurts: short fixed tests of a model, beside its source."""

from tokensurgeon.evaluation.probes.estimates import Answers, Figure, wilson
from tokensurgeon.evaluation.probes.probe_text import ProbeText
from tokensurgeon.evaluation.probes.run_probes import (
    DEFAULT_ITEMS,
    PROBES,
    ProbeTable,
    probe,
    probe_checkpoint,
)
from tokensurgeon.evaluation.probes.subject import Subject, Written
from tokensurgeon.evaluation.probes.written_text import Sample

__all__ = [
    "DEFAULT_ITEMS",
    "PROBES",
    "Answers",
    "Figure",
    "ProbeTable",
    "ProbeText",
    "Sample",
    "Subject",
    "Written",
    "probe",
    "probe_checkpoint",
    "wilson",
]
