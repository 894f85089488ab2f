"""Fill a `SurgeryReport` from what the surgery knows."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from tokensurgeon.arrays import ITEM_BYTES, Float32
from tokensurgeon.checkpoint import BodyUpdate
from tokensurgeon.evaluation import Evaluation
from tokensurgeon.inspection.extension import Extension
from tokensurgeon.inspection.row_audit import (
    heavy_rows,
    long_rows,
    over_predicted_rows,
    percentiles,
    row_norms,
    weight_norms,
)
from tokensurgeon.models.head import OutputHead
from tokensurgeon.progress import peak_memory
from tokensurgeon.report import (
    BodyFacts,
    DonorFacts,
    HeavyFact,
    ModelFacts,
    OverPredictedFact,
    RowAudit,
    RowCounts,
    SideReport,
    SurgeryReport,
    TokenFact,
    TokenizerDecision,
    TokenizerFacts,
    UntieFacts,
)
from tokensurgeon.surgery.choose import Choice
from tokensurgeon.surgery.estimate import Estimate
from tokensurgeon.surgery.inputs import Inputs
from tokensurgeon.surgery.measure import TIED_ENTRY
from tokensurgeon.surgery.row_origins import INITIALISED, ORIGINS, copied_rows, row_origins
from tokensurgeon.surgery.rows import PatchedRows, Side
from tokensurgeon.surgery.session import Session
from tokensurgeon.surgery.shown_rows import cuts, new_token_facts, row_maps
from tokensurgeon.vocabulary import Vocabulary

LISTED = 20
"""Most rows of a kind that a report names."""

PROBES, PROBE_LENGTH = 16, 64
"""Most sequences, and tokens in each, whose states tell which new rows are over-predicted."""


def make_report(
    session: Session,
    *,
    methods: tuple[str, str],
    compared: Sequence[tuple[str, PatchedRows]] = (),
    evaluation: Evaluation | None = None,
    elsewhere: Evaluation | None = None,
    extension: Extension | None = None,
    dry_run: Estimate | None = None,
    choice: Choice | None = None,
) -> SurgeryReport:
    """Return the report; what the writer changes is filled in later.

    Parameters
    ----------
    session : Session
    methods : tuple of str
        Input and output initialiser.
    compared : sequence of (name, PatchedRows)
        The patched rows first, then what is measured beside them; empty on a dry run.
    evaluation : Evaluation or None
    elsewhere : Evaluation or None
        On text of another kind.
    extension : Extension or None
        Where the target has all ids of the source and more.
    dry_run : Estimate or None
        The estimate of a dry run.
    choice : Choice or None
        What `auto` chose.
    """
    recipe, inputs = session.recipe, session.inputs
    checkpoint, alignment = inputs.checkpoint, inputs.alignment
    rows = compared[0][1] if compared else None
    layout, target = checkpoint.layout, alignment.target
    used = _n_tokens(target)
    output = _side(
        session,
        rows.output if rows else None,
        methods[1],
        "output",
        rows.output_bias if rows else None,
    )
    given = sum(len(text.encode()) for text in session.calibration_texts)
    why = None
    if evaluation is None:
        why = "a dry run" if dry_run is not None else "no evaluation text was given"
    return SurgeryReport(
        recipe=recipe.model_dump(mode="json"),
        source=ModelFacts(
            path=recipe.source,
            fingerprint=checkpoint.fingerprint,
            model_type=layout.family,
            n_tokens=_n_tokens(alignment.source),
            n_rows=layout.n_rows,
            width=layout.width,
            tied=layout.tied,
            dtype=checkpoint.dtype,
            max_positions=checkpoint.max_positions,
            kind=layout.kind,
        ),
        target=TokenizerFacts(
            path=recipe.target,
            fingerprint=target.fingerprint,
            n_tokens=used,
            gguf=target.segmentation["gguf"],
        ),
        donor=DonorFacts.model_validate(inputs.donor_facts) if inputs.donor_facts else None,
        alignment=alignment.summary(),
        rows=RowCounts(
            total=inputs.n_rows,
            used=used,
            padding=max(inputs.n_rows - target.n_rows, 0),
            holes=target.n_rows - used,
        ),
        tied=inputs.tied,
        choice=choice.table if choice else (),
        choice_why=choice.why if choice else None,
        stages=rows.stages if rows else (),
        generated=rows.generated if rows else False,
        body=_body_facts(rows.body if rows else None),
        untied=_untie_facts(inputs),
        tokenizer=tuple(
            TokenizerDecision(**dataclasses.asdict(one)) for one in session.tokenizer_decisions
        ),
        input=output
        if inputs.tied
        else _side(session, rows.input if rows else None, methods[0], "input"),
        output=output,
        unspellable=_facts(target, inputs.unspellable),
        unmatched_controls=_facts(target, _without_rows(inputs)),
        evaluation=evaluation.to_dict() if evaluation else None,
        not_evaluated=why,
        elsewhere=elsewhere.to_dict() if elsewhere else None,
        extension=extension.to_dict() if extension else None,
        new_tokens=new_token_facts(session, rows, evaluation) if rows and evaluation else (),
        row_maps=row_maps(session, rows) if rows else (),
        cuts=cuts(alignment) if rows else (),
        baselines=tuple(recipe.baselines),
        donor_methods=tuple(name for name, one in compared if one.used_donor),
        text_methods=tuple(name for name, one in compared if one.used_text),
        calibration_bytes=max(given, rows.calibration_bytes if rows else 0),
        timings={name: round(seconds, 4) for name, seconds in session.timings.seconds.items()},
        peak_memory=peak_memory(),
        warnings=tuple(session.warnings),
        dry_run=dry_run is not None,
        estimate=dry_run.totals if dry_run is not None else None,
        steps=dry_run.steps if dry_run is not None else (),
    )


def _n_tokens(vocabulary: Vocabulary) -> int:
    return sum(spelling is not None for spelling in vocabulary.spellings)


def _body_facts(update: BodyUpdate | None) -> BodyFacts:
    if update is None:
        return BodyFacts()
    return BodyFacts(
        changed=True, rank=update.rank, tensors=len(update.names), numbers=update.n_numbers
    )


def _untie_facts(inputs: Inputs) -> UntieFacts | None:
    """Return what untying adds to the checkpoint, or None where nothing is untied."""
    if not inputs.untied:
        return None
    checkpoint = inputs.checkpoint
    extra = inputs.n_rows * checkpoint.layout.width * ITEM_BYTES[checkpoint.dtype]
    return UntieFacts(extra_bytes=extra, tied_entry=TIED_ENTRY)


def _without_rows(inputs: Inputs) -> np.ndarray:
    """Return the unmatched controls that copy no row: a start token may have copied one."""
    ids = inputs.alignment.unmatched_controls
    side = "tied" if inputs.tied else "input"
    return ids[copied_rows(inputs, side)[ids] < 0]


def _facts(target: Vocabulary, ids: np.ndarray) -> tuple[TokenFact, ...]:
    return tuple(TokenFact(id=int(i), spelling=target.spellings[int(i)] or "") for i in ids)


def _side(
    session: Session,
    side: Side | None,
    method: str,
    name: str,
    bias: Float32 | None = None,
) -> SideReport:
    """Count where a side's rows come from and audit the new ones."""
    if side is None:
        inputs = session.inputs
        origin = row_origins(inputs, copied_rows(inputs, "tied" if inputs.tied else name))
        return SideReport(method=method, settings={}, audit=RowAudit(), **_counts(origin))
    new = np.flatnonzero(side.origin == INITIALISED)
    context = session.context
    trained = context.input_rows if name == "input" else context.output_rows
    target = session.alignment.target
    norms, trained_norms = row_norms(side.rows[new]), row_norms(trained[context.anchors])
    weights = weight_norms(side.weights, new)
    heavy = heavy_rows(weights)
    audit: dict[str, object] = {
        "new": percentiles(norms),
        "trained": percentiles(trained_norms),
        "weights": percentiles(weights),
        "nonfinite": int((~np.isfinite(norms)).sum()),
        "long": _facts(target, new[long_rows(norms, trained_norms)[:LISTED]]),
        "heavy": tuple(
            HeavyFact(**dict(fact), norm=float(weights[i]))
            for i, fact in zip(heavy[:LISTED], _facts(target, new[heavy[:LISTED]]), strict=True)
        ),
        "n_heavy": len(heavy),
        "clipped": side.clipped,
    }
    if name == "output" and len(new):
        audit |= _over_predicted(session, side, bias, new)
    return SideReport(
        method=side.method,
        settings=side.settings,
        **_counts(side.origin),
        audit=RowAudit.model_validate(audit),
    )


