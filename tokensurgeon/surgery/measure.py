"""Measure patched rows in memory, the source always beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tokensurgeon.checkpoint.embeddings import CAUSAL
from tokensurgeon.errors import UsageError
from tokensurgeon.evaluation import Entry, Evaluation, evaluate
from tokensurgeon.evaluation.model_kinds import PROTOCOLS
from tokensurgeon.models.other_kinds import EncoderDecoderModel
from tokensurgeon.recipe import TrainSpec
from tokensurgeon.surgery.prepare import Operation
from tokensurgeon.surgery.rows import PatchedRows
from tokensurgeon.surgery.token_map import id_map
from tokensurgeon.text.corpus import read_documents
from tokensurgeon.text.overlap import N_WORDS, overlapping, refuse_seen
from tokensurgeon.trainers.from_recipe import patterns_of

if TYPE_CHECKING:
    from tokensurgeon.models.language_model import LanguageModel


def evaluation_texts(operation: Operation) -> list[str]:
    """Read the evaluation documents of the recipe.

    A document that shares 13 words in a row with the calibration text, or with the text that the
    vocabulary is trained on, is left out, and a warning says how many are: the figure would be
    flattered. No more is read through than twice what is measured on.

    Raises
    ------
    UsageError
        If a whole document is in both, or if more than half of them overlap.
    """
    recipe = operation.recipe
    kind = operation.checkpoint.layout.kind
    if kind != CAUSAL:
        operation.warnings.append(PROTOCOLS[kind])
    documents = (document.text for document in read_documents(recipe.text.evaluation))
    texts: list[str] = []
    size = 0
    for text in documents:
        texts.append(text)
        size += len(text.encode())
        if size > 2 * recipe.text.max_bytes:
            break
    others: dict[str, Sequence[str]] = {"calibration": operation.calibration_texts}
    if isinstance(recipe.tokenizer, TrainSpec):
        corpus = read_documents(patterns_of(recipe.tokenizer))
        others["vocabulary's training"] = [document.text for document in corpus]
    refused: set[int] = set()
    if not isinstance(recipe.tokenizer, TrainSpec):
        refuse_seen(operation.alignment.target.folder, texts, recipe.allow_seen_text)
    for name, other in others.items():
        both = len(set(other).intersection(texts))
        if both:
            raise UsageError(
                f"{both} documents are in the {name} text and in the evaluation text: "
                "give texts that share none"
            )
        found = overlapping(texts, other)
        if len(found) * 2 > len(texts):
            raise UsageError(
                f"{len(found)} of {len(texts)} evaluation documents share {N_WORDS} words in a row "
                f"with the {name} text: give texts that share none"
            )
        if found:
            operation.warnings.append(
                f"{len(found)} of {len(texts)} evaluation documents share {N_WORDS} words in a row "
                f"with the {name} text and are left out"
            )
        refused.update(found)
    return [text for i, text in enumerate(texts) if i not in refused]


def patched_model(operation: Operation, rows: PatchedRows) -> LanguageModel:
    """Return the source's body with the patched rows."""
    model = operation.model.patched(rows.input.rows, rows.output.rows, rows.output_bias)
    if isinstance(model, EncoderDecoderModel) and model.decoder_start is not None:
        model.decoder_start = id_map(operation.alignment).get(model.decoder_start)
    return model


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
