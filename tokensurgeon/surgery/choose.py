"""``auto``: measure what could make the rows of a pair, and take what loses least.

Candidates first rebuild hidden tokens, which shortlists them and gives the weights of a sum of
several; the shortlist is then measured on the selection text. The table of the choice goes into
the report.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from tokensurgeon.calibration import Workbench
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
from tokensurgeon.surgery.calibrate import calibrated, workbench
from tokensurgeon.surgery.chosen_methods import AUTO, build_initialiser, default_methods
from tokensurgeon.surgery.prepare import Operation
from tokensurgeon.surgery.rows import PatchedRows, patch_rows

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
class Tried:
    """One line of the table that the choice was made from.

    Attributes
    ----------
    side : str
        ``input``, ``output``, or ``both``.
    method : str
    rebuilt : float or None
        Error on hidden tokens relative to the mean row's; None where it was not tried.
    bits_per_byte : float or None
        On the selection text, the other side as in the rows chosen until then.
    chosen : bool
    """

    side: str
    method: str
    rebuilt: float | None = None
    bits_per_byte: float | None = None
    chosen: bool = False


@dataclass(frozen=True)
class Choice:
    """What auto decided.

    Attributes
    ----------
    rows : PatchedRows
    methods : tuple of str
        Input and output.
    table : tuple of Tried
    why : str
        In words, on what the choice stands.
    """

    rows: PatchedRows
    methods: tuple[str, str]
    table: tuple[Tried, ...]
    why: str


@dataclass(frozen=True)
class _Ready:
    """An initialiser whose answer is known: methods are run once, and combined in many ways."""

    name: ClassVar[str] = AUTO
    answer: NewRows

    def __call__(self, context: InitContext) -> NewRows:
        return self.answer


def choose(
    operation: Operation,
    spec: InitSpec,
    stages: tuple[str, ...] | None = None,
    heal: float = 0.0,
) -> Choice:
    """Choose the initialisers of both sides, and calibrate their rows.

    Without a forward pass (`budget` 0, or a source that is no causal model) what needs none is
    taken and nothing calibrated, and the table says so.

    Parameters
    ----------
    operation : Operation
    spec : InitSpec
        Settings of the candidates.
    stages, heal
        See `tokensurgeon.surgery.calibrate.calibrated`.
    """
    if operation.recipe.budget == 0 or not (operation.has_states and operation.context.n_missing):
        name = "omp" if operation.donor is not None else "ridge-composer"
        plain = (name, name)
        why = "no token is missing" if operation.recipe.budget else "no time is given for a choice"
        if operation.checkpoint.layout.kind != CAUSAL:
            why = f"the source is {KIND_WORDS[operation.checkpoint.layout.kind]}"
        elif not operation.fits_here:
            why = "the source is larger than memory and is not run"
        line = Tried("both", "/".join(plain), chosen=True)
        return Choice(patch_rows(operation, plain, spec), plain, (line,), why)
    before, steps = _forward_tokens(operation), operation.states.gradient_steps
    trial = _Trial(operation, spec)
    choice = trial.run()
    rows = choice.rows
    if trial.bench is not None:
        rows = calibrated(operation, rows, stages, heal)
    forward = _forward_tokens(operation) - before
    steps = rows.gradient_steps + operation.states.gradient_steps - steps
    return replace(choice, rows=replace(rows, forward_tokens=forward, gradient_steps=steps))


def _forward_tokens(operation: Operation) -> int:
    """Return the tokens run so far, of methods and of the calibration's workbench."""
    bench = operation.bench
    return operation.states.n_tokens + (0 if bench is None else bench.forward_tokens)


