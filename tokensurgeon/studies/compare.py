"""Several methods on one pair, under one protocol, in one table.

One method is in memory at a time: its rows are computed, scored on chunks that were fixed from the
two tokenizers alone, and dropped. With a state folder what is done is kept, and a later run skips
it.
"""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from tokensurgeon.errors import TokensurgeonError, UsageError
from tokensurgeon.evaluation import (
    Entry,
    EntryResult,
    Evaluation,
    EvaluationProtocol,
    MeasuredSource,
)
from tokensurgeon.initialisers import get, load_plugin
from tokensurgeon.progress import Progress, no_progress
from tokensurgeon.recipe import Recipe
from tokensurgeon.studies.adapted_source import adapted_source, adapting_stages, label
from tokensurgeon.studies.after_steps import FIRST, AfterSteps, order_by
from tokensurgeon.studies.compared_methods import (
    DEFAULT,
    Method,
    make_rows,
    parse_methods,
    resolved,
    rows_hash,
    suggested,
)
from tokensurgeon.studies.comparison_state import SOURCE, ComparisonState, check_state_folder
from tokensurgeon.studies.further_training import FurtherTraining
from tokensurgeon.studies.gap_closed import PLAIN, KnownLimit, close_gaps
from tokensurgeon.surgery.calibrate import CalibratedRows, check_heal_body
from tokensurgeon.surgery.chosen_methods import default_methods
from tokensurgeon.surgery.measure import evaluation_texts, patched_model
from tokensurgeon.surgery.prepare import prepare
from tokensurgeon.surgery.rows import PatchedRows
from tokensurgeon.surgery.session import Session