def _over_predicted(
    session: Session, side: Side, bias: Float32 | None, new: np.ndarray
) -> dict[str, object]:
    """Look for over-predicted rows with the source's states, if it is loaded for something else."""
    checkpoint = session.inputs.checkpoint
    layout = checkpoint.layout
    if not session.model_loaded:
        return {"not_probed": "the model was not loaded for anything else"}
    if checkpoint.hidden_width != layout.width:
        return {"not_probed": "its states are not as wide as its rows"}
    source, prefix = session.alignment.source, list(session.context.prefix)
    texts, counts = session.calibration_texts[:PROBES], None
    length = min(checkpoint.max_positions or PROBE_LENGTH, PROBE_LENGTH)
    if texts:
        sequences = [[*prefix, *source.encode(text[: 8 * length])] for text in texts]
        target = session.alignment.target
        ids = [i for text in texts for i in target.encode(text[: 8 * length])]
        counts = np.bincount(ids, minlength=len(side.rows)).astype(np.int64)[: len(side.rows)]
    else:  # tokens at random: states of a kind, and nothing to count
        anchors = np.flatnonzero(session.context.anchors)
        drawn = np.random.default_rng(session.recipe.seed).choice(anchors, (PROBES, 8))
        sequences = [[*prefix, *row] for row in drawn.tolist()]
    usable = [ids[:length] for ids in sequences if ids and max(ids) < layout.n_rows]
    if not usable:
        return {"not_probed": "the probe text has no tokens of the source"}
    states = session.model.all_states(usable, session.model.n_layers)
    head = OutputHead(side.rows, bias, layout.logit_scale, layout.softcap)
    over_predicted = over_predicted_rows(head, states, new, counts)
    spellings = session.alignment.target.spellings
    return {
        "states": len(states),
        "n_over_predicted": len(over_predicted),
        "over_predicted": tuple(
            OverPredictedFact(spelling=spellings[row.id] or "", **dataclasses.asdict(row))
            for row in over_predicted[:LISTED]
        ),
    }


def _counts(origin: np.ndarray) -> dict[str, int]:
    """Count the rows by where they came from."""
    counts = np.bincount(origin, minlength=len(ORIGINS)).tolist()
    names = ("copied", "initialised", "unspellable", "controls", "padding", "aliases")
    return dict(zip((*names, "recalibrated", "unreached"), counts, strict=True))
