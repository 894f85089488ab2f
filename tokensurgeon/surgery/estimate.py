"""What a surgery would take, step by step: time and memory, before any row is computed.

The model's pace is measured on a few hundred tokens. Each step says how many tokens it runs and
scores; what the budget leaves no time for is said not to fit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from tokensurgeon.arrays import ITEM_BYTES
from tokensurgeon.calibration import TextSizes
from tokensurgeon.calibration.calibration_texts import TextBounds, bytes_to_calibrate_on
from tokensurgeon.calibration.stage_plans import Plan
from tokensurgeon.calibration.text_sizes import AffordedText, text_bounds
from tokensurgeon.initialisers.contract import Computes, Initialiser, RunsSource
from tokensurgeon.models.pace import NO_TIME, measure_arithmetic
from tokensurgeon.report import StepFact
from tokensurgeon.surgery.budget import TOKENS_PER_PROBE, n_probes
from tokensurgeon.surgery.calibrate import planned_stages
from tokensurgeon.surgery.candidates import (
    SHARE_OF_REBUILT,
    Afforded,
    most_measured,
    seconds_of,
    seconds_to_choose,
)
from tokensurgeon.surgery.chosen_methods import Methods, build_initialiser
from tokensurgeon.surgery.measure import has_loss, seconds_to_measure, tokens_a_byte
from tokensurgeon.surgery.race import FIRST_BYTES
from tokensurgeon.surgery.session import Session

LEAST_SHARE = 0.5
"""Of a stage's most: stages end early as soon as a candidate is no better than the last, and of
those that make several, about half are made."""
PROCESS_BYTES, TOKEN_BYTES = 400_000_000, 1_700
"""Of memory: Python, torch and transformers; and a token of either vocabulary, its spelling in both
tokenizers. Measured with 512 and 128,002 tokens."""
COPIES, CALIBRATED_COPIES = 3, 6
"""Of the patched matrices in memory together: the best, a candidate and the model's; in a
calibration two candidates more, and sums in float64."""
WORK_BYTES = 500_000_000
"""Of methods and forward passes: features, blocks of logits, and what the allocator keeps."""


@dataclass(frozen=True)
class Estimate:
    """What a surgery would take.

    Attributes
    ----------
    seconds, memory_bytes, output_bytes : float
        In all, at the peak, and on disk.
    steps : tuple of StepFact
        In their order.
    """

    seconds: float
    memory_bytes: float
    output_bytes: float
    steps: tuple[StepFact, ...]

    @property
    def totals(self) -> dict[str, float]:
        """The figures by name, without the steps."""
        return {
            "seconds": self.seconds,
            "memory_bytes": self.memory_bytes,
            "output_bytes": self.output_bytes,
        }


def estimate(session: Session, methods: Methods, measured: Sequence[str] = ()) -> Estimate:
    """Return what the surgery would take, with the texts that are measured on."""
    plan = _Steps(session, methods, measured)
    steps = tuple(plan.all())
    return Estimate(
        seconds=sum(step.seconds for step in steps if step.fits),
        memory_bytes=_memory(session, session.model_loaded, calibrates=bool(plan.stages)),
        output_bytes=_output_bytes(session),
        steps=steps,
    )


class _Steps:
    """The steps of a surgery, and what each takes at the pace of the model."""

    def __init__(self, session: Session, methods: Methods, measured: Sequence[str]) -> None:
        self.session, self.recipe, self.methods = session, session.recipe, methods
        self.measured = measured
        names = self.recipe.calibrate if self.recipe.calibrate or methods.automatic else ()
        calibrates = bool(self.recipe.budget) and session.runs_source
        self.stages = planned_stages(session, names if calibrates else (), self.recipe.heal)
        self.chooses = methods.automatic and calibrates and session.context.n_missing > 0
        self.evaluates = self.recipe.measures and session.runs_here and has_loss(session)
        self.initialisers = _initialisers(session, methods, self.chooses)
        runs = any(isinstance(one, RunsSource) for one in self.initialisers) and session.runs_source
        self.pace = NO_TIME
        if self.stages or self.chooses or self.evaluates or runs:
            self.pace = session.pace
        elif any(isinstance(one, Computes) for one in self.initialisers):
            self.pace = measure_arithmetic(session.context.device)

    def all(self) -> Iterator[StepFact]:
        """Yield every step, those that do not fit too."""
        yield StepFact(step="read and align", seconds=sum(self.session.timings.seconds.values()))
        left = 60 * (self.session.budget + self.recipe.heal)
        if not self.chooses:
            takes = [seconds_of(one, self.session.context, self.pace) for one in self.initialisers]
            yield StepFact(step="initialise", seconds=sum(takes))
        if self.chooses or self.stages:
            yield from self._within_budget(left)
        if self.evaluates:
            yield StepFact(step="evaluate", seconds=seconds_to_measure(self.session, self.measured))

    def _within_budget(self, left: float) -> Iterator[StepFact]:
        """Yield the steps that share the budget and the minutes of healing."""
        session, seconds = self.session, 60 * self.session.budget
        other = bool(self.recipe.text.other)
        bounds = text_bounds(session.context, self.pace, seconds, other=other)
        a_byte = tokens_a_byte(session, session.calibration_texts)
        probing = self.pace.seconds(TOKENS_PER_PROBE * n_probes(self.pace, session.budget))
        yield StepFact(step="probe the model", seconds=probing)
        yield StepFact(step="the source writes text", seconds=bounds.writing.expected)
        sizes = self._sizes(seconds, a_byte, bounds)
        left -= probing + bounds.writing.expected
        if self.chooses:
            step = self._choice(sizes, a_byte, seconds_to_choose(session.budget))
            left -= step.seconds
            yield step
        look = sizes.selection + sizes.other
        start = self.pace.seconds(look, look, sizes.n_rows)
        left -= start
        yield StepFact(step="measure the start", seconds=start)
        for number in range(len(self.stages)):
            plan, *later = (Plan.at(stage, sizes, self.pace) for stage in self.stages[number:])
            room = plan.room(left, later)
            fits = room >= plan.needed
            expected = max(plan.least, LEAST_SHARE * plan.work) + (plan.own or plan.writing)
            takes = min(expected, max(room, 0.0)) if fits else plan.needed
            yield StepFact(step=plan.stage, seconds=takes, fits=fits)
            left -= takes if fits else 0.0
            if fits and plan.writing:
                sizes = replace(sizes, writing=0.0)

    def _sizes(self, seconds: float, a_byte: float, bounds: TextBounds) -> TextSizes:
        """Return the tokens of each text."""
        session = self.session
        context = session.context
        width = session.inputs.checkpoint.hidden_width
        afforded = AffordedText.of(self.pace, seconds, a_byte, width, context.memory_budget)
        given = bytes_to_calibrate_on(context.texts)
        fitted = min(given, bounds.fit, afforded.fit)
        spare = afforded.more(fitted) if fitted == min(given, bounds.fit) else 0.0
        return TextSizes(
            fit=round(fitted * a_byte),
            more=round(max(0.0, min(given - fitted, bounds.more, spare)) * a_byte),
            selection=round(bounds.selection * a_byte),
            other=round(bounds.other * a_byte),
            contexts=afforded.contexts,
            n_rows=session.inputs.n_rows,
            writing=bounds.lessons.expected if context.texts else 0.0,
        )

    def _choice(self, sizes: TextSizes, a_byte: float, share: float) -> StepFact:
        """Return the choice, and whether measuring fits into its share of the budget."""
        session, context = self.session, self.session.context
        afforded = Afforded.of(session.inputs, self.recipe.init, context, self.pace, session.budget)
        default = sum(afforded.seconds[name] for name in dict.fromkeys(afforded.default))
        n_tried = most_measured(afforded.sides(session.inputs, self.recipe.init))
        first = FIRST_BYTES * a_byte
        if n_tried * self.pace.seconds(first, first, sizes.n_rows) > share - default:
            return StepFact(step="choose methods", seconds=default, fits=False)
        making = sum(
            takes * (2 if takes <= SHARE_OF_REBUILT * share else 1)
            for name, takes in afforded.seconds.items()
            if name in afforded.methods
        )
        looks = n_tried * self.pace.seconds(sizes.selection, sizes.selection, sizes.n_rows)
        whole = self.pace.seconds(sizes.fit) + making + looks
        return StepFact(step="choose methods", seconds=min(whole, share))


def _initialisers(session: Session, methods: Methods, chooses: bool) -> Sequence[Initialiser]:
    """Return what makes rows where nothing is chosen; the baselines where they are measured."""
    spec = session.recipe.init
    chosen: list[Initialiser] = []
    if methods.initialiser is not None:
        chosen = [methods.initialiser]
    elif not methods.automatic:
        names = dict.fromkeys(methods.names)
        chosen = [build_initialiser(name, spec, methods.names) for name in names]
    if session.recipe.measures and not chooses:
        chosen += [build_initialiser(name, spec, ()) for name in session.recipe.baselines]
    return chosen


def _memory(session: Session, runs: bool, calibrates: bool) -> float:
    """Return the bytes at the peak: process, tokenizers, rows, donor, model."""
    inputs, recipe = session.inputs, session.recipe
    checkpoint, donor, layout = inputs.checkpoint, inputs.donor, inputs.checkpoint.layout
    n_tokens = len(inputs.alignment.source.token_bytes) + len(inputs.alignment.target.token_bytes)
    memory = float(PROCESS_BYTES + TOKEN_BYTES * n_tokens)
    sides = 1 if inputs.tied else 2
    matrices = 4.0 * sides * layout.width * inputs.n_rows
    memory += 4.0 * sides * layout.width * layout.n_rows
    memory += (CALIBRATED_COPIES if calibrates else COPIES) * matrices
    if donor is not None:
        memory += donor.input.nbytes + (0 if donor.tied else donor.output.nbytes)
    model_bytes = checkpoint.n_bytes * 4 / ITEM_BYTES[checkpoint.dtype]
    if runs:
        memory += model_bytes + WORK_BYTES
    if recipe.heal:
        # The rows, their gradients and two moments of each.
        memory += model_bytes + 4.0 * matrices
    if recipe.heal_body:
        memory += model_bytes  # of a candidate: its changed weights, at most all
    return memory


def _output_bytes(session: Session) -> float:
    inputs = session.inputs
    checkpoint, layout = inputs.checkpoint, inputs.checkpoint.layout
    sides, before = 1 if inputs.tied else 2, layout.n_rows * (1 if layout.tied else 2)
    more = (inputs.n_rows * sides - before) * layout.width * ITEM_BYTES[checkpoint.dtype]
    return float(checkpoint.n_bytes + more)
