"""A surgery at work: what is dear is made when it is first asked for, and once.

A `Session` holds the source's model, texts, rows and calibration data over frozen `Inputs`.
`Session.variant` varies a surgery and shares whatever does not depend on the change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from functools import cache, partial
from typing import Any, Generic, TypeVar

import numpy as np

from tokensurgeon.alignment import Alignment
from tokensurgeon.arrays import Float32, Ids, Mask
from tokensurgeon.calibration import CalibrationData, read_calibration_data
from tokensurgeon.checkpoint.body_update import changeable_weights
from tokensurgeon.checkpoint.chat_ids import chat_ids
from tokensurgeon.checkpoint.embeddings import CAUSAL
from tokensurgeon.checkpoint.files import find_folder
from tokensurgeon.checkpoint.tokenizer_record import Decision
from tokensurgeon.checkpoint.trained_rows import looks_trained, refuse_untrained
from tokensurgeon.errors import CheckpointError
from tokensurgeon.initialisers import SuppressedRow, suppressed_output_row
from tokensurgeon.initialisers.contract import InitContext
from tokensurgeon.initialisers.watched import WatchedContext
from tokensurgeon.models import LanguageModel, load_model
from tokensurgeon.models.device_map import main_device
from tokensurgeon.models.pace import Pace, measure_pace
from tokensurgeon.models.source_states import SourceStates
from tokensurgeon.progress import Clock, Progress, Timings, no_progress
from tokensurgeon.recipe import Recipe, TrainSpec
from tokensurgeon.surgery.budget import left_for_rows, n_probes
from tokensurgeon.surgery.inputs import Inputs
from tokensurgeon.surgery.requirements import can_run, check_forward
from tokensurgeon.surgery.row_origins import COPIED, INITIALISED, copied_rows, row_origins
from tokensurgeon.text import read_corpus
from tokensurgeon.text.chats import read_chats
from tokensurgeon.text.encoding import prefix_of
from tokensurgeon.vocabulary import Kind, Vocabulary

T = TypeVar("T")

MOST_TEXT = 1 << 30
"""Bytes that are read of each text to calibrate on: far more than any budget can look at."""


class Part(Generic[T]):
    """A property of a session that is made once; variants share it unless it depends on the change.

    Parameters
    ----------
    make : callable(Session) -> T
    depends_on : set of str
        Of what `Session.variant` may change: ``pair``, ``seed``, ``untie``, ``texts``.
    """

    def __init__(self, make: Callable[[Session], T], depends_on: frozenset[str]) -> None:
        self.make, self.depends_on, self.__doc__ = make, depends_on, make.__doc__
        self.name = make.__name__

    def __get__(self, session: Session | None, owner: type[Session]) -> T:
        """Return the value; of the class, the part itself."""
        return self if session is None else self.of(session)()  # type: ignore[return-value]

    def of(self, session: Session) -> Callable[[], T]:
        """Return a function that makes the value at its first call."""
        made: Callable[[], T] = cache(partial(self.make, session))
        made = session.parts.setdefault(self.name, made)
        return made


def part(*depends_on: str) -> Callable[[Callable[[Session], T]], Part[T]]:
    """Make a method of a session a `Part` that depends on what is named."""
    return lambda make: Part(make, frozenset(depends_on))


class Session:
    """The parts of one surgery that are dear, each made when first asked for.

    Attributes
    ----------
    inputs : Inputs
    progress : callable(done, total, what)
    timings : Timings
        Seconds by stage of the surgery; shared by variants.
    warnings : list of str
        Shared by variants.
    tokenizer_decisions : list of Decision
        What the written tokenizer takes from the source and what from the target.
    beside : float
        Seconds of what is done beside choice and calibration, 0 where it is not the budget's. To be
        set before anything asks for the budget.
    parts : dict of str to cached function
        What was made, and what is to be made for several variants.
    """

    def __init__(
        self,
        inputs: Inputs,
        *,
        progress: Progress = no_progress,
        timings: Timings | None = None,
        warnings: list[str] | None = None,
        texts: Sequence[str] | None = None,
        parts: Mapping[str, Any] | None = None,
    ) -> None:
        self.inputs, self.progress = inputs, progress
        self.timings = Timings() if timings is None else timings
        self.warnings = list(inputs.notes) if warnings is None else warnings
        self.tokenizer_decisions: list[Decision] = []
        self.beside = 0.0
        self.parts: dict[str, Any] = dict(parts or {})
        self._given_texts = None if texts is None else tuple(texts)

    def variant(
        self,
        *,
        inputs: Inputs | None = None,
        seed: int | None = None,
        untie: bool | None = None,
        texts: Sequence[str] | None = None,
    ) -> Session:
        """Return a session of a surgery that differs in what is given, and in nothing else.

        It shares the model, and every part that does not depend on what changed.

        Parameters
        ----------
        inputs : Inputs, optional
            Another pair of the same source.
        seed : int, optional
        untie : bool, optional
        texts : sequence of str, optional
            Calibration documents, in the place of the recipe's.
        """
        given = {"pair": inputs, "seed": seed, "untie": untie, "texts": texts}
        changed = {name for name, value in given.items() if value is not None}
        updates: dict[str, Any] = {
            name: given[name] for name in ("seed", "untie") if name in changed
        }
        pair = inputs or self.inputs
        known = [one for one in vars(Session).values() if isinstance(one, Part)]
        varied = Session(
            replace(pair, recipe=pair.recipe.model_copy(update=updates)),
            progress=self.progress,
            timings=self.timings,
            warnings=self.warnings,
            texts=self._given_texts if texts is None else texts,
            parts={one.name: one.of(self) for one in known if not one.depends_on & changed},
        )
        varied.beside = self.beside
        return varied

    @property
    def recipe(self) -> Recipe:
        """The recipe."""
        return self.inputs.recipe

    @property
    def budget(self) -> float:
        """Minutes for choice and calibration."""
        return left_for_rows(self.recipe.budget, self.recipe.heal, self.beside)

    @property
    def alignment(self) -> Alignment:
        """From the source's vocabulary to the target's."""
        return self.inputs.alignment

    @part()
    def runs_here(self) -> bool:
        """Whether the source fits into memory, or may lie on several devices."""
        return can_run(self.inputs.checkpoint, self.recipe)

    @property
    def runs_source(self) -> bool:
        """Whether methods and calibration can run the source: a causal model that fits."""
        return self.inputs.checkpoint.layout.kind == CAUSAL and self.runs_here

    def require_forward(self, name: str, *, causal: bool = True, trains: bool = False) -> None:
        """Refuse what runs the source where it cannot be run so; see `check_forward`."""
        inputs = self.inputs
        check_forward(
            inputs.checkpoint, inputs.recipe, self.runs_here, name, causal=causal, trains=trains
        )

    @part()
    def model(self) -> LanguageModel:
        """The source, loaded."""
        recipe = self.recipe
        with self.timings.timed("load model"):
            return load_model(
                self.inputs.checkpoint.path,
                device=recipe.device,
                dtype=recipe.dtype,
                trust_remote_code=recipe.trust_remote_code,
            )

    @part()
    def states(self) -> SourceStates:
        """The source's forward pass; it counts the tokens that were run through it."""
        return SourceStates(self.inputs.checkpoint, lambda: self.model)

    @part()
    def pace(self) -> Pace:
        """How fast the source runs here, measured on a few hundred tokens."""
        return measure_pace(self.model)

    def clock(self, heal: float = 0.0) -> Clock:
        """Return a clock that starts now, for choice, calibration and so many minutes of healing.

        The model is loaded first: what the disk takes is not the budget's.
        """
        if self.runs_source:
            _ = self.model
        return Clock(60 * (self.budget + heal))

    @part("texts")
    def calibration_texts(self) -> tuple[str, ...]:
        """The calibration documents."""
        if self._given_texts is not None:
            return self._given_texts
        return self._documents("calibration")

    @part()
    def source_rows(self) -> tuple[Float32, Float32, Mask]:
        """The input rows, the output rows, and which look trained."""
        checkpoint = self.inputs.checkpoint
        input_rows = checkpoint.input_rows()
        output_rows = input_rows if checkpoint.layout.tied else checkpoint.output_rows()
        if not self.recipe.allow_nonfinite:
            _refuse_nonfinite(input_rows, output_rows)
        refuse_untrained(input_rows, "source's input")
        refuse_untrained(output_rows, "source's output")
        return (
            input_rows,
            output_rows,
            looks_trained(self.alignment.source, input_rows, output_rows),
        )

    @part("pair", "texts")
    def token_counts(self) -> tuple[Ids, Ids] | tuple[None, None]:
        """How often each id of either vocabulary occurs in the calibration text."""
        texts, inputs = self.calibration_texts, self.inputs
        if not texts:
            return None, None
        source, target = inputs.alignment.source, inputs.alignment.target
        n_source = inputs.checkpoint.layout.n_rows
        return _counts(source, texts, n_source), _counts(target, texts, inputs.n_rows)

    @part("pair", "seed", "untie", "texts")
    def context(self) -> WatchedContext:
        """What every initialiser of this surgery sees."""
        inputs, recipe = self.inputs, self.recipe
        layout = inputs.checkpoint.layout
        input_rows, output_rows, trained = self.source_rows
        source_counts, target_counts = self.token_counts
        missing = np.array(sorted(inputs.pieces), dtype=np.int64)
        return WatchedContext(
            alignment=inputs.alignment,
            missing=missing,
            pieces=tuple(inputs.pieces[int(i)] for i in missing),
            input_rows=input_rows,
            output_rows=output_rows,
            tied=inputs.tied,
            anchors=trained,
            embedding_multiplier=layout.embedding_multiplier,
            output_bias=inputs.checkpoint.output_bias(),
            logit_scale=layout.logit_scale,
            softcap=layout.softcap,
            donor=inputs.donor,
            source_counts=source_counts,
            target_counts=target_counts,
            texts=self.calibration_texts,
            states=self.states if self.runs_source else None,
            prefix=prefix_of(inputs.alignment.source),
            device=main_device(recipe.device),
            memory_budget=int(recipe.memory_gib * 2**30),
            seed=recipe.seed,
            progress=self.progress,
        )

    @part("seed", "texts")
    def suppressed_row(self) -> SuppressedRow:
        """The output row of ids that nothing may emit, computed once for all methods."""
        if not (self.recipe.budget and self.runs_source):
            return suppressed_output_row(self.context)
        return suppressed_output_row(self.context, n_probes(self.pace, self.budget))

    @part("pair", "seed", "untie", "texts")
    def calibration_data(self) -> CalibrationData:
        """What calibration works on.

        Raises
        ------
        CalibrationError
            If there is too little text.
        """
        inputs = self.inputs
        target = inputs.alignment.target
        origin = row_origins(inputs, copied_rows(inputs, "tied" if inputs.tied else "output"))
        # What is to stay is no stage's to change.
        text = np.isin(target.kinds, () if self.recipe.keep_shared else (Kind.ORDINARY, Kind.BYTE))
        return read_calibration_data(
            self.model,
            # Calibration's own look at the text is not the initialiser's.
            _unwatched(self.context),
            new=np.flatnonzero(origin == INITIALISED),
            # Controls such as EOS are in no text, so a text is no reason to move them.
            shared=np.flatnonzero((origin[: len(text)] == COPIED) & text),
            other=self._documents("other"),
            seconds=60 * self.budget,
            pace=self.pace,
            body_weights=frozenset(
                changeable_weights(inputs.checkpoint) if self.recipe.heal_body else ()
            ),
        )

    @part()
    def chats(self) -> list[tuple[int, ...]]:
        """The recipe's conversations in the ids of the big model, under its chat template.

        Raises
        ------
        CorpusError, TokenizerError
        """
        recipe = self.recipe
        if not recipe.text.chat or recipe.for_draft is None:
            return []
        chats = chat_ids(find_folder(recipe.for_draft), read_chats(recipe.text.chat))
        n_rows = self.inputs.n_rows
        return [chat for chat in chats if all(token < n_rows for token in chat)]

    @property
    def model_loaded(self) -> bool:
        """Whether something has asked for the model."""
        return self.made("model")

    @property
    def forward_tokens(self) -> int:
        """Tokens run through the source's body so far, by methods and by calibration."""
        by_calibration = (
            self.calibration_data.forward_tokens if self.made("calibration_data") else 0
        )
        return self.states.n_tokens + by_calibration

    @property
    def gradient_steps(self) -> int:
        """Steps of training so far, by methods and by calibration."""
        by_calibration = (
            self.calibration_data.gradient_steps if self.made("calibration_data") else 0
        )
        return self.states.gradient_steps + by_calibration

    def _documents(self, use: str) -> tuple[str, ...]:
        """Return the documents of the recipe's text for some use; none where it names none."""
        patterns = getattr(self.recipe.text, use)
        if not patterns:
            return ()
        held, spec = self.inputs.held, self.recipe.tokenizer
        if held is not None and isinstance(spec, TrainSpec) and patterns == spec.corpus:
            return held.training.texts
        corpus = read_corpus(
            patterns, max_bytes=MOST_TEXT, allow_invalid=self.recipe.allow_invalid_text
        )
        self.warnings += corpus.notes(use)
        return corpus.texts

    def made(self, name: str) -> bool:
        """Whether something has asked for a part."""
        return name in self.parts and self.parts[name].cache_info().currsize > 0


def _unwatched(context: WatchedContext) -> InitContext:
    values = {f.name: getattr(context, f.name) for f in fields(InitContext) if f.init}
    return InitContext(**values)


def _counts(vocabulary: Vocabulary, texts: Sequence[str], n_rows: int) -> Ids:
    counts = np.zeros(n_rows, dtype=np.int64)
    for encoding in vocabulary.encode_many(texts):
        counts += np.bincount(encoding.ids, minlength=n_rows)[:n_rows]
    return counts


def _refuse_nonfinite(*matrices: Float32) -> None:
    """Refuse broken rows before anything is computed from them."""
    bad = [int((~np.isfinite(rows).all(axis=1)).sum()) for rows in matrices]
    if any(bad):
        raise CheckpointError(
            f"{max(bad)} rows of the source hold NaN or Inf: repair it, or add --allow-nonfinite"
        )
