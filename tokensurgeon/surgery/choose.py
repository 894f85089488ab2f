"""``auto``: measure what could make the rows of a pair, and take what loses least.

Candidates first rebuild hidden tokens, which shortlists them and gives the weights of a sum of
several; the shortlist is then measured on the selection text. The table of the choice goes into
the report.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from tokensurgeon.arrays import Float32, Float64
from tokensurgeon.calibration import CalibrationData
from tokensurgeon.checkpoint.embeddings import CAUSAL, KIND_WORDS
from tokensurgeon.errors import CalibrationError, InitialiserError
from tokensurgeon.initialisers.contract import InitContext, Initialiser, NewRows, SideRows
from tokensurgeon.initialisers.hidden_tokens import (
    STRATA,
    Hidden,
    Mixture,
    Rebuilt,
    hide,
    rebuild,
    stack,
)
from tokensurgeon.recipe import InitSpec
from tokensurgeon.report import ChoiceFact
from tokensurgeon.surgery.calibrate import CalibratedRows, calibrate_rows
from tokensurgeon.surgery.chosen_methods import AUTO, build_initialiser, default_methods
from tokensurgeon.surgery.inputs import Inputs
from tokensurgeon.surgery.rows import PatchedRows, patch_rows
from tokensurgeon.surgery.session import Session

STACK = "stack"
STACKED = 5
"""Most methods that are added up."""
SHORTLIST = 3
"""Candidates of a side that are measured on text, besides the pair's plain default."""

INPUT = ("subword-mean", "subword-last", "hidden-residual", "hidden-state", "ridge-composer")
OUTPUT = ("subword-mean", "subword-first", "subword-shrunk", "hidden-state", "ridge-composer")
TIED = ("subword-mean", "subword-shrunk", "ridge-composer")
DONOR = ("omp", "tokenadapt", "anchors")
"""Tried besides, on every side, where there is a donor."""
NETWORK = "hypernetwork"
"""Tried besides where its settings name a file or minutes. Rebuilt tokens say nothing of it: it is
trained for the text, so it always goes to the text, and both its sides together."""
SETTINGS: dict[str, dict[str, Any]] = {"anchors": {"combiner": "ridge"}}
"""Of candidates whose own default is not the one to try; a recipe's settings win."""


@dataclass(frozen=True)
class Choice:
    """What auto decided.

    Attributes
    ----------
    rows : CalibratedRows
    methods : tuple of str
        Input and output.
    table : tuple of ChoiceFact
        What was tried.
    why : str
        In words, on what the choice stands.
    """

    rows: CalibratedRows
    methods: tuple[str, str]
    table: tuple[ChoiceFact, ...]
    why: str


@dataclass(frozen=True)
class _Answered:
    """An initialiser whose answer is known: methods are run once, and combined in many ways."""

    name: ClassVar[str] = AUTO
    answer: NewRows

    def __call__(self, context: InitContext) -> NewRows:
        return self.answer


def choose(
    session: Session,
    spec: InitSpec,
    stages: Sequence[str] | None = None,
    heal: float = 0.0,
) -> Choice:
    """Choose the initialisers of both sides, and calibrate their rows.

    Without a forward pass (`budget` 0, or a source that is no causal model) what needs none is
    taken and nothing calibrated, and the table says so.

    Parameters
    ----------
    session : Session
    spec : InitSpec
        Settings of the candidates.
    stages, heal
        See `tokensurgeon.surgery.calibrate.calibrate_rows`.
    """
    inputs = session.inputs
    if session.recipe.budget == 0 or not (session.runs_source and session.context.n_missing):
        name = "omp" if inputs.donor is not None else "ridge-composer"
        plain = (name, name)
        why = "no token is missing" if session.recipe.budget else "no time is given for a choice"
        if inputs.checkpoint.layout.kind != CAUSAL:
            why = f"the source is {KIND_WORDS[inputs.checkpoint.layout.kind]}"
        elif not session.runs_here:
            why = "the source is larger than memory and is not run"
        line = ChoiceFact(side="both", method="/".join(plain), chosen=True)
        rows = patch_rows(session, plain, spec)
        return Choice(CalibratedRows(rows), plain, (line,), why)
    start, forward = time.perf_counter(), session.forward_tokens
    steps = session.gradient_steps
    trial = _Trial(session, spec)
    choice = trial.run()
    rows = replace(
        choice.rows.start,
        seconds=time.perf_counter() - start,
        forward_tokens=session.forward_tokens - forward,
        gradient_steps=session.gradient_steps - steps,
    )
    if trial.data is None:
        return replace(choice, rows=CalibratedRows(rows))
    return replace(choice, rows=calibrate_rows(session, rows, stages, heal))