@dataclass(frozen=True)
class Comparison:
    """One table.

    Attributes
    ----------
    rows : tuple of dict
        The source first, then by the figure that chooses; methods that could not work come last
        with their reason under ``error``. Keys: method, bits_per_byte, after_steps (bits per byte
        after further training, where that is asked), gap (to the source), interval (95 %, of the
        gap), closed (share of the recoverable gap, where the trained limit is given), gap_adapted
        (to the source after the same calibration, where that is known), perplexity_ratio,
        bytes_per_token, donor, text_bytes, forward_tokens, gradient_steps, body_numbers (of the
        update that changed the body, 0 where it is the source's), seconds, seed_range (bits per
        byte at the best and the worst seed, of what is random), error.
    evaluation : Evaluation
        All of the figures, with their breakdown.
    facts : dict
        Source, target and donor, for a heading; the trained limit; how models were trained further
        and how far both figures agree (`after_steps.summary`), where that is asked; notes on the
        text.
    stages : dict
        Of each fitted method, what its stages bought (`StageRecord.to_dict`).
    """

    rows: tuple[dict[str, Any], ...]
    evaluation: Evaluation
    facts: dict[str, Any] = field(default_factory=dict)
    stages: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison for JSON."""
        return {
            "facts": self.facts,
            "rows": list(self.rows),
            "evaluation": self.evaluation.to_dict(),
            "stages": self.stages,
        }

    def to_csv(self) -> str:
        """Return the rows as CSV with a header; pairs of numbers take two columns each."""
        pairs = {
            "interval": ("interval_low", "interval_high"),
            "seed_range": ("seed_low", "seed_high"),
        }
        names = [name for key in self.rows[0] for name in pairs.get(key, (key,))]
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, fieldnames=names, lineterminator="\n")
        writer.writeheader()
        for row in self.rows:
            flat = {key: value for key, value in row.items() if key not in pairs}
            for key, columns in pairs.items():
                flat.update(zip(columns, row[key] or (None, None), strict=True))
            writer.writerow(flat)
        return buffer.getvalue()


def compare(
    recipe: Recipe,
    methods: Sequence[str] = (),
    *,
    state: str | Path | None = None,
    seeds: int = 1,
    trained_limit: KnownLimit | None = None,
    adapted: bool = False,
    further: FurtherTraining | None = None,
    choose_by: str = FIRST,
    plugins: Sequence[str | Path] = (),
    progress: Progress | None = None,
) -> Comparison:
    """Measure several methods on one pair; no checkpoint is written.

    Parameters
    ----------
    recipe : Recipe
        Its `text.evaluation` is needed; its `output` and `baselines` are not used.
    methods : sequence of str
        See `Method.parse`. Default: a sensible few, and the default of the pair. When the
        matrices are tied, a pair of different names is an error of its row.
    state : path, optional
        A folder in which each finished method is kept; what is there already is not measured
        again. Methods that could not work are tried again.
    seeds : int
        Repeat what is random with so many seeds, the recipe's the first, and say the range. A
        method whose rows do not change with the seed is not random.
    trained_limit : KnownLimit, optional
        Of this pair, on the same text.
    adapted : bool
        Fit the source's own rows as each fitted method's were, and take its gap from there too.
    further : FurtherTraining, optional
        Train every model, the source's own too, for so many steps on the calibration text, and
        measure it again.
    choose_by : str
        ``bits-per-byte``, or ``after-steps`` to put the methods in order by that second figure.
    plugins : sequence of path
        Python files that register initialisers. Their code runs.
    progress : callable(done, total, what), optional

    Raises
    ------
    UsageError
        Without a text, if a method is unknown or named twice, if the trained limit is of another
        text, or if a further training is asked that has no text, no memory or no steps.
    """
    if not recipe.measures:
        raise UsageError("a comparison needs a text: give --text FILE")
    if state is not None:
        check_state_folder(state)
    asked = parse_methods(list(methods))
    for plugin in plugins:
        load_plugin(plugin)
    for name in sorted({name for method in asked for name in (method.input, method.output)}):
        if name not in (DEFAULT, "auto"):
            get(name)
    further = further or FurtherTraining()
    key = order_by(choose_by, further)
    session = prepare(recipe.model_copy(update={"output": None}), progress or no_progress)
    if recipe.heal_body:
        check_heal_body(session)
    after = AfterSteps(session, further) if further.steps else None
    texts = evaluation_texts(session)
    protocol = _fix_protocol(session, texts)
    decided_by = None if after is None else after.decided_by
    kept = ComparisonState(state, session, protocol, decided_by)
    run = _Run(session, protocol, kept, seeds, after)
    source = run.source()
    results = [EntryResult.from_dict(source["entry"])]
    protocol.table(results)  # before any method takes its time: the source must be comparable
    rows: list[dict[str, Any]] = []
    stages: dict[str, list[dict[str, Any]]] = {}
    chosen = resolved(session.inputs, asked) if asked else suggested(session)
    for done, method in enumerate(chosen):
        session.progress(done, len(chosen), "methods")
        measured = run.method(method)
        if adapted:
            measured["row"]["gap_adapted"] = run.gap_adapted(measured)
        rows.append(measured["row"])
        if measured["entry"] is not None:
            results.append(EntryResult.from_dict(measured["entry"]))
        if measured.get("stages"):
            stages[method.label] = measured["stages"]
    session.progress(len(chosen), len(chosen), "methods")
    rows.sort(key=lambda row: (row["error"] is not None, row.get(key) or 0.0))
    if trained_limit is not None and not close_gaps(rows, results[0], trained_limit):
        session.warnings.append(
            "no share of the gap is said: the trained limit names no start, and "
            f"'{PLAIN}' is not compared"
        )
    facts = _facts(session, trained_limit, seeds)
    if after is not None:
        facts["after_steps"] = {"choose_by": choose_by, **after.facts(rows)}
    return Comparison((source["row"], *rows), protocol.table(results), facts, stages)


def _fix_protocol(session: Session, texts: Sequence[str]) -> EvaluationProtocol:
    """Fix what is scored, from the tokenizers and the length of the model alone."""
    longest = session.inputs.checkpoint.max_positions
    alignment = session.alignment
    return EvaluationProtocol.fix(
        [(alignment.source, longest), (alignment.target, longest)],
        texts,
        max_bytes=session.recipe.text.max_bytes,
        seed=session.recipe.seed,
        kind=session.inputs.checkpoint.layout.kind,
    )


class _Run:
    """What the methods of one comparison share: the source, measured once it is needed."""

    def __init__(
        self,
        session: Session,
        protocol: EvaluationProtocol,
        state: ComparisonState,
        seeds: int,
        after: AfterSteps | None = None,
    ) -> None:
        self.session, self.protocol, self.state, self.seeds = session, protocol, state, seeds
        self._after = after
        self._fitted: dict[int, tuple[Method, CalibratedRows]] = {}

    def source(self) -> dict[str, Any]:
        """Return the source's row and entry."""
        measured = self.state.load(SOURCE)
        if measured is None:
            result = self._measured_source.own_result()
            row = _row(SOURCE, result, self._after_steps(self._measured_source.entry))
            measured = {"row": row, "entry": result.to_dict()}
            self.state.save(SOURCE, measured)
        return measured

    def method(self, method: Method) -> dict[str, Any]:
        """Return a method's row and entry; one that cannot work has its reason and no entry."""
        try:
            measured = self.state.load(method)
            if measured is None:
                measured = self._measured(method)
                self.state.save(method, measured)
            if self.seeds > 1:
                measured["row"]["seed_range"] = self._seed_range(method, measured)
        except TokensurgeonError as error:
            return {"row": {**_row(method.label, None), "error": str(error)}, "entry": None}
        return measured

    def _measured(self, method: Method) -> dict[str, Any]:
        session = self.session
        patched = self._rows(session, method)
        entry = self._entry(session, method, patched)
        result = self._measured_source.result(entry)
        row = _row(method.label, result, self._after_steps(entry))
        row["seconds"] = round(patched.seconds, 3)
        row["donor"] = patched.used_donor
        row["forward_tokens"] = patched.forward_tokens
        row["gradient_steps"] = patched.gradient_steps
        row["body_numbers"] = 0 if patched.body is None else patched.body.n_numbers
        if patched.used_text:
            row["text_bytes"] = sum(len(text.encode()) for text in session.calibration_texts)
        measured: dict[str, Any] = {
            "row": row,
            "entry": result.to_dict(),
            "rows": rows_hash(patched),
        }
        if method.fitted:
            measured["adapting"] = adapting_stages(patched)
            measured["stages"] = [dataclasses.asdict(record) for record in patched.stages]
        return measured

    def _rows(self, session: Session, method: Method) -> PatchedRows:
        """Return a method's rows; healing goes on from the seed's last calibration if its own."""
        seed, fitted = session.recipe.seed, self._fitted.get(session.recipe.seed)
        if fitted and method.heal and fitted[0] == dataclasses.replace(method, heal=0.0):
            return fitted[1].healed(session, method.heal).to_rows(session)
        rows = make_rows(session, method)
        if method.fitted and not method.heal:
            self._fitted[seed] = method, rows
        return rows.to_rows(session)

    def gap_adapted(self, measured: dict[str, Any]) -> float | None:
        """Return a fitted method's gap to the source that was fitted in the same way.

        None for what is not fitted, and where the source cannot be.
        """
        if measured.get("adapting") is None:
            return None
        stages, heal = tuple(measured["adapting"][0]), measured["adapting"][1]
        if not stages and not heal:
            return float(measured["row"]["gap"])
        name = label(stages, heal)
        source = self.state.load(name)
        if source is None:
            try:
                twin, rows = adapted_source(self.session, stages, heal)
            except TokensurgeonError as error:
                self.session.warnings.append(f"{name} could not be measured: {error}")
                return None
            entry = Entry(name, patched_model(twin, rows), self.session.alignment.source)
            result = self.protocol.result(entry, self.protocol.score(entry, self.session.progress))
            source = {"entry": result.to_dict()}
            self.state.save(name, source)
        return float(measured["row"]["bits_per_byte"] - source["entry"]["bits_per_byte"])

    @cached_property
    def _measured_source(self) -> MeasuredSource:
        session = self.session
        entry = Entry(SOURCE, session.model, session.alignment.source)
        return MeasuredSource(self.protocol, entry, session.progress)

    def _entry(self, session: Session, method: Method, rows: PatchedRows) -> Entry:
        alignment = session.alignment
        model = patched_model(session, rows)
        return Entry(method.label, model, alignment.target, alignment=alignment)

    def _after_steps(self, entry: Entry) -> float | None:
        return self._after.bits_per_byte(entry, self.protocol) if self._after else None

    def _seed_range(self, method: Method, measured: dict[str, Any]) -> list[float] | None:
        """Repeat a random method with other seeds; None for one that is not."""
        figures = [measured["row"]["bits_per_byte"]]
        for repeat in range(1, self.seeds):
            again = self.state.load(method, repeat)
            if again is None:
                other = self.session.variant(seed=self.session.recipe.seed + repeat)
                rows = self._rows(other, method)
                again = {"rows": rows_hash(rows), "bits_per_byte": figures[0]}
                if again["rows"] != measured["rows"]:
                    result = self._measured_source.result(self._entry(other, method, rows))
                    again["bits_per_byte"] = result.bits_per_byte
                self.state.save(method, again, repeat)
            if repeat == 1 and again["rows"] == measured["rows"]:
                return None
            figures.append(again["bits_per_byte"])
        known = [value for value in figures if value is not None]
        return [min(known), max(known)] if len(known) > 1 else None


