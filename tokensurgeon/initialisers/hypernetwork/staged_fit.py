"""The ladder of a hypernetwork: mean, ridge composer, network on rows, network through the model.

Every rung is kept only if it beats the one below: on trained tokens held out, and, where there is
text, in bits per byte on text set aside, under the target or a vocabulary that nothing was trained
on. Needs torch.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tokensurgeon.errors import InitialiserError
from tokensurgeon.initialisers.contract import InitContext
from tokensurgeon.initialisers.hypernetwork import from_rows, from_text
from tokensurgeon.initialisers.hypernetwork.from_rows import RowExamples
from tokensurgeon.initialisers.hypernetwork.from_text import TextExamples
from tokensurgeon.initialisers.hypernetwork.network_file import (
    Arrays,
    Hypernet,
    bounds,
    matrices_of,
    sketch,
)
from tokensurgeon.initialisers.hypernetwork.row_network import Composer, PlacedRows, RowNetwork
from tokensurgeon.initialisers.hypernetwork.training_loop import Course
from tokensurgeon.initialisers.hypernetwork.vocabulary_sampling import Draws, OneTarget, Sampler
from tokensurgeon.initialisers.methods.ridge_composer import (
    SideComposer,
    finite,
    fit_side,
    spell_trained,
)
from tokensurgeon.text.chunks import separable

NAME = "hypernetwork"
CUTS = 3
ALPHA = 0.7
"""The ridge composer's defaults."""
PARTS = (2, 2, 2, 2, 3, 3, 3, 4, 4, 5, 6)
"""Pieces that trained tokens are cut into where no target says how many it needs."""
SHARE_OF_ROWS = 0.25
"""Of the time, for training on rows where there is text to train on afterwards."""
LEAST_GAIN = 1e-3
"""Bits per byte, or share of a row's variance, that a rung must win."""
SELECTION_SHARE = 0.16
RUNGS = ("network, on rows", "network, through the model")

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Rung:
    """One line of the ladder's table.

    Attributes
    ----------
    name : str
    held_out : float
        Error on trained tokens held out, in shares of the rows' variance; NaN where there is none.
    bits_per_byte : float or None
        On the selection text under an unseen vocabulary.
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
class Ladder:
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
        """Train, and return the best rung.

        Raises
        ------
        InitialiserError
            If the source's tokens teach nothing, or the state is another training's.
        """
        context, start = self.context, time.perf_counter()
        owners, spellings = spell_trained(context, CUTS, self.parts, NAME)
        rows = RowExamples(owners, spellings, context.seed)
        found, state = self._resumed()
        if found is None:
            sides = tuple(
                _as_kept(fit_side(context, matrix, owners, spellings, ALPHA, NAME))
                for matrix in matrices_of(context)
            )
            ids, kept = sketch(context)
            vocabulary = context.source.fingerprint
            found = Hypernet(sides, None, self.size, self.layers, vocabulary, ids, kept)
        text = self._text()
        judge = _Judge(context, rows, text)
        plain = tuple(replace(side, alpha=0.0) for side in found.sides)
        judge("mean of pieces", replace(found, sides=plain), start)
        judge("ridge composer", found, start)
        # The network stands on the ridge composer, whichever of the two is better.
        network = new_network(found, context)
        courses: list[Course] = []
        for number, part in enumerate((rows, text)):
            if part is None or not part.enough:
                continue
            courses.append(self._course(found, network, number, text is not None, courses, state))
            begun, what = time.perf_counter(), RUNGS[number]
            part.train(
                composer_of(found, context, network),
                courses[-1],
                partial(_tell, context.progress, f"{NAME}: {what}"),
            )
            trained = replace(found, network=_arrays(network))
            if not judge(what, trained, begun, courses[-1].done):
                network.load_state_dict(new_network(found, context).state_dict())
        card = {
            **(self.card or {}),
            "seed": context.seed,
            "rungs": [vars(rung) for rung in judge.table],
            "tokens": 0 if text is None else text.n_tokens,
            "gradient_steps": sum(course.done for course in courses),
            "seconds": round(time.perf_counter() - start, 1),
        }
        if self.partial is not None:
            self.partial.unlink(missing_ok=True)
        return replace(judge.best, card=card)

    def _text(self) -> TextExamples | None:
        """Part the text, whole documents for what is looked at; None where there is none."""
        context = self.context
        if self.model is None or not context.texts:
            return None
        order = np.random.default_rng(context.seed).permutation(len(context.texts))
        texts = separable([context.texts[i] for i in order.tolist()])
        n = max(1, min(len(texts) // 2, int(SELECTION_SHARE * len(texts))))
        draws: Draws
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

    def _course(
        self,
        found: Hypernet,
        network: RowNetwork,
        number: int,
        both: bool,
        courses: list[Course],
        state: Arrays,
    ) -> Course:
        """Make a training, gone on with where there is a state of it."""
        share = (SHARE_OF_ROWS, 1.0 - SHARE_OF_ROWS)[number] if both else 1.0

        def keep() -> None:
            if self.partial is not None:
                kept = {
                    f"course.{i}.{name}": value
                    for i, course in enumerate(courses)
                    for name, value in course.state().items()
                }
                network_now = replace(found, network=_arrays(network), card=self._terms())
                network_now.save(self.partial, kept)

        course = Course(
            network,
            (from_rows.RATE, from_text.RATE)[number],
            seconds=share * self.seconds,
            steps=None if self.steps is None else self.steps[number],
            keep=keep,
        )
        prefix = f"course.{number}."
        mine = {n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)}
        if mine:
            course.resume(mine)
        return course

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
        found, state = Hypernet.load(self.partial)
        found.check(self.context)
        same = (found.size, found.layers) == (self.size, self.layers)
        if not same or found.card != json.loads(json.dumps(self._terms())):
            raise InitialiserError(
                f"{self.partial} is the state of another training: give the same options and text "
                "to go on with it, or remove it"
            )
        return replace(found, network=None, card={}), state


class _Judge:
    """Keeps the best rung so far, and the table."""

    def __init__(self, context: InitContext, rows: RowExamples, text: TextExamples | None) -> None:
        self._context, self._rows, self._text = context, rows, text
        self._low = float("inf")
        self.table: list[Rung] = []

    def __call__(self, name: str, found: Hypernet, begun: float, steps: int = 0) -> bool:
        """Measure a rung; True if it is kept."""
        composer = composer_of(found, self._context)
        seconds = round(time.perf_counter() - begun, 1)
        error = self._rows.held_out(composer)
        bits = None if self._text is None else self._text.bits_per_byte(composer)
        figure = error if bits is None else bits
        kept = not self.table or figure < self._low - LEAST_GAIN
        self.table.append(Rung(name, error, bits, kept, seconds, steps))
        if kept:
            self._low, self.best = figure, found
        return kept


def new_network(found: Hypernet, context: InitContext) -> RowNetwork:
    """Return a network that corrects nothing yet, the same for the same seed."""
    widths = [context.width] * len(found.sides)
    features = sum(side.whitening.turn.shape[1] for side in found.sides)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(context.seed)
        return RowNetwork(features, widths, found.size, found.layers)


def composer_of(
    found: Hypernet, context: InitContext, network: RowNetwork | None = None
) -> Composer:
    """Bring a hypernetwork to the context's device, over the context's own rows.

    Parameters
    ----------
    network : RowNetwork, optional
        In the place of the hypernetwork's own.
    """
    if network is None and found.network is not None:
        network = new_network(found, context)
        network.load_state_dict({n: torch.from_numpy(v) for n, v in found.network.items()})
    whitenings = [side.whitening for side in found.sides]
    key = (NAME, tuple(map(id, whitenings)), context.device)
    if key not in context.cache:
        rows = [finite(matrix) for matrix in matrices_of(context)]
        # With the whitenings, whose identity the key stands on.
        kept = PlacedRows.make(found.sides, rows, context.device), bounds(context), whitenings
        context.cache[key] = kept
    placed, most, _ = context.cache[key]
    return Composer(found.sides, placed, most, network)


def _as_kept(side: SideComposer) -> SideComposer:
    """Round a composer as a file does, so that what is taken up again is what was left."""
    linear = side.linear
    rounded = replace(
        linear,
        coefficients=linear.coefficients.astype(np.float32).astype(np.float64),
        intercept=linear.intercept.astype(np.float32).astype(np.float64),
    )
    turn = np.ascontiguousarray(side.whitening.turn)
    return replace(side, linear=rounded, whitening=replace(side.whitening, turn=turn))


def _tell(progress: Progress, what: str, done: int, total: int) -> None:
    progress(done, total, what)


def _arrays(network: RowNetwork) -> Arrays:
    return {n: p.detach().float().cpu().numpy().copy() for n, p in network.named_parameters()}
