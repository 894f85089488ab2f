"""Fill a `SurgeryReport` from what the surgery knows."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from tokensurgeon.evaluation import Evaluation
from tokensurgeon.initialisers.contract import Rows
from tokensurgeon.report import (
    ChoiceFact,
    DonorFacts,
    HeavyFact,
    LoudFact,
    ModelFacts,
    RowAudit,
    RowCounts,
    SideReport,
    StageFact,
    SurgeryReport,
    TokenFact,
    TokenizerFacts,
    audit_rows,
    heavy_rows,
    loud_rows,
    percentiles,
    weight_norms,
)
from tokensurgeon.surgery.choose import Choice
from tokensurgeon.surgery.prepare import Operation, peak_memory
from tokensurgeon.surgery.rows import (
    INITIALISED,
    ORIGINS,
    PatchedRows,
    Side,
    copied_rows,
    row_origins,
)
from tokensurgeon.surgery.untying import untie_facts
from tokensurgeon.vocabulary import Vocabulary

LISTED = 20
"""Most rows of a kind that a report names."""

PROBES, PROBE_LENGTH = 16, 64
"""Most sequences, and tokens in each, whose states tell which new rows are loud."""


def make_report(
    operation: Operation,
    *,
    methods: tuple[str, str],
    made: Sequence[tuple[str, PatchedRows]] = (),
    evaluation: Evaluation | None = None,
    dry_run: dict[str, float] | None = None,
    choice: Choice | None = None,
) -> SurgeryReport:
    """Return the report; what the writer changes is filled in later.

    Parameters
    ----------
    operation : Operation
    methods : tuple of str
        Input and output initialiser.
    made : sequence of (name, PatchedRows)
        The patched rows first, then what is measured beside them; empty on a dry run.
    evaluation : Evaluation or None
    dry_run : dict or None
        The estimate of a dry run.
    choice : Choice or None
        What `auto` chose.
    """
    recipe, alignment = operation.recipe, operation.alignment
    rows = made[0][1] if made else None
    layout, target = operation.checkpoint.layout, alignment.target
    used = _n_tokens(target)
    output = _side(
        operation,
        rows.output if rows else None,
        methods[1],
        "output",
        rows.output_bias if rows else None,
    )
    given = sum(len(text.encode()) for text in operation.calibration_texts)
    why = None
    if evaluation is None:
        why = "a dry run" if dry_run is not None else "no evaluation text was given"
    return SurgeryReport(
        recipe=recipe.model_dump(mode="json"),
        source=ModelFacts(
            path=recipe.source,
            fingerprint=operation.checkpoint.fingerprint,
            model_type=layout.family,
            n_tokens=_n_tokens(alignment.source),
            n_rows=layout.n_rows,
            width=layout.width,
            tied=layout.tied,
            dtype=operation.checkpoint.dtype,
            max_positions=operation.checkpoint.max_positions,
        ),
        target=TokenizerFacts(
            path=recipe.target,
            fingerprint=target.fingerprint,
            n_tokens=used,
        ),
        donor=DonorFacts.model_validate(operation.donor_facts) if operation.donor_facts else None,
        alignment=alignment.summary(),
        rows=RowCounts(
            total=operation.n_rows,
            used=used,
            padding=max(operation.n_rows - target.n_rows, 0),
            holes=target.n_rows - used,
        ),
        tied=operation.tied,
        choice=tuple(ChoiceFact(**vars(line)) for line in choice.table) if choice else (),
        choice_why=choice.why if choice else None,
        stages=tuple(StageFact(**stage.to_dict()) for stage in rows.stages) if rows else (),
        generated=rows.generated if rows else False,
        untied=untie_facts(operation),
        input=output
        if operation.tied
        else _side(operation, rows.input if rows else None, methods[0], "input"),
        output=output,
        unspellable=_facts(target, operation.unspellable),
        unmatched_controls=_facts(target, _without_rows(operation)),
        evaluation=evaluation.to_dict() if evaluation else None,
        not_evaluated=why,
        baselines=tuple(recipe.baselines),
        donor_methods=tuple(name for name, each in made if each.used_donor),
        text_methods=tuple(name for name, each in made if each.used_text),
        calibration_bytes=max(given, rows.calibration_bytes if rows else 0),
        timings={name: round(seconds, 4) for name, seconds in operation.timings.items()},
        peak_memory=peak_memory(),
        warnings=tuple(operation.warnings),
        dry_run=dry_run is not None,
        estimate=dry_run,
    )


def _n_tokens(vocabulary: Vocabulary) -> int:
    return sum(spelling is not None for spelling in vocabulary.spellings)


def _without_rows(operation: Operation) -> np.ndarray:
    """Return the unmatched controls that copy no row: a start token may have copied one."""
    ids = operation.alignment.unmatched_controls
    side = "tied" if operation.tied else "input"
    return ids[copied_rows(operation, side)[ids] < 0]


def _facts(target: Vocabulary, ids: np.ndarray) -> tuple[TokenFact, ...]:
    return tuple(TokenFact(id=int(i), spelling=target.spellings[int(i)] or "") for i in ids)


def _side(
    operation: Operation,
    side: Side | None,
    method: str,
    name: str,
    bias: Rows | None = None,
) -> SideReport:
    """Count where a side's rows come from and audit the new ones."""
    if side is None:
        origin = row_origins(operation, copied_rows(operation, "tied" if operation.tied else name))
        return SideReport(method=method, settings={}, audit=RowAudit(), **_counts(origin))
    new = np.flatnonzero(side.origin == INITIALISED)
    context = operation.context
    trained = context.input_rows if name == "input" else context.output_rows
    spellings = operation.alignment.target.spellings
    audit = audit_rows(side.rows[new], new, trained[context.anchors], spellings)
    norms = weight_norms(side.weights, new)
    heavy = heavy_rows(norms)
    more: dict[str, object] = {
        "weights": percentiles(norms),
        "clipped": side.clipped,
        "n_heavy": len(heavy),
        "heavy": tuple(
            HeavyFact(id=int(new[i]), spelling=spellings[int(new[i])] or "", norm=float(norms[i]))
            for i in heavy[:LISTED]
        ),
    }
    if name == "output" and len(new):
        more |= _loud(operation, side, bias, new)
    return SideReport(
        method=side.method,
        settings=side.settings,
        **_counts(side.origin),
        audit=audit.model_copy(update=more),
    )