class _Trial:
    """The steps of one choice; holds the answers of the candidates."""

    def __init__(self, operation: Operation, spec: InitSpec) -> None:
        self.operation, self.spec = operation, spec
        self.default = default_methods(operation)
        self.context = operation.context
        self.answers: dict[str, NewRows] = {}
        self.seen: dict[str, frozenset[str]] = {}
        self.candidates: dict[str, Initialiser] = {}
        self.table: dict[tuple[str, str], Tried] = {}
        self.stacks: dict[str, dict[str, tuple[float, ...]]] = {}
        self.figures: dict[tuple[str, str], float] = {}
        self.bench: Workbench | None = None
        more = DONOR if operation.donor is not None else ()
        if NETWORK in spec.settings:
            more = (*more, NETWORK)
        self.sides = {"input": (*INPUT, *more), "output": (*OUTPUT, *more)}
        if operation.tied:
            self.sides = {"output": (*TIED, *more)}
        names = tuple(dict.fromkeys(name for side in self.sides.values() for name in side))
        own = {name: {**SETTINGS.get(name, {}), **spec.settings.get(name, {})} for name in names}
        settings = {**spec.settings, **own}
        for name in names:
            self.candidates[name] = build_initialiser(
                name, spec.model_copy(update={"settings": settings}), names
            )

    def run(self) -> Choice:
        """Shortlist, measure, choose."""
        rows = self.rows(*self.default)
        try:
            self.bench = workbench(self.operation, rows)
        except CalibrationError as error:
            line = Tried("both", "/".join(self.default), chosen=True)
            rows = replace(rows, notes=(*rows.notes, f"nothing was chosen or calibrated: {error}"))
            return Choice(rows, self.default, (line,), str(error))
        hidden = hide(self.context)
        shortlists = {
            side: self._shortlist(side, names, hidden) for side, names in self.sides.items()
        }
        for side in ("output", "input", "output"):
            if side in shortlists:
                self._measure_all(side, shortlists[side])
        if NETWORK in self.candidates and not self.operation.tied:
            pair = (NETWORK, NETWORK)
            if pair not in self.figures:
                self.figures[pair] = self._measure(pair)
            line = Tried("both", "/".join(pair), None, self.figures[pair], self._best() == pair)
            self.table["both", line.method] = line
        best = self._best()
        texts = self.bench.texts
        n_bytes = sum(chunk.n_bytes for chunk in texts.selection)
        whose = "text that the source wrote" if texts.generated else "the calibration text"
        why = f"bits per byte on {n_bytes:,} bytes of {whose}"
        if hidden is not None:
            why += f"; {len(hidden.source_ids):,} hidden tokens shortlisted the candidates"
        table = tuple(
            line
            if line.side == "both"
            else replace(line, chosen=line.method == best[0 if line.side == "input" else 1])
            for line in self.table.values()
        )
        return Choice(self.rows(*best), best, table, why)

    def _answer(self, name: str) -> NewRows:
        if name not in self.answers:
            self.context.seen.clear()
            self.answers[name] = self.candidates[name](self.context)
            self.seen[name] = frozenset(self.context.seen)
        return self.answers[name]

    def _side(self, name: str, side: str) -> SideRows:
        answer = self._answer(name)
        found = answer.input if side == "input" else answer.output
        if found is None:
            raise InitialiserError(f"'{name}' has no {side} rows: choose another")
        return found

    def rows(self, input_name: str, output_name: str) -> PatchedRows:
        """Return the patched rows of two methods, with what they were given."""
        output = self._side(output_name, "output")
        inside = output if self.operation.tied else self._side(input_name, "input")
        rows = patch_rows(self.operation, (AUTO, AUTO), self.spec, _Ready(NewRows(inside, output)))
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
        if side == "output" and self.bench is not None:
            states = self.bench.source_states().astype(np.float64)
            metric = states.T @ states / len(states)
        able = {name: self.candidates[name] for name in names}
        found = rebuild(hidden, able, side, metric)
        for each in found:
            self.table[side, each.method] = Tried(side, each.method, each.error)
        short = [each.method for each in found[:SHORTLIST]]
        mixed = self._stack(side, found, hidden, metric)
        if mixed:
            short.append(mixed)
        # Both were good everywhere so far; hidden tokens must not hide them.
        return list(dict.fromkeys([*short, default, "subword-mean", *last]))

    def _stack(
        self, side: str, found: list[Rebuilt], hidden: Hidden, metric: np.ndarray | None
    ) -> str | None:
        """Add the sum of the best candidates to them."""
        weights = stack(hidden, found[:STACKED], side, metric)
        if len(weights) < 2:
            return None
        name = f"{STACK} ({side})"
        parts = tuple((_Ready(self._answer(n)), shares) for n, shares in weights.items())
        self.stacks[name] = weights
        self.answers[name] = Mixture(side, parts)(self.context)
        self.seen[name] = frozenset[str]().union(*(self.seen[n] for n in weights))
        self.table[side, name] = Tried(side, name)
        return name

    def _best(self) -> tuple[str, str]:
        return min(self.figures, key=lambda pair: self.figures[pair], default=self.default)

    def _measure_all(self, side: str, names: list[str]) -> None:
        """Measure a side's candidates, the other side as in the best pair so far."""
        best = self._best()
        for name in names:
            pair = (name, best[1]) if side == "input" else (best[0], name)
            if self.operation.tied:
                pair = (name, name)
            if pair not in self.figures:
                try:
                    self.figures[pair] = self._measure(pair)
                except InitialiserError:
                    continue
            line = self.table.get((side, name), Tried(side, name))
            self.table[side, name] = replace(line, bits_per_byte=self.figures[pair])

    def _measure(self, pair: tuple[str, str]) -> float:
        assert self.bench is not None
        matrices = self.rows(*pair).matrices
        self.operation.progress(len(self.figures), len(self.figures) + 4, "choosing methods")
        return self.bench.score(matrices, self.bench.texts.selection)
