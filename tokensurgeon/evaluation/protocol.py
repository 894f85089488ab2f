"""One text, cut once, for models that are scored one after another.

What is scored is fixed from the tokenizers and the models' lengths alone, so a table may be filled
one model at a time, over several runs, and only one model need be in memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tokensurgeon.alignment import Alignment
from tokensurgeon.arrays import Float64, Ids, Mask
from tokensurgeon.checkpoint.embeddings import CAUSAL, MASKED
from tokensurgeon.errors import EvaluationError
from tokensurgeon.evaluation.breakdown import kind_label, match_label, split_by
from tokensurgeon.evaluation.by_group import group_results
from tokensurgeon.evaluation.excess import excess_parts
from tokensurgeon.evaluation.metrics import (
    bits_per_byte,
    bootstrap_ratio,
    bytes_per_token,
    perplexity,
    totals,
)
from tokensurgeon.evaluation.model_kinds import frame_of
from tokensurgeon.evaluation.numbers import number_loss
from tokensurgeon.evaluation.scoring import Scorer, Scores, left_out_bytes, score
from tokensurgeon.evaluation.span_relations import span_parts
from tokensurgeon.evaluation.table import EntryResult, Evaluation
from tokensurgeon.evaluation.token_costs import new_tokens_of
from tokensurgeon.progress import Progress, no_progress
from tokensurgeon.text.chunks import CHUNK_SIZES, SMALLEST_CHUNK_BYTES, Chunk, chunk_documents
from tokensurgeon.text.encoding import Encoded, encode_chunks
from tokensurgeon.vocabulary import Vocabulary

DEFAULT_MAX_BYTES = 500_000
"""Of text: enough documents for a bootstrap, and minutes rather than hours for a small model."""
TOO_LONG_SHARE = 0.01
"""Most bytes that may be left out because their chunk has too many tokens for a model."""
MASKED_BYTES = 256
"""Longest chunk for encoders: each of its tokens takes a pass over the whole of it."""


@dataclass(frozen=True)
class Entry:
    """One row of the table.

    Attributes
    ----------
    name : str
    model : Scorer
        A model in memory; `tokensurgeon.models.LanguageModel` is one.
    vocabulary : Vocabulary
        The model's own.
    alignment : Alignment or None
        From the source's vocabulary to this one; gives the split by shared and missing tokens.
    """

    name: str
    model: Scorer
    vocabulary: Vocabulary
    alignment: Alignment | None = None


@dataclass(frozen=True)
class EvaluationProtocol:
    """Chunks and their tokens under every tokenizer of a table.

    Attributes
    ----------
    chunks : list of Chunk
    encoded : dict of int to Encoded
        By ``id`` of the vocabulary.
    fits : bool (n_chunks,)
        Which chunks every model can take; the others are left out for all.
    skip : int64 (n_chunks,)
        First bytes of each chunk that are scored for nobody.
    chunk_bytes, max_bytes : int, int or None
    seed : int
        Of the bootstrap.
    kind : str
        Of all the models.
    groups : tuple of str
        Of each document, where figures are wanted for groups of them; empty where none are.
    """

    chunks: list[Chunk]
    encoded: dict[int, Encoded]
    fits: Mask
    skip: Ids
    chunk_bytes: int
    max_bytes: int | None
    seed: int
    kind: str = CAUSAL
    groups: tuple[str, ...] = ()

    @classmethod
    def fix(
        cls,
        tokenizers: Sequence[tuple[Vocabulary, int | None]],
        texts: Sequence[str],
        *,
        max_bytes: int | None = DEFAULT_MAX_BYTES,
        chunk_bytes: int | None = None,
        seed: int = 0,
        kind: str = CAUSAL,
        groups: Sequence[str] = (),
    ) -> EvaluationProtocol:
        """Cut a text for models that have these vocabularies and longest sequences.

        `groups` has the group of each text, where figures are wanted for groups.

        Raises
        ------
        EvaluationError
            If there is no text, or no chunk that fits all models.
        """
        if chunk_bytes is not None and chunk_bytes < SMALLEST_CHUNK_BYTES:
            raise EvaluationError(
                f"chunks of {chunk_bytes} bytes are too short; take {SMALLEST_CHUNK_BYTES} or more"
            )
        # Entries often share a vocabulary: a target's rows by several methods, say.
        own = {id(vocabulary): vocabulary for vocabulary, _ in tokenizers}
        longest = MASKED_BYTES if kind == MASKED else CHUNK_SIZES[0]
        sizes = [size for size in CHUNK_SIZES if size <= longest]
        for size in sizes if chunk_bytes is None else (chunk_bytes,):
            chunks = chunk_documents(texts, max_bytes_per_chunk=size, max_bytes_total=max_bytes)
            encoded = {key: encode_chunks(v, chunks, frame_of(v, kind)) for key, v in own.items()}
            fits = np.ones(len(chunks), dtype=np.bool_)
            for vocabulary, max_positions in tokenizers:
                tokens = encoded[id(vocabulary)]
                # What is not comparable is not scored, so it need not fit.
                fits &= tokens.fits(max_positions) | ~tokens.lossless
            n_bytes = np.array([chunk.n_bytes for chunk in chunks])
            if n_bytes[~fits].sum() <= TOO_LONG_SHARE * n_bytes.sum():
                break
        if not fits.any():
            why = (
                "a model has too few positions; give other text"
                if chunk_bytes is None
                else "take shorter chunks"
            )
            raise EvaluationError(
                f"none of {len(chunks):,} chunks of {size} bytes fits all models; {why}"
            )
        skip = left_out_bytes(list(encoded.values()), chunks, kind)
        return cls(chunks, encoded, fits, skip, size, max_bytes, seed, kind, tuple(groups))

    def score(self, entry: Entry, progress: Progress = no_progress) -> Scores:
        """Run one model over the chunks; its vocabulary is one of those given to `fix`."""
        return score(
            entry.model,
            entry.vocabulary,
            self.chunks,
            encoded=self.encoded[id(entry.vocabulary)],
            keep=self.fits,
            skip=self.skip,
            name=entry.name,
            progress=progress,
        )

    def result(
        self,
        entry: Entry,
        own: Scores,
        first: Scores | None = None,
        on_states: Sequence[Float64] | None = None,
    ) -> EntryResult:
        """Return the figures of one model, with its gap to `first` if that is given.

        `on_states` are losses on the first's states, as in `span_parts`.
        """
        nll, n_bytes, n_tokens = totals(own)
        known = n_bytes > 0 and n_tokens > 0
        token_perplexity = perplexity(nll, n_tokens) if known else None
        difference = ratio = excess = by_span = saved = new_tokens = None
        if first is not None and known and (own.comparable & first.comparable).any():
            difference = bootstrap_ratio(own, first, self.seed)
            both = own.comparable & first.comparable
            mine, theirs = totals(own, both), totals(first, both)
            ratio = perplexity(mine[0], mine[2]) / perplexity(theirs[0], theirs[2])
            excess = excess_parts(own, first, entry.vocabulary, entry.alignment)
            by_span = span_parts(own, first, on_states)
            saved = 1 - mine[2] / theirs[2] if theirs[2] else None
            if entry.alignment is not None:
                new_tokens = new_tokens_of(own, first, entry.vocabulary, entry.alignment)
        return EntryResult(
            name=entry.name,
            bits_per_byte=bits_per_byte(nll, n_bytes) if known else None,
            perplexity=_finite(token_perplexity),
            byte_perplexity=_finite(perplexity(nll, n_bytes)) if known else None,
            perplexity_ratio=_finite(ratio),
            bytes_per_token=bytes_per_token(n_bytes, n_tokens) if known else None,
            n_bytes=n_bytes,
            n_tokens=n_tokens,
            n_chunks=int(own.comparable.sum()),
            n_lost=int((own.lost & self.fits).sum()),
            difference=difference,
            by_match=split_by(own, entry.vocabulary, match_label(entry.alignment))
            if entry.alignment
            else None,
            by_kind=split_by(own, entry.vocabulary, kind_label(entry.vocabulary)),
            excess=excess,
            numbers=number_loss(own, self.chunks),
            by_span=by_span,
            tokens_saved=saved,
            new_tokens=new_tokens,
            by_group=group_results(own, first, self.groups, self.seed) if self.groups else None,
        )

    def table(self, results: Sequence[EntryResult]) -> Evaluation:
        """Return the evaluation of these results, the source's first.

        Raises
        ------
        EvaluationError
            If the first could score nothing.
        """
        if results[0].bits_per_byte is None:
            raise EvaluationError(
                f"the tokenizer of {results[0].name} loses text on all {len(self.chunks):,} "
                "chunks; nothing is comparable with it: give text it can spell"
            )
        return Evaluation(
            entries=tuple(results),
            n_documents=len({chunk.document for chunk in self.chunks}),
            n_chunks=len(self.chunks),
            n_bytes=sum(chunk.n_bytes for chunk in self.chunks),
            n_too_long=int((~self.fits).sum()),
            n_left_out_bytes=int(self.skip.sum()),
            chunk_bytes=self.chunk_bytes,
            max_bytes=self.max_bytes,
            sha256=self.sha256,
            seed=self.seed,
            kind=self.kind,
        )

    @property
    def sha256(self) -> str:
        """Hash of the chunks' text, hexadecimal."""
        texts = b"".join(chunk.text.encode("utf-8") + b"\xff" for chunk in self.chunks)
        return hashlib.sha256(texts).hexdigest()


def _finite(value: float | None) -> float | None:
    """Return the value, or None where JSON could not hold it."""
    return value if value is not None and np.isfinite(value) else None