def candidates(inputs: Inputs, spec: InitSpec) -> dict[str, Initialiser]:
    """Return the methods that are tried on a pair, by name, with the settings that a recipe has."""
    sides = _names_by_side(inputs, spec)
    names = tuple(dict.fromkeys(name for side in sides.values() for name in side))
    own = {name: {**SETTINGS.get(name, {}), **spec.settings.get(name, {})} for name in names}
    settings = spec.model_copy(update={"settings": {**spec.settings, **own}})
    return {name: build_initialiser(name, settings, names) for name in names}


def most_measured(inputs: Inputs) -> int:
    """Return how many pairs of methods are measured on text at most."""
    # The shortlist, the sum of several, the default and the plain mean; the output side twice.
    return (SHORTLIST + 3) * (1 if inputs.tied else 3)


def _names_by_side(inputs: Inputs, spec: InitSpec) -> dict[str, tuple[str, ...]]:
    more = DONOR if inputs.donor is not None else ()
    if NETWORK in spec.settings:
        more = (*more, NETWORK)
    if inputs.tied:
        return {"output": (*TIED, *more)}
    return {"input": (*INPUT, *more), "output": (*OUTPUT, *more)}


class _Trial:
    """The steps of one choice; holds the answers of the candidates."""

    def __init__(self, session: Session, spec: InitSpec) -> None:
        self.session, self.spec = session, spec
        self.default = default_methods(session.inputs)
        self.context = session.context
        self.answers: dict[str, NewRows] = {}
        self.seen: dict[str, frozenset[str]] = {}
        self.table: dict[tuple[str, str], ChoiceFact] = {}
        self.stacks: dict[str, dict[str, tuple[float, ...]]] = {}
        self.figures: dict[tuple[str, str], float] = {}
        self.data: CalibrationData | None = None
        self._measured_input: tuple[str, Float32] | None = None
        self.sides = _names_by_side(session.inputs, spec)
        self.candidates = candidates(session.inputs, spec)

    def run(self) -> Choice:
        """Shortlist, measure, choose."""
        rows = self.rows(*self.default)
        try:
            self.data = self.session.calibration_data
        except CalibrationError as error:
            line = ChoiceFact(side="both", method="/".join(self.default), chosen=True)
            rows = replace(rows, notes=(*rows.notes, f"nothing was chosen or calibrated: {error}"))
            return Choice(CalibratedRows(rows), self.default, (line,), str(error))
        hidden = hide(self.context)
        shortlists = {
            side: self._shortlist(side, names, hidden) for side, names in self.sides.items()
        }
        for side in ("output", "input", "output"):
            if side in shortlists:
                self._measure_all(side, shortlists[side])
        if NETWORK in self.candidates and not self.session.inputs.tied:
            pair = (NETWORK, NETWORK)
            if pair not in self.figures:
                self.figures[pair] = self._measure(pair)
            line = ChoiceFact(
                side="both",
                method="/".join(pair),
                bits_per_byte=self.figures[pair],
                chosen=self._best() == pair,
            )
            self.table["both", line.method] = line
        best = self._best()
        texts = self.data.texts
        n_bytes = sum(chunk.n_bytes for chunk in texts.selection)
        whose = "text that the source wrote" if texts.generated else "the calibration text"
        why = f"bits per byte on {n_bytes:,} bytes of {whose}"
        if hidden is not None:
            why += f"; {len(hidden.source_ids):,} hidden tokens shortlisted the candidates"
        table = tuple(
            line
            if line.side == "both"
            else line.model_copy(
                update={"chosen": line.method == best[0 if line.side == "input" else 1]}
            )
            for line in self.table.values()
        )
        return Choice(CalibratedRows(self.rows(*best)), best, table, why)

    def _answer(self, name: str) -> NewRows:
        if name not in self.answers:
            self.context.seen.clear()
            self.answers[name] = self.candidates[name](self.context)
            self.seen[name] = frozenset(self.context.seen)
        return self.answers[name]

    def _side(self, name: str, side: str) -> SideRows:
        answer = self._answer(name)
        rows = answer.input if side == "input" else answer.output
        if rows is None:
            raise InitialiserError(f"'{name}' has no {side} rows: choose another")
        return rows

    def rows(self, input_name: str, output_name: str) -> PatchedRows:
        """Return the patched rows of two methods, with what they were given."""
        output = self._side(output_name, "output")
        inside = output if self.session.inputs.tied else self._side(input_name, "input")
        rows = patch_rows(self.session, (AUTO, AUTO), self.spec, _Answered(NewRows(inside, output)))
        seen = self.seen[input_name] | self.seen[output_name]
        used: dict[str, Any] = {"used_donor": "donor" in seen, "used_text": "text" in seen}
        sides = [replace(rows.input, settings=self._settings(input_name))]
        sides.append(replace(rows.output, settings=self._settings(output_name)))
        if rows.tied:
            sides[0] = sides[1]
        return replace(rows, input=sides[0], output=sides[1], **used)

    def _settings(self, name: str) -> dict[str, Any]:
        shares = self.stacks.get(name)
        if shares is None:
            return {"method": name}
        rounded = {method: [round(w, 3) for w in weights] for method, weights in shares.items()}
        return {"method": STACK, "strata": list(STRATA), **rounded}

    def _shortlist(self, side: str, names: tuple[str, ...], hidden: Hidden | None) -> list[str]:
        """Return the candidates of a side that go to the text, the default's among them."""
        default = self.default[0 if side == "input" else 1]
        last = [NETWORK] if NETWORK in names else []
        names = tuple(name for name in names if name != NETWORK)
        if hidden is None:
            return [*names, *last]
        metric = None
        if side == "output" and self.data is not None:
            states = self.data.source_states().astype(np.float64)
            metric = states.T @ states / len(states)
        able = {name: self.candidates[name] for name in names}
        ranked = rebuild(hidden, able, side, metric)
        for rebuilt in ranked:
            self.table[side, rebuilt.method] = ChoiceFact(
                side=side, method=rebuilt.method, rebuilt=rebuilt.error
            )
        short = [rebuilt.method for rebuilt in ranked[:SHORTLIST]]
        mixed = self._stack(side, ranked, hidden, metric)
        if mixed:
            short.append(mixed)
        # Both were good everywhere so far; hidden tokens must not hide them.
        return list(dict.fromkeys([*short, default, "subword-mean", *last]))

    def _stack(
        self, side: str, ranked: list[Rebuilt], hidden: Hidden, metric: Float64 | None
    ) -> str | None:
        """Add the sum of the best candidates to them."""
        weights = stack(hidden, ranked[:STACKED], side, metric)
        if len(weights) < 2:
            return None
        name = f"{STACK} ({side})"
        parts = tuple((_Answered(self._answer(n)), shares) for n, shares in weights.items())
        self.stacks[name] = weights
        self.answers[name] = Mixture(side, parts)(self.context)
        self.seen[name] = frozenset[str]().union(*(self.seen[n] for n in weights))
        self.table[side, name] = ChoiceFact(side=side, method=name)
        return name

    def _best(self) -> tuple[str, str]:
        return min(self.figures, key=lambda pair: self.figures[pair], default=self.default)

    def _measure_all(self, side: str, names: list[str]) -> None:
        """Measure a side's candidates, the other side as in the best pair so far."""
        best = self._best()
        for name in names:
            pair = (name, best[1]) if side == "input" else (best[0], name)
            if self.session.inputs.tied:
                pair = (name, name)
            if pair not in self.figures:
                try:
                    self.figures[pair] = self._measure(pair)
                except InitialiserError:
                    continue
            line = self.table.get((side, name), ChoiceFact(side=side, method=name))
            self.table[side, name] = line.model_copy(update={"bits_per_byte": self.figures[pair]})

    def _measure(self, pair: tuple[str, str]) -> float:
        assert self.data is not None
        matrices = self.rows(*pair).matrices
        measured = self._measured_input
        if measured is not None and measured[0] == pair[0] and not matrices.tied:
            # The same rows as one array: final states are kept for as long as it is that array.
            matrices = replace(matrices, input=measured[1])
        self._measured_input = pair[0], matrices.input
        self.session.progress(len(self.figures), len(self.figures) + 4, "choosing methods")
        return self.data.score(matrices, self.data.texts.selection)
