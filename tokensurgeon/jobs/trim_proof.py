"""Run a trimmed model beside its source: on kept text, where nothing may change, and on other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tokensurgeon.checkpoint.embeddings import HEADLESS, MASKED
from tokensurgeon.errors import CheckpointError, EvaluationError
from tokensurgeon.evaluation import Entry, evaluate
from tokensurgeon.evaluation.trimmed import (
    TokenSequence,
    encoding_changes,
    most_tokens,
    prove,
    whole_sequences,
)
from tokensurgeon.jobs.wanted import Wanted
from tokensurgeon.models import LanguageModel
from tokensurgeon.models.reload import FLOAT32_TOLERANCE, HALF_TOLERANCE
from tokensurgeon.report.trim_facts import BeforeAfter, OtherText, ProofFacts
from tokensurgeon.surgery.measure import patched_model
from tokensurgeon.surgery.rows import PatchedRows
from tokensurgeon.surgery.session import Session
from tokensurgeon.text.chunks import chunk_documents
from tokensurgeon.text.corpus import read_corpus, read_to_measure
from tokensurgeon.text.encoding import prefix_of
from tokensurgeon.text.seen import refuse_seen
from tokensurgeon.vocabulary import Kind

PROOF_TOKENS, PROOF_SECONDS = 4096, 120.0
"""Tokens run through both models, and the time after which no further sequence is begun."""
SAMPLE_BYTES, SAMPLE_CHUNK = 2_000_000, 512
"""Text that the sequences of the proof are drawn from, and the longest of its chunks."""
DRAWN, DRAWN_LENGTH = 32, 16
"""Sequences of kept tokens, and tokens in each, that are run where no text is given."""
MASKED_BYTES = 10_000
"""Most of each other text that an encoder is scored on: each token takes a pass of its own."""
OTHER_BYTES = 20_000_000
"""Most of each other text that is encoded before and after."""
KEPT_TOKENS = "the kept tokens, each as a text"
"""The text that is always there where scripts say what is kept."""


def prove_kept(session: Session, rows: PatchedRows, wanted: Wanted, field: str) -> dict[str, Any]:
    """Return the fields `proof` and `not_proven` of a `TrimFacts`.

    Raises
    ------
    CheckpointError
        If the trimmed model computes anything else than the source.
    """
    if not session.runs_here:
        why = "the source is larger than the memory that is free: compare both elsewhere"
        return {"not_proven": why}
    source, trimmed = session.model, patched_model(session, rows)
    copied = session.alignment.source_ids
    sequences = _sequences(session, source, wanted, field)
    if not sequences:
        why = "no part of the text has kept tokens alone: give a larger size, or more text"
        return {"not_proven": why}
    proof = prove(
        source,
        trimmed,
        copied,
        sequences,
        most=PROOF_TOKENS,
        seconds=PROOF_SECONDS,
        progress=session.progress,
    )
    tolerance = FLOAT32_TOLERANCE if source.dtype == "float32" else HALF_TOLERANCE
    if not proof.max_difference <= tolerance * max(1.0, proof.largest):
        raise CheckpointError(
            f"the trimmed model computes other {proof.compared} than the source, by "
            f"{proof.max_difference:.3g} on {proof.n_tokens:,} tokens: this family reads its "
            "vocabulary in a way that is not understood; leave it as it is"
        )
    return {"proof": ProofFacts(**asdict(proof))}


def _sequences(
    session: Session, model: LanguageModel, wanted: Wanted, field: str
) -> list[TokenSequence]:
    """Return what the proof is run on, in an order that the seed decides; kept tokens alone."""
    alignment, longest = session.alignment, most_tokens(model)
    kept = set(alignment.source_ids.tolist())
    order = np.random.default_rng(session.recipe.seed)
    if not wanted.text:
        of_text = np.isin(alignment.target.kinds, (Kind.ORDINARY, Kind.BYTE))
        drawn = alignment.source_ids[of_text & (alignment.source_ids >= 0)]
        start = prefix_of(alignment.source)
        n = max(1, min(DRAWN_LENGTH, longest - len(start)))
        ids = order.choice(drawn, (DRAWN, n)).tolist()
        return [TokenSequence((*start, *own), 0) for own in ids]
    texts = read_corpus(wanted.text, field=field, max_bytes=SAMPLE_BYTES).texts
    chunks = chunk_documents(texts, max_bytes_per_chunk=SAMPLE_CHUNK)
    chosen = [chunks[i] for i in order.permutation(len(chunks))[:PROOF_TOKENS].tolist()]
    found = whole_sequences(alignment.source, chosen, model.kind, longest)
    return [one for one in found if len(one.ids) > 1 and kept.issuperset(one.ids)]


@dataclass(frozen=True)
class OtherReader:
    """How other texts are read: the key of the text, bytes to score, and whether seen ones are."""

    field: str
    max_bytes: int
    allow_seen: bool

    def measure(
        self, session: Session, rows: PatchedRows, names: Sequence[str], *, by_scripts: bool
    ) -> tuple[OtherText, ...]:
        """Return what changes on each text; with `by_scripts` also on the kept tokens as texts.

        Raises
        ------
        UsageError
            If a text has lines that are in the kept text, unless that is allowed.
        """
        found = [self._kept_tokens(session)] if by_scripts else []
        for name in names:
            texts = list(read_corpus([name], field=self.field, max_bytes=OTHER_BYTES).texts)
            refuse_seen(session.alignment.target.folder, texts, self.allow_seen)
            scored = read_to_measure([name], field=self.field, max_bytes=self.max_bytes).texts
            facts = _changes(session, name, texts)
            found.append(facts.model_copy(update=self._scores(session, rows, scored)))
        return tuple(found)

    def _kept_tokens(self, session: Session) -> OtherText:
        target = session.alignment.target
        texts = []
        for kind, data in zip(target.kinds.tolist(), target.token_bytes, strict=True):
            try:
                text = (data or b"").decode("utf-8")
            except UnicodeDecodeError:  # of a tokenizer over bytes: part of a character
                continue
            if kind == Kind.ORDINARY and text:
                texts.append(text)
        why = "single tokens are no text"
        return _changes(session, KEPT_TOKENS, texts).model_copy(update={"not_scored": why})

    def _scores(self, session: Session, rows: PatchedRows, texts: Sequence[str]) -> dict[str, Any]:
        """Return bits per byte before and after, or why there are none."""
        kind = session.inputs.checkpoint.layout.kind
        if kind == HEADLESS:
            return {"not_scored": "a model without output rows has no loss on a text"}
        if not session.runs_here:
            return {"not_scored": "the source is larger than the memory that is free"}
        alignment = session.alignment
        models = [session.model, patched_model(session, rows)]
        most = min(self.max_bytes, MASKED_BYTES) if kind == MASKED else self.max_bytes
        try:
            table = evaluate(
                [
                    Entry("source", models[0], alignment.source),
                    Entry("trimmed", models[1], alignment.target, alignment=alignment),
                ],
                texts,
                max_bytes=most,
                seed=session.recipe.seed,
                progress=session.progress,
            )
        except EvaluationError as error:
            return {"not_scored": str(error)}
        before, after = table.entries
        gap = after.difference
        if gap is None or before.bits_per_byte is None or after.bits_per_byte is None:
            return {"not_scored": "the tokenizer loses text, so its loss is not comparable"}
        return {
            "bits": BeforeAfter(before=before.bits_per_byte, after=after.bits_per_byte),
            "rise": (gap.estimate, gap.low, gap.high),
            "scored_bytes": before.n_bytes,
        }


def _changes(session: Session, name: str, texts: Sequence[str]) -> OtherText:
    alignment = session.alignment
    changes = encoding_changes(alignment.source, alignment.target, alignment.source_ids, texts)
    return OtherText(
        name=name,
        n_bytes=changes.n_bytes,
        documents=changes.n_documents,
        documents_changed=changes.documents_changed,
        lines=changes.n_lines,
        lines_changed=changes.lines_changed,
        tokens_before=changes.tokens_before,
        tokens_after=changes.tokens_after,
        tokens_dropped=changes.tokens_dropped,
    )
