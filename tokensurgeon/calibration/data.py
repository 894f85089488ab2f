"""What every stage of a calibration works on: a source, texts, positions, states and scores.

What is dear is computed once: the source's states, the patched model's final states for as long as
the input rows stay, and how the chunks are encoded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from tokensurgeon.arrays import Float32, Float64, Ids
from tokensurgeon.calibration.byte_positions import BytePositions, positions_of
from tokensurgeon.calibration.calibration_texts import CalibrationTexts
from tokensurgeon.calibration.matrices import Matrices
from tokensurgeon.calibration.occurrences import Occurrences, find_occurrences, source_logprob
from tokensurgeon.calibration.paired_figures import BitsPerByte
from tokensurgeon.calibration.teacher.implied import Implied
from tokensurgeon.calibration.teacher.lessons import Teacher
from tokensurgeon.calibration.text_sizes import (
    LESSONS,
    MOST_CONTEXT_TOKENS,
)
from tokensurgeon.calibration.written_texts import WritingTime, generate_texts
from tokensurgeon.errors import EvaluationError
from tokensurgeon.evaluation.breakdown import token_kind
from tokensurgeon.evaluation.scoring import score
from tokensurgeon.initialisers.contract import InitContext
from tokensurgeon.models import LanguageModel, OutputHead
from tokensurgeon.models.faster import faster
from tokensurgeon.models.final_states import FinalStates
from tokensurgeon.models.pace import NO_TIME, Pace
from tokensurgeon.progress import Clock
from tokensurgeon.text.chunks import Chunk
from tokensurgeon.text.encoding import encode_chunks
from tokensurgeon.vocabulary import Vocabulary
from tokensurgeon.vocabulary.spellings import Spellings

MEAN_OVER = 2_000
"""States over which the source's mean prediction is taken: it is to say which of its tokens are
used, and the counts in the documents say that of the frequent ones."""
STILL = frozenset({"newlines", "punctuation"})
"""Kinds of shared tokens whose rows stay as they are: how often a line ends, or a clause, is a
matter of the kind of text, and the source knows that better than the text at hand. SmolLM2-135M
onto gpt2's tokens, tied, 27,000 tokens of `distil` from `ridge-composer`; bits per byte above the
source:

                                      articles  Shakespeare  Python
    before                            +0.248    +0.075       +0.540
    all rows move                     +0.194    +0.082       +0.394
    these put back afterwards         +0.195    +0.078       +0.401
    these still                       +0.196    +0.078       +0.400
    line ends put back afterwards     +0.194    +0.079       +0.397

