"""The stages of a hypernetwork's fit: mean, ridge composer, network on rows, network on text.

A stage is kept only if it beats the best before it: on trained tokens held out, and, where there is
text, in bits per byte on text set aside, under the target or a vocabulary that nothing was trained
on. Needs torch.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tokensurgeon.arrays import Float32, Ids
from tokensurgeon.errors import InitialiserError, reading
from tokensurgeon.initialisers.contract import InitContext
from tokensurgeon.initialisers.hypernetwork import from_rows, from_text
from tokensurgeon.initialisers.hypernetwork.composition import arrays_of, composer_of, new_network
from tokensurgeon.initialisers.hypernetwork.from_rows import RowExamples
from tokensurgeon.initialisers.hypernetwork.from_text import TextExamples
from tokensurgeon.initialisers.hypernetwork.network_file import (
    Arrays,
    Hypernet,
    matrices_of,
    sketch,
)
from tokensurgeon.initialisers.hypernetwork.row_network import RowNetwork
from tokensurgeon.initialisers.hypernetwork.training_loop import TrainingLoop
from tokensurgeon.initialisers.hypernetwork.vocabulary_sampling import OneTarget, Sampler
from tokensurgeon.initialisers.numerics.composer import FittedComposer, fit_composer
from tokensurgeon.initialisers.respelling import spell_trained
from tokensurgeon.progress import track
from tokensurgeon.text.chunks import separable

NAME = "hypernetwork"
CUTS = 3
ALPHA = 0.7
"""The ridge composer's defaults."""
PARTS = (2, 2, 2, 2, 3, 3, 3, 4, 4, 5, 6)
"""Pieces that trained tokens are cut into where no target says how many it needs: mostly few, as
tokens of one vocabulary mostly are in another."""
SHARE_OF_ROWS = 0.25
"""Of the time, for training on rows where there is text to train on afterwards: a step on rows is
far cheaper than one through the model."""
LEAST_GAIN = 1e-3
"""Bits per byte, or share of a row's variance, that a stage must win: less is noise."""
VALIDATION_SHARE = 0.16
"""Of the documents, to validate on: one in six."""
STAGES = ("network, on rows", "network, through the model")
BYTES_PER_TOKEN = 3
"""Of text, for an estimate; so few err towards more tokens."""


def validation_tokens(texts: Sequence[str]) -> int:
    """Return about how many tokens it takes to validate all four stages on a part of the texts."""
    n_bytes = VALIDATION_SHARE * sum(len(text.encode()) for text in texts)
    return (2 + len(STAGES)) * int(min(n_bytes, from_text.VALIDATION_BYTES)) // BYTES_PER_TOKEN


@dataclass(frozen=True)
class FitStage:
    """One line of the table of stages, the ``rungs`` of a network file's card.

    Attributes
    ----------
    name : str
    held_out : float
        Error on trained tokens held out, in shares of the rows' variance; NaN where there is none.
    bits_per_byte : float or None
        On the validation text under an unseen vocabulary.
    kept : bool
    seconds : float
    steps : int
    """

    name: str
    held_out: float
    bits_per_byte: float | None
    kept: bool
    seconds: float
    steps: int = 0


