"""``auto``: measure what could make the rows of a pair, and take what loses least.

Candidates first rebuild hidden tokens, which shortlists them and gives the weights of a sum of
several; the shortlist is then measured on the selection text: on all of it where the time allows,
else in a race. A candidate that takes too long is left out, and where not even a race fits, the
pair's default is taken. The table of the choice, and why, go into the report.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from tokensurgeon.arrays import Float64
from tokensurgeon.calibration import CalibrationData, Matrices
from tokensurgeon.calibration.paired_figures import BitsPerByte
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
from tokensurgeon.progress import Clock
from tokensurgeon.recipe import InitSpec
from tokensurgeon.report import ChoiceFact
from tokensurgeon.surgery.calibrate import CalibratedRows, calibrate_rows
from tokensurgeon.surgery.candidates import (
    NETWORK,
    SHARE_OF_REBUILT,
    SHORTLIST,
    Afforded,
    most_measured,
    seconds_to_choose,
)
from tokensurgeon.surgery.chosen_methods import AUTO, PLAIN, PURE, default_methods
from tokensurgeon.surgery.race import Race, parts_of
from tokensurgeon.surgery.rows import PatchedRows, patch_rows
from tokensurgeon.surgery.session import Session
from tokensurgeon.text.chunks import Chunk

STACK = "stack"
STACKED = 5
"""Most methods that are added up."""


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
    clock: Clock | None = None,
) -> Choice:
    """Choose the initialisers of both sides, and calibrate their rows.

    Without a forward pass (`budget` 0, or a source that is no causal model) what needs none is
    taken and nothing calibrated, and the table says so. Where no token is missing, only stages that
    are named, the fit of a draft and healing change rows.

    Parameters
    ----------
    session : Session
    spec : InitSpec
        Settings of the candidates.
    stages, heal
        See `tokensurgeon.surgery.calibrate.calibrate_rows`.
    clock : Clock, optional
        Until when all of it is to be done; by default one that starts now, with the budget and the
        minutes.
    """
    inputs = session.inputs
    if session.recipe.budget == 0 or not (session.runs_source and session.context.n_missing):
        name = "omp" if inputs.donor is not None else PURE
        plain = (name, name)
        why = "no token is missing" if session.recipe.budget else "no time is given for a choice"
        if inputs.checkpoint.layout.kind != CAUSAL:
            why = f"the source is {KIND_WORDS[inputs.checkpoint.layout.kind]}"
        elif not session.runs_here:
            why = "the source is larger than memory and is not run"
        line = ChoiceFact(side="both", method="/".join(plain), chosen=True)
        found = CalibratedRows(patch_rows(session, plain, spec))
        if session.runs_source:
            found = calibrate_rows(session, found.start, _asked(session, stages), heal, clock)
        return Choice(found, plain, (line,), why)
    clock = clock or session.clock(heal)
    start, forward = time.perf_counter(), session.forward_tokens
    steps = session.gradient_steps
    trial = _Trial(session, spec, clock)
    choice = trial.run()
    rows = replace(
        choice.rows.start,
        seconds=time.perf_counter() - start,
        forward_tokens=session.forward_tokens - forward,
        gradient_steps=session.gradient_steps - steps,
    )
    if trial.data is None:
        return replace(choice, rows=CalibratedRows(rows))
    return replace(choice, rows=calibrate_rows(session, rows, stages, heal, clock))


def _asked(session: Session, stages: Sequence[str] | None) -> Sequence[str] | None:
    """Return the stages of a surgery without a choice: there are no new rows to calibrate."""
    if not session.recipe.budget or (stages is None and session.recipe.for_draft is None):
        return ()
    return stages


@dataclass(frozen=True)
class _Entrant:
    """A pair of methods in the race, with its rows."""

    pair: tuple[str, str]
    matrices: Matrices


def _of(side: str, pair: tuple[str, str]) -> str:
    """Return the method of a side."""
    return pair[0] if side == "input" else pair[1]


class _Trial:
    """The steps of one choice; holds the answers of the candidates."""

    def __init__(self, session: Session, spec: InitSpec, clock: Clock) -> None:
        self.session, self.spec = session, spec
        self.context = session.context
        self.answers: dict[str, NewRows] = {}
        self.seen: dict[str, frozenset[str]] = {}
        self.table: dict[tuple[str, str], ChoiceFact] = {}
        self.stacks: dict[str, dict[str, tuple[float, ...]]] = {}
        self.figures: dict[tuple[str, str], float] = {}
        self._rebuilt: dict[str, Initialiser | None] = {}
        self.data: CalibrationData | None = None
        budget = session.budget
        self._clock, self._seconds_to_choose = clock, seconds_to_choose(budget)
        self.afforded = Afforded.of(session.inputs, spec, self.context, session.pace, budget)
        self.candidates, self.default = self.afforded.methods, self.afforded.default
        most = SHARE_OF_REBUILT * self._seconds_to_choose
        self.unranked = {name for name, takes in self.afforded.seconds.items() if takes > most}
        self.unranked.add(NETWORK)
        self.sides = self.afforded.sides(session.inputs, spec)

    def run(self) -> Choice:
        """Shortlist, measure, choose."""
        try:
            self.data = self.session.calibration_data
        except CalibrationError as error:
            rows = self.rows(*self.default)
            line = ChoiceFact(side="both", method="/".join(self.default), chosen=True)
            rows = replace(rows, notes=(*rows.notes, f"nothing was chosen or calibrated: {error}"))
            return Choice(CalibratedRows(rows), self.default, (line,), str(error))
        clock = self._clock.within(self._seconds_to_choose)
        for name in self.default:
            self._answer(name)
        _ = self.session.suppressed_row  # made once, for all of them
        start = clock.left()
        rows = self.rows(*self.default)
        making = start - clock.left()
        chunks = self.data.texts.selection
        n_tried = most_measured(self.sides)
        whole, first = self._seconds(chunks), self._seconds(parts_of(chunks)[0])
        if n_tried * (making + first) > clock.left():
            return self._untried(rows, n_tried * (making + first), clock)
        slow = self.unranked & self.candidates.keys()
        fits = n_tried * (making + whole) <= clock.left() - self._to_make(slow)
        parts = [chunks] if fits else parts_of(chunks)
        race: Race[_Entrant] = Race(parts, self._score)
        hidden = hide(self.context)
        shortlists = {
            side: self._shortlist(side, names, hidden) for side, names in self.sides.items()
        }
        order = [side for side in ("output", "input", "output") if side in shortlists]
        left = sum(len(shortlists[side]) for side in order)
        for side in order:
            for name in shortlists[side]:
                others = {other for short in shortlists.values() for other in short} - {name}
                free = max(0.0, clock.left() - self._to_make(others))
                self._measure(race, side, name, clock.within(free / left))
                left -= 1
        if NETWORK in self.candidates and not self.session.inputs.tied:
            self._measure(race, "both", NETWORK, clock)
        return self._chosen(race, hidden, fits)

    def _to_make(self, names: Iterable[str]) -> float:
        """Return what the rows of those candidates take that were not asked yet."""
        return sum(self.afforded.seconds[name] for name in set(names) - self.answers.keys())

    def _seconds(self, chunks: Sequence[Chunk]) -> float:
        """Return what one look at some chunks takes."""
        assert self.data is not None
        n_bytes = sum(chunk.n_bytes for chunk in self.data.texts.selection)
        tokens = self.data.sizes.selection * sum(chunk.n_bytes for chunk in chunks) / n_bytes
        return self.data.pace.seconds(tokens, tokens, self.data.sizes.n_rows)

    def _untried(self, rows: PatchedRows, seconds: float, clock: Clock) -> Choice:
        """Return the default, with why nothing was measured."""
        line = ChoiceFact(side="both", method="/".join(self.default), chosen=True)
        why = (
            f"to measure the candidates would take about {seconds:.0f} s, and "
            f"{max(0.0, clock.left()):.0f} s of the budget are left for the choice"
            f"{self._without()}"
        )
        return Choice(CalibratedRows(rows), self.default, (line,), why)

    def _without(self) -> str:
        """Say which candidates were left out."""
        names = self.afforded.left_out
        return f"; left out, for the time they take: {', '.join(names)}" if names else ""

    def _chosen(self, race: Race[_Entrant], hidden: Hidden | None, fits: bool) -> Choice:
        """Return the winner of the race, with the table."""
        assert self.data is not None
        best = race.best.pair if race.best is not None else self.default
        if race.figure is not None:
            for side, name in zip(("input", "output"), best, strict=True):
                if (side, name) in self.table:
                    self._note(side, name, race.figure)
        texts = self.data.texts
        n_bytes = sum(chunk.n_bytes for chunk in texts.selection)
        whose = "text that the source wrote" if texts.generated else "the calibration text"
        why = f"bits per byte on {n_bytes:,} bytes of {whose}"
        if not fits:
            why = f"bits per byte on up to {n_bytes:,} bytes of {whose}, in a race"
        if hidden is not None:
            why += f"; {len(hidden.source_ids):,} hidden tokens shortlisted the candidates"
        why += self._without()
        both = "/".join(best)
        chosen = {"input": best[0], "output": best[1], "both": both}
        table = tuple(
            line.model_copy(update={"chosen": line.method == chosen[line.side]})
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
        default, slow = _of(side, self.default), [name for name in names if name in self.unranked]
        # A challenger has to be ahead for sure: what is best on most pairs is none.
        first = [default] if default in slow else []
        ranked = [name for name in names if name not in slow]
        if hidden is not None:
            ranked = self._rebuilding_best(side, ranked, hidden)
        return list(dict.fromkeys([*first, *ranked, *slow]))

    def _rebuilding_best(self, side: str, names: Sequence[str], hidden: Hidden) -> list[str]:
        """Return the candidates that rebuild hidden tokens best, their sum, and the good ones."""
        metric = None
        if side == "output" and self.data is not None:
            states = self.data.source_states().astype(np.float64)
            metric = states.T @ states / len(states)
        able = {name: made for name in names if (made := self._on_hidden(name, hidden))}
        ranked = rebuild(hidden, able, side, metric)
        for rebuilt in ranked:
            self.table[side, rebuilt.method] = ChoiceFact(
                side=side, method=rebuilt.method, rebuilt=rebuilt.error
            )
        short = [rebuilt.method for rebuilt in ranked[:SHORTLIST]]
        mixed = self._stack(side, ranked, hidden, metric)
        if mixed:
            short.append(mixed)
        # They were good everywhere so far; hidden tokens must not hide them.
        usual = default_methods(self.session.inputs)
        good = _of(side, self.default), _of(side, usual), PLAIN
        return [*short, *(name for name in good if name in self.candidates)]

    def _on_hidden(self, name: str, hidden: Hidden) -> Initialiser | None:
        """Return a candidate's answer for the hidden tokens; both sides are asked for once."""
        if name not in self._rebuilt:
            try:
                self._rebuilt[name] = _Answered(self.candidates[name](hidden.context))
            except InitialiserError:
                self._rebuilt[name] = None
        return self._rebuilt[name]

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

    def _measure(self, race: Race[_Entrant], side: str, name: str, clock: Clock) -> None:
        """Let a side's candidate race, the other side as in the best pair so far."""
        best = race.best.pair if race.best is not None else self.default
        pair = (name, best[1]) if side == "input" else (best[0], name)
        if self.session.inputs.tied or side == "both":
            pair = (name, name)
        if pair not in self.figures:
            if clock.over and race.best is not None:
                return
            self.session.progress(len(self.figures), len(self.figures) + 4, "choosing methods")
            try:
                matrices = self.rows(*pair).matrices
            except InitialiserError:
                return
            if race.best is not None and race.best.pair[0] == pair[0] and not matrices.tied:
                # The same rows as one array: final states are kept for as long as it is that array.
                matrices = replace(matrices, input=race.best.matrices.input)
            self.figures[pair] = race.enter(_Entrant(pair, matrices), clock)
        self._note(side, name if side != "both" else "/".join(pair), self.figures[pair])

    def _note(self, side: str, name: str, figure: float) -> None:
        line = self.table.get((side, name), ChoiceFact(side=side, method=name))
        n_bytes = int(figure.n_bytes.sum()) if isinstance(figure, BitsPerByte) else None
        self.table[side, name] = line.model_copy(
            update={"bits_per_byte": float(figure), "n_bytes": n_bytes}
        )

    def _score(self, entrant: _Entrant, chunks: tuple[Chunk, ...]) -> BitsPerByte:
        assert self.data is not None
        return self.data.score(entrant.matrices, chunks)