The whole calibration, and these still in `refit` too: +0.175, +0.079 and +0.421; +0.175, +0.077 and
+0.415.
"""
LESSONS_SEED = 1_000_003
"""Added to the seed, for what is learned from is not to be the text that judges it."""


@dataclass(frozen=True)
class TextSizes:
    """Tokens of the texts of a calibration, for what a stage will cost.

    Attributes
    ----------
    fit, more, selection, other : int
        Tokens of the tokenizer that cuts finer.
    contexts : int
        Most tokens that are run to read new tokens in sampled contexts.
    n_rows : int
        Of the target's output matrix.
    writing : float
        Seconds in which the source writes lessons; 0 where it writes none or they are there.
    """

    fit: int
    more: int = 0
    selection: int = 0
    other: int = 0
    contexts: int = MOST_CONTEXT_TOKENS
    n_rows: int = 0
    writing: float = 0.0


@dataclass
class CalibrationData:
    """A source model, the target vocabulary and the texts between them.

    Attributes
    ----------
    model : LanguageModel
        The source.
    context : InitContext
        Vocabularies, alignment, pieces and the source's rows.
    texts : CalibrationTexts
    new : int64
        Target ids whose rows an initialiser made: what most stages may change.
    shared : int64
        Target ids whose rows were copied from the source.
    context_tokens : int
        Most tokens that are run to read new tokens in sampled contexts.
    forward_tokens, gradient_steps : int
        Tokens run through the body, and steps of training, so far.
    pace : Pace
        Of the model.
    body_weights : frozenset of str
        Names of the body's linear weights that a stage may change; none unless that was asked for.
    lesson_time : WritingTime or None
        For `lessons`; None where there are to be none.
    clock, end : Clock
        Until when the stage that runs may train, and until when its candidates may be looked at.
    """

    model: LanguageModel
    context: InitContext
    texts: CalibrationTexts
    new: Ids
    shared: Ids
    context_tokens: int = MOST_CONTEXT_TOKENS
    forward_tokens: int = 0
    gradient_steps: int = 0
    pace: Pace = NO_TIME
    body_weights: frozenset[str] = frozenset()
    lesson_time: WritingTime | None = None
    clock: Clock = field(default_factory=Clock)
    end: Clock = field(default_factory=Clock)
    _layers: dict[int, Float32] = field(default_factory=dict, init=False, repr=False)
    _positions: dict[int, tuple[tuple[Chunk, ...], BytePositions]] = field(
        default_factory=dict, init=False, repr=False
    )

    @property
    def new_and_shared(self) -> Ids:
        """All ids whose rows a stage may change, ascending."""
        return np.union1d(self.new, self.shared)

    @cached_property
    def movable(self) -> Ids:
        """The same without shared tokens of `STILL` kinds, for what all rows learn together."""
        return np.union1d(self.new, self.shared_but(STILL))

    def shared_but(self, kinds: frozenset[str]) -> Ids:
        """Return the shared ids whose tokens are of none of some kinds, ascending."""
        spellings = self.context.target.token_bytes
        some = [i for i in self.shared.tolist() if token_kind(spellings[i]) not in kinds]
        return np.array(sorted(some), dtype=np.int64)

    @cached_property
    def fast(self) -> LanguageModel:
        """The source, in bfloat16 where the processor gains by it: for what is fitted to."""
        return faster(self.model)

    @cached_property
    def lessons(self) -> tuple[str, ...]:
        """Texts of other kinds than the calibration text, for trainings.

        The source writes some of many kinds beside a given text; some of the user's other text
        comes first.
        """
        given = self.texts.taught
        if self.lesson_time is None:
            return given
        texts = generate_texts(
            self.model,
            self.context.source,
            LESSONS,
            self.lesson_time,
            seed=self.context.seed + LESSONS_SEED,
            of_kinds=True,
            progress=self.context.progress,
        )
        return (*given, *texts)

    @cached_property
    def spellings(self) -> Spellings:
        """How the target spells the source's tokens."""
        return Spellings(self.context.source, self.context.target)

    @cached_property
    def implied(self) -> Implied:
        """What the source implies of the target's tokens on the text that stages are fitted to."""
        teacher = Teacher(self.fast, self.spellings)
        implied = teacher.read(self.texts.fit)
        self.forward_tokens += teacher.n_tokens
        return implied

    @cached_property
    def source_mean(self) -> Float64:
        """How likely the source finds each of its tokens at the mean position, float64 (n_source,).

        Half of it is how often the token stands in the calibration documents, where there are any,
        and half what the source predicts at some states of the text.
        """
        states = self.source_states()
        states = np.ascontiguousarray(states[:: max(1, len(states) // MEAN_OVER)])
        mean = self.source_head.expected_counts(states) / len(states)
        counts = self.context.source_counts
        if counts is None or not counts.sum():
            return mean
        return np.asarray((mean + counts[: len(mean)] / counts.sum()) / 2)

    @cached_property
    def parted_share(self) -> float:
        """Share of the source's tokens of the text that the target parts; needs no forward pass."""
        counts = np.bincount(self.source_positions.ids, minlength=len(self.spellings.parted))
        return float(counts[self.spellings.parted].sum() / max(1, counts.sum()))

    @cached_property
    def source_positions(self) -> BytePositions:
        """The source's tokens on the text that stages are fitted to."""
        return _positions(self.context.source, self.texts.fit)

    @property
    def target_positions(self) -> BytePositions:
        """The target's tokens on the same text."""
        return self.positions(self.texts.fit)

    def positions(self, chunks: tuple[Chunk, ...]) -> BytePositions:
        """Return the target's tokens on chunks; kept for the next time."""
        known = self._positions.get(id(chunks))
        if known is None or known[0] is not chunks:
            known = chunks, _positions(self.context.target, chunks)
            self._positions[id(chunks)] = known
        return known[1]

    def first(self, chunks: tuple[Chunk, ...], most_states: int) -> tuple[Chunk, ...]:
        """Return the first of some chunks: about so many of the target's tokens, at least one."""
        share = most_states / max(1, self.positions(chunks).n_states)
        return chunks[: max(1, math.ceil(share * len(chunks)))]

    @cached_property
    def new_pieces(self) -> tuple[Ids, list[tuple[int, ...]]]:
        """The new tokens that are written with source tokens, ascending, and these."""
        context = self.context
        new = np.isin(context.missing, self.new)
        return context.missing[new], [p for p, n in zip(context.pieces, new, strict=True) if n]

    @property
    def sizes(self) -> TextSizes:
        """How many tokens each text has, and how long lessons take that are not there yet."""
        if self.lesson_time is None or "lessons" in vars(self):
            return self._sizes
        return replace(self._sizes, writing=self.lesson_time.expected)

    @cached_property
    def _sizes(self) -> TextSizes:
        return TextSizes(
            fit=max(self.source_positions.n_states, self.target_positions.n_states),
            more=self.positions(self.texts.more).n_states,
            selection=self.positions(self.texts.selection).n_states,
            other=self.positions(self.texts.other).n_states,
            contexts=self.context_tokens,
            n_rows=len(self.context.target.token_bytes),
        )

    @cached_property
    def source_head(self) -> OutputHead:
        """The output side of the source."""
        context, model = self.context, self.model
        return OutputHead(
            context.output_rows,
            context.output_bias,
            model.logit_scale,
            model.softcap,
            context.device,
        )

    def head(self, matrices: Matrices) -> OutputHead:
        """Return the output side of a patched model."""
        return self.source_head.with_rows(matrices.output, matrices.bias)

    def source_states(self, layer: int | None = None) -> Float32:
        """Return the source's states on the text, float32 (n_states, width); kept for next time.

        `layer` None is the final one. Only one early layer is kept at a time.
        """
        wanted = self.model.n_layers if layer is None else layer
        if wanted not in self._layers:
            for early in set(self._layers) - {self.model.n_layers}:
                del self._layers[early]
            self._layers[wanted] = self.states(self.fast, self.source_positions.sequences, wanted)
        return self._layers[wanted]

    def target_states(self, matrices: Matrices, layer: int | None = None) -> Float32:
        """Return the patched model's states on the text, float32 (n_states, width)."""
        if layer is None or layer == self.model.n_layers:
            return self.final_states(matrices, self.texts.fit)
        return self.states(self.patched(matrices), self.target_positions.sequences, layer)

    def final_states(self, matrices: Matrices, chunks: tuple[Chunk, ...]) -> Float32:
        """Return the patched model's final states on chunks, float32 (n_states, width).

        They depend on the input rows and the body alone, and are kept for as long as these stay.
        """
        judged = chunks is self.texts.selection or chunks is self.texts.other
        cache = self._validation_states if judged else self._fitted_states
        before = cache.n_tokens
        sequences = self.positions(chunks).sequences
        states = cache.of(matrices.input, sequences, key=id(chunks), body=matrices.body)
        self.forward_tokens += cache.n_tokens - before
        return states

    @cached_property
    def _fitted_states(self) -> FinalStates:
        return FinalStates(self.fast, n_kept=2)

    @cached_property
    def _validation_states(self) -> FinalStates:
        # Of both texts, under the rows as they are and under a candidate's; while methods are
        # chosen, of parts of one text.
        return FinalStates(self.model, n_kept=6)

    def next_tokens(self, matrices: Matrices, *, more: bool = False) -> tuple[Float32, Ids]:
        """Return the patched model's final states, and the token that follows each on the text.

        float32 (n, width) and int64 (n,), in the order of the text; tokens that nothing stands
        before are left out. With `more`, of all the text that was drawn.
        """
        chunks = [self.texts.fit, self.texts.more] if more and self.texts.more else [self.texts.fit]
        parts = [self.before_tokens(matrices, part) for part in chunks]
        if len(parts) == 1:
            return parts[0]
        return np.concatenate([one for one, _ in parts]), np.concatenate([two for _, two in parts])

    def before_tokens(self, matrices: Matrices, chunks: tuple[Chunk, ...]) -> tuple[Float32, Ids]:
        """Return the same on some chunks."""
        positions = self.positions(chunks)
        known = np.flatnonzero(positions.before >= 0)
        return self.final_states(matrices, chunks)[positions.before[known]], positions.ids[known]

    def states(
        self, model: LanguageModel, sequences: Sequence[Sequence[int]], layer: int
    ) -> Float32:
        """Return a model's states at all positions of some sequences, one after the other."""
        self.forward_tokens += sum(map(len, sequences))
        return model.all_states(sequences, layer)

    def patched(self, matrices: Matrices) -> LanguageModel:
        """Return the source with these rows and this change of its body."""
        return self.model.patched(matrices.input, matrices.output, matrices.bias, matrices.body)

    def score(self, matrices: Matrices, chunks: tuple[Chunk, ...]) -> BitsPerByte:
        """Return bits per byte of a patched model on chunks that the target spells.

        Other output rows under the same input rows cost a matrix product, and no forward pass.

        Raises
        ------
        EvaluationError
            If a loss is not finite.
        """
        if not self.model.plain_head:
            return self.score_model(self.patched(matrices), chunks)
        positions = self.positions(chunks)
        known = np.flatnonzero(positions.before >= 0)
        states = self.final_states(matrices, chunks)[positions.before[known]]
        nll = self.head(matrices).nll(states, positions.ids[known])
        if not np.isfinite(nll).all():
            raise EvaluationError(
                "the rows give losses that are not finite; choose another method with --init"
            )
        chunk_ends = np.cumsum([chunk.n_bytes + 1 for chunk in chunks])
        chunk_of = np.searchsorted(chunk_ends, positions.starts[known], side="right")
        n_bytes = (positions.ends - positions.starts)[known]
        nats: Float64 = np.bincount(chunk_of, nll, len(chunks)).astype(np.float64)
        return BitsPerByte.of(nats, np.bincount(chunk_of, n_bytes, len(chunks)).astype(np.int64))

    def score_model(self, model: LanguageModel, chunks: tuple[Chunk, ...]) -> BitsPerByte:
        """Return bits per byte of the source itself, or of a model with the target's vocabulary."""
        own = self.context.source if model is self.model else self.context.target
        scores = score(model, own, chunks)
        self.forward_tokens += int(scores.n_tokens.sum())
        return BitsPerByte.of(scores.nll, scores.n_bytes)

    @cached_property
    def logsumexp(self) -> Float64:
        """Logsumexp of the source's logits at each of its states, float64 (n_states,)."""
        return self.source_head.logsumexp(self.source_states())

    @cached_property
    def occurrences(self) -> Occurrences:
        """Where target tokens stand between two boundaries that the source has too."""
        logprob = source_logprob(
            self.source_positions, self.source_states(), self.source_head, self.logsumexp
        )
        return find_occurrences(self.source_positions, self.target_positions, logprob)


def _positions(vocabulary: Vocabulary, chunks: tuple[Chunk, ...]) -> BytePositions:
    return positions_of(encode_chunks(vocabulary, chunks), chunks)
