"""Measure patched rows in memory, the source always beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tokensurgeon.errors import UsageError
from tokensurgeon.evaluation import Entry, Evaluation, evaluate
from tokensurgeon.recipe import TrainSpec
from tokensurgeon.surgery.prepare import Operation
from tokensurgeon.surgery.rows import PatchedRows
from tokensurgeon.training import read_documents

if TYPE_CHECKING:
    from tokensurgeon.checkpoint import LanguageModel


def evaluation_texts(operation: Operation) -> list[str]:
    """Read the evaluation documents of the recipe.

    Raises
    ------
    UsageError
        If a document is also in the calibration text, or in the text that the vocabulary is
        trained on: the figure would be flattered.
    """
    recipe = operation.recipe
    texts = [document.text for document in read_documents(recipe.text.evaluation)]
    others = {"calibration": set(operation.calibration_texts)}
    if isinstance(recipe.tokenizer, TrainSpec):
        corpus = read_documents(recipe.tokenizer.corpus)
        others["vocabulary's training"] = {document.text for document in corpus}
    for name, other in others.items():
        both = len(other.intersection(texts))
        if both:
            raise UsageError(
                f"{both} documents are in the {name} text and in the evaluation text: "
                "give texts that share none"
            )
    return texts


def patched_model(operation: Operation, rows: PatchedRows) -> LanguageModel:
    """Return the source's body with the patched rows."""
    output = rows.input.rows if rows.tied else rows.output.rows
    return operation.model.patched(rows.input.rows, output, rows.output_bias)


def measure(
    operation: Operation, patched: Sequence[tuple[str, PatchedRows]], texts: Sequence[str]
) -> Evaluation:
    """Evaluate the source and each of the patched models on the same chunks."""
    alignment = operation.alignment
    entries = [Entry("source", operation.model, alignment.source)]
    for name, rows in patched:
        entries.append(
            Entry(name, patched_model(operation, rows), alignment.target, alignment=alignment)
        )
    with operation.stage("evaluate"):
        return evaluate(
            entries,
            texts,
            max_bytes=operation.recipe.text.max_bytes,
            seed=operation.recipe.seed,
            progress=operation.progress,
        )