def _row(name: str, result: EntryResult | None, after_steps: float | None = None) -> dict[str, Any]:
    gap = result.difference if result else None
    return {
        "method": name,
        "bits_per_byte": result.bits_per_byte if result else None,
        **({} if after_steps is None else {"after_steps": after_steps}),
        "gap": gap.estimate if gap else None,
        "interval": [gap.low, gap.high] if gap else None,
        "closed": None,
        "gap_adapted": None,
        "perplexity_ratio": result.perplexity_ratio if result else None,
        "bytes_per_token": result.bytes_per_token if result else None,
        "donor": False,
        "text_bytes": 0,
        "forward_tokens": 0,
        "gradient_steps": 0,
        "body_numbers": 0,
        "seconds": None,
        "seed_range": None,
        "error": None,
    }


def _facts(session: Session, trained_limit: KnownLimit | None, seeds: int) -> dict[str, Any]:
    recipe, layout = session.recipe, session.inputs.checkpoint.layout
    return {
        "source": recipe.source,
        "target": recipe.target or "trained",
        "donor": recipe.donor,
        "tied": session.inputs.tied,
        "untied": layout.tied and recipe.untie,
        "default": Method(*default_methods(session.inputs)).label,
        "missing": int(session.alignment.missing.size),
        "n_target": session.alignment.target.n_rows,
        "calibration_bytes": sum(len(text.encode()) for text in session.calibration_texts),
        "trained_limit": trained_limit and dict(vars(trained_limit)),
        "seeds": seeds,
        "notes": list(session.warnings),
    }
