"""Measure patched rows in memory, the source always beside them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tokensurgeon.arrays import Float32
from tokensurgeon.calibration.text_sizes import BYTES_PER_TOKEN
from tokensurgeon.checkpoint.embeddings import CAUSAL
from tokensurgeon.checkpoint.ids import id_map
from tokensurgeon.errors import UsageError
from tokensurgeon.evaluation import Entry, Evaluation, evaluate
from tokensurgeon.evaluation.model_kinds import PROTOCOLS
from tokensurgeon.inspection.extension import Extension, is_extension, measure_extension
from tokensurgeon.models import LanguageModel
from tokensurgeon.models.other_kinds import EncoderDecoderModel
from tokensurgeon.recipe import InitSpec, TrainSpec
from tokensurgeon.surgery.rows import PatchedRows, patch_rows
from tokensurgeon.surgery.session import Session
from tokensurgeon.text.corpus import read_documents, read_to_measure
from tokensurgeon.text.overlap import N_WORDS, overlapping
from tokensurgeon.text.seen import refuse_seen
from tokensurgeon.trainers.from_recipe import patterns_of

PROBED = 20_000
"""Characters on which the tokens of a byte are counted."""
TIED_METHOD = "subword-mean"
"""The method that serves a tied matrix; what `default_methods` takes there."""
TIED_ENTRY = f"{TIED_METHOD}, tied"
"""What it is called in an evaluation."""


def evaluation_texts(session: Session, use: str = "evaluation") -> list[str]:
    """Read the evaluation documents of the recipe, or those of `elsewhere`.

    A document that shares 13 words in a row with the calibration text, or with the text that the
    vocabulary is trained on, is left out, and a warning says how many are: the figure would be
    flattered. No more is read through than twice what is measured on.

    Raises
    ------
    UsageError
        If a whole document is in both, or if more than half of them overlap.
    """
    recipe = session.recipe
    held = session.inputs.held
    kind = session.inputs.checkpoint.layout.kind
    if kind != CAUSAL and use == "evaluation" and held is None:
        session.warnings.append(PROTOCOLS[kind])
    if held is not None and use == "evaluation":
        texts = held.held_out.texts
    else:
        measured = read_to_measure(
            getattr(recipe.text, use),
            max_bytes=recipe.text.max_bytes,
            allow_invalid=recipe.allow_invalid_text,
        )
        session.warnings += measured.notes(use)
        texts = measured.texts
    others: dict[str, Sequence[str]] = {"calibration": session.calibration_texts}
    if held is not None:
        others["vocabulary's training"] = held.training.texts
    elif isinstance(recipe.tokenizer, TrainSpec):
        corpus = read_documents(patterns_of(recipe.tokenizer), allow_invalid=True)
        others["vocabulary's training"] = [document.text for document in corpus]
    refused: set[int] = set()
    if not isinstance(recipe.tokenizer, TrainSpec):
        refuse_seen(session.alignment.target.folder, texts, recipe.allow_seen_text)
    chosen = held is None or use != "evaluation"  # by the user, who can choose otherwise
    for name, other in others.items():
        both = len(set(other).intersection(texts))
        if both and chosen:
            raise UsageError(
                f"{both} documents are in the {name} text and in the {use} text: "
                "give texts that share none"
            )
        overlap = overlapping(texts, other)
        share = (
            f"{len(overlap)} of {len(texts)} {use} documents share {N_WORDS} words in a row "
            f"with the {name} text"
        )
        if len(overlap) * 2 > len(texts) and (chosen or len(overlap) == len(texts)):
            raise UsageError(f"{share}: give texts that share none")
        if overlap:
            session.warnings.append(f"{share} and are left out")
        refused.update(overlap)
    return [text for i, text in enumerate(texts) if i not in refused]


def extension_of(session: Session, texts: Sequence[str]) -> Extension | None:
    """Return what the added tokens do to a text; None where the target is no extension."""
    alignment = session.alignment
    if not is_extension(alignment):
        return None
    with session.timings.timed("count tokens"):
        return measure_extension(alignment.source, alignment.target, texts, session.progress)


def patched_model(session: Session, rows: PatchedRows) -> LanguageModel:
    """Return the source with the patched rows, and with its body as they have it."""
    model = session.model.patched(rows.input.rows, rows.output.rows, rows.output_bias, rows.body)
    if isinstance(model, EncoderDecoderModel) and model.decoder_start is not None:
        model.decoder_start = id_map(session.alignment).get(model.decoder_start)
    return model


def with_baselines(session: Session, rows: PatchedRows) -> list[tuple[str, PatchedRows]]:
    """Return the patched rows and what is measured beside them, by name.

    The plain baselines of the recipe that are not the chosen method itself, and, where a tied
    source is untied, the rows that the plain method makes where it stays tied.
    """
    init = session.recipe.init
    # What was said for whichever method is chosen was not said for these.
    named = {name: settings for name, settings in init.settings.items() if name != "*"}
    plain = init.model_copy(update={"settings": named})
    compared = [("patched", rows)]
    for name in session.recipe.baselines:
        if name == rows.input.method == rows.output.method:
            continue
        with session.timings.timed("baselines"):
            compared.append((name, patch_rows(session, (name, name), plain)))
    if session.inputs.untied:
        tied = session.variant(untie=False)
        compared.append((TIED_ENTRY, patch_rows(tied, (TIED_METHOD, TIED_METHOD), InitSpec())))
    return compared


def has_loss(session: Session) -> bool:
    """Whether the models are measured on the evaluation text.

    What the user did not choose, but was held out, is left where there is no loss to speak of.
    """
    return session.runs_source or not session.recipe.text.hold_out


def tokens_a_byte(session: Session, texts: Sequence[str]) -> float:
    """Return the tokens of a byte of some texts, in the tokenizer that cuts finer."""
    text = "\n".join(texts)[:PROBED]
    if not text:
        return 1 / BYTES_PER_TOKEN
    alignment = session.alignment
    counts = [len(v.encode(text)) for v in (alignment.source, alignment.target)]
    return max(counts) / len(text.encode())


def seconds_to_measure(session: Session, texts: Sequence[str]) -> float:
    """Return what measuring takes: source, result, baselines, the tied twin of an untied.

    All but the source score its states too.
    """
    recipe, inputs = session.recipe, session.inputs
    n_bytes = min(recipe.text.max_bytes, sum(len(text.encode()) for text in texts))
    tokens = n_bytes * tokens_a_byte(session, texts)
    models = 1 + len(recipe.baselines) + inputs.untied
    source = session.pace.seconds(tokens, tokens, inputs.checkpoint.layout.n_rows)
    return source + models * session.pace.seconds(tokens, 2 * tokens, inputs.n_rows)


def measure(
    session: Session,
    patched: Sequence[tuple[str, PatchedRows]],
    texts: Sequence[str],
    generate: int = 0,
) -> Evaluation:
    """Evaluate the source and each of the patched models on the same chunks.

    The source and the first of them write `generate` samples besides.

    Rows that are equal are measured once, as those of a mean of pieces are, tied or not.
    """
    alignment = session.alignment
    entries = [Entry("source", session.model, alignment.source)]
    models: list[tuple[PatchedRows, LanguageModel]] = []
    for name, rows in patched:
        model = next((model for other, model in models if _equal(rows, other)), None)
        if model is None:
            model = patched_model(session, rows)
        models.append((rows, model))
        entries.append(Entry(name, model, alignment.target, alignment=alignment))
    with session.timings.timed("evaluate"):
        return evaluate(
            entries,
            texts,
            max_bytes=session.recipe.text.max_bytes,
            seed=session.recipe.seed,
            generate=generate,
            generators=2,
            progress=session.progress,
        )


def _equal(one: PatchedRows, two: PatchedRows) -> bool:
    """Whether two patches make the same model."""

    def same(rows: Float32 | None, others: Float32 | None) -> bool:
        if rows is None or others is None:
            return rows is others
        return np.array_equal(rows, others)

    return (
        one.body is two.body
        and same(one.input.rows, two.input.rows)
        and same(one.output.rows, two.output.rows)
        and same(one.output_bias, two.output_bias)
    )