@dataclass
class StagedFit:
    """Trains a hypernetwork for the source of a context.

    Attributes
    ----------
    context : InitContext
    seconds : float
        For both trainings together; fitting the ridge composer comes on top.
    size, layers : int
        Of the network.
    steps : tuple of two int, or None
        Steps of the two trainings instead of seconds.
    model : LanguageModel or None
        The source, to train through; None trains on rows alone, as does a context without text.
        Text is cut by the context's target, or, where no token is missing, by vocabularies drawn
        at random.
    parts : sequence of int
        How many pieces trained tokens are cut into.
    partial : Path or None
        Where the state is kept, and taken up from if it is there.
    card : dict
        Put into the file beside the figures.
    """

    context: InitContext
    seconds: float
    size: int = 256
    layers: int = 1
    steps: tuple[int, int] | None = None
    model: Any = None
    parts: Sequence[int] = PARTS
    partial: Path | None = None
    card: dict[str, Any] | None = None

    def run(self) -> Hypernet:
        """Train, and return the best stage.

        Raises
        ------
        InitialiserError
            If the source's tokens teach nothing, or the state is another training's.
        """
        context, start = self.context, time.perf_counter()
        owners, spellings = spell_trained(context, CUTS, self.parts, NAME)
        rows = RowExamples(owners, spellings, context.seed)
        ridge, state = self._resumed()
        if ridge is None:
            sides = tuple(self._composer(one, owners, spellings) for one in matrices_of(context))
            ids, rows_kept = sketch(context)
            fingerprint = context.source.fingerprint
            ridge = Hypernet(sides, None, self.size, self.layers, fingerprint, ids, rows_kept)
        text = self._text()
        validate = _Validation(context, rows, text)
        plain = tuple(replace(side, alpha=0.0) for side in ridge.sides)
        validate("mean of pieces", replace(ridge, sides=plain), start)
        validate("ridge composer", ridge, start)
        # The network stands on the ridge composer, whichever of the two is better.
        network = new_network(ridge, context)
        loops: list[TrainingLoop] = []
        for number, examples in enumerate((rows, text)):
            if examples is None or not examples.enough:
                continue
            loop = self._loop(ridge, network, number, text is not None, loops, state)
            loops.append(loop)
            begun, name = time.perf_counter(), STAGES[number]
            composer = composer_of(ridge, context, network)
            loop.run(
                partial(examples.loss, composer),
                partial(examples.validate, composer),
                context.steps(f"{NAME}: {name}"),
                partial(track, context.progress, f"{NAME}: {name}"),
            )
            trained = replace(ridge, network=arrays_of(network))
            if not validate(name, trained, begun, loop.done):
                network.load_state_dict(new_network(ridge, context).state_dict())
        card = {
            **(self.card or {}),
            "seed": context.seed,
            "rungs": [vars(stage) for stage in validate.table],
            "tokens": 0 if text is None else text.n_tokens,
            "gradient_steps": sum(loop.done for loop in loops),
            "seconds": round(time.perf_counter() - start, 1),
        }
        if self.partial is not None:
            self.partial.unlink(missing_ok=True)
        return replace(validate.best, card=card)

    def _composer(
        self, matrix: Float32, owners: Ids, spellings: Sequence[Sequence[int]]
    ) -> FittedComposer:
        """Fit a ridge composer, and round it as a file does: what is taken up is what was left."""
        context = self.context
        composer = fit_composer(
            matrix,
            context.anchors,
            owners,
            spellings,
            ALPHA,
            generator=context.generator(),
            work=context.work(f"{NAME}: fitting"),
        )
        rounded = replace(
            composer.linear,
            coefficients=composer.linear.coefficients.astype(np.float32).astype(np.float64),
            intercept=composer.linear.intercept.astype(np.float32).astype(np.float64),
        )
        turn = np.ascontiguousarray(composer.whitening.turn)
        whitening = replace(composer.whitening, turn=turn)
        return replace(composer, linear=rounded, whitening=whitening)

    def _text(self) -> TextExamples | None:
        """Set whole documents aside for validation; None where there is no text."""
        context = self.context
        if self.model is None or not context.texts:
            return None
        order = np.random.default_rng(context.seed).permutation(len(context.texts))
        texts = separable([context.texts[i] for i in order.tolist()])
        n = max(1, min(len(texts) // 2, int(VALIDATION_SHARE * len(texts))))
        draws: OneTarget | Sampler
        if context.n_missing:
            pieces = dict(zip(context.missing.tolist(), context.pieces, strict=True))
            draws = OneTarget(context.alignment, pieces, context.n_source)
        else:
            usable = np.zeros(context.n_source, dtype=bool)
            usable[: context.source.n_rows] = True
            draws = Sampler(texts[n:], context.source, usable, context.seed)
        return TextExamples(
            self.model,
            draws,
            texts[n:],
            texts[:n],
            prefix=context.prefix,
            output_bias=context.output_bias,
            seed=context.seed,
        )

    def _loop(
        self,
        ridge: Hypernet,
        network: RowNetwork,
        number: int,
        both: bool,
        before: list[TrainingLoop],
        state: Arrays,
    ) -> TrainingLoop:
        """Make a training, gone on with where there is a state of it; `before` grows by it."""
        share = (SHARE_OF_ROWS, 1.0 - SHARE_OF_ROWS)[number] if both else 1.0

        def keep() -> None:
            if self.partial is not None:
                states = {
                    f"course.{i}.{name}": value  # the prefix that files have
                    for i, loop in enumerate(before)
                    for name, value in loop.state().items()
                }
                now = replace(ridge, network=arrays_of(network), card=self._terms())
                now.save(self.partial, states)

        loop = TrainingLoop(
            network,
            (from_rows.RATE, from_text.RATE)[number],
            seconds=share * self.seconds,
            steps=None if self.steps is None else self.steps[number],
            keep=keep,
        )
        prefix = f"course.{number}."
        own = {n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)}
        if own:
            with reading(self.partial, "remove it", InitialiserError):
                loop.resume(own)
        return loop

    def _terms(self) -> dict[str, Any]:
        """Return what a state must agree in with the training that takes it up."""
        return {
            **(self.card or {}),
            "seed": self.context.seed,
            "parts": list(self.parts),
            "text": sum(map(len, self.context.texts)) if self.model is not None else 0,
        }

    def _resumed(self) -> tuple[Hypernet | None, Arrays]:
        """Return what an earlier run left, without its network, and the state of its trainings."""
        if self.partial is None or not self.partial.is_file():
            return None, {}
        left, state = Hypernet.load(self.partial)
        with reading(self.partial, "remove it", InitialiserError):
            left.check(self.context)
        same = (left.size, left.layers) == (self.size, self.layers)
        if not same or left.card != json.loads(json.dumps(self._terms())):
            raise InitialiserError(
                f"{self.partial} is the state of another training: give the same options and text "
                "to go on with it, or remove it"
            )
        return replace(left, network=None, card={}), state


class _Validation:
    """Keeps the best stage so far, and the table."""

    def __init__(self, context: InitContext, rows: RowExamples, text: TextExamples | None) -> None:
        self._context, self._rows, self._text = context, rows, text
        self._lowest = float("inf")
        self.table: list[FitStage] = []

    def __call__(self, name: str, hypernet: Hypernet, begun: float, steps: int = 0) -> bool:
        """Measure a stage; True if it is kept."""
        composer = composer_of(hypernet, self._context)
        seconds = round(time.perf_counter() - begun, 1)
        error = self._rows.validate(composer)
        bits = None if self._text is None else self._text.validate(composer)
        figure = error if bits is None else bits
        kept = not self.table or figure < self._lowest - LEAST_GAIN
        self.table.append(FitStage(name, error, bits, kept, seconds, steps))
        if kept:
            self._lowest, self.best = figure, hypernet
        return kept