def _loud(
    operation: Operation, side: Side, bias: Rows | None, new: np.ndarray
) -> dict[str, object]:
    """Look for loud rows with the source's states, if it is loaded: it is not loaded for this."""
    layout, checkpoint = operation.checkpoint.layout, operation.checkpoint
    if "model" not in vars(operation):
        return {"not_probed": "the model was not loaded for anything else"}
    if checkpoint.hidden_width != layout.width:
        return {"not_probed": "its states are not as wide as its rows"}
    source, prefix = operation.alignment.source, list(operation.context.prefix)
    texts, counts = operation.calibration_texts[:PROBES], None
    length = min(checkpoint.max_positions or PROBE_LENGTH, PROBE_LENGTH)
    if texts:
        sequences = [[*prefix, *source.encode(text[: 8 * length])] for text in texts]
        target = operation.alignment.target
        ids = [i for text in texts for i in target.encode(text[: 8 * length])]
        counts = np.bincount(ids, minlength=len(side.rows)).astype(np.int64)[: len(side.rows)]
    else:  # tokens at random: states of a kind, and nothing to count
        anchors = np.flatnonzero(operation.context.anchors)
        drawn = np.random.default_rng(operation.recipe.seed).choice(anchors, (PROBES, 8))
        sequences = [[*prefix, *row] for row in drawn.tolist()]
    usable = [each[:length] for each in sequences if each and max(each) < layout.n_rows]
    if not usable:
        return {"not_probed": "the probe text has no tokens of the source"}
    states = np.concatenate(operation.model.every_state(usable, operation.model.n_layers))
    found = loud_rows(
        side.rows, bias, states, new, counts, softcap=layout.softcap, scale=layout.logit_scale
    )
    spellings = operation.alignment.target.spellings
    return {
        "states": len(states),
        "n_loud": len(found),
        "loud": tuple(
            LoudFact(spelling=spellings[row.id] or "", **dataclasses.asdict(row))
            for row in found[:LISTED]
        ),
    }


def _counts(origin: np.ndarray) -> dict[str, int]:
    """Count the rows by where they came from."""
    counts = np.bincount(origin, minlength=len(ORIGINS)).tolist()
    names = ("copied", "initialised", "unspellable", "controls", "padding", "aliases")
    return dict(zip((*names, "recalibrated"), counts, strict=True))
