"""Put the patched matrices together: copied rows, an initialiser's rows, and fallback rows.

The framework keeps the laws here, whatever an initialiser returns: shared rows are copied, new
rows are finite, tied stays one matrix, and every row that no method can answer for gets a fallback
row that is counted.
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from tokensurgeon.arrays import Float32, Ids, Mask
from tokensurgeon.calibration import Matrices, StageRecord
from tokensurgeon.checkpoint import BodyUpdate, round_rows
from tokensurgeon.errors import InitialiserError, TokensurgeonError, reason
from tokensurgeon.initialisers import build, mean_row
from tokensurgeon.initialisers.contract import (
    InitContext,
    Initialiser,
    NewRows,
    Resolvable,
    SideRows,
)
from tokensurgeon.recipe import InitSpec
from tokensurgeon.surgery.chosen_methods import build_initialiser
from tokensurgeon.surgery.row_origins import (
    CONTROL,
    FALLBACK,
    INITIALISED,
    copied_rows,
    row_origins,
)
from tokensurgeon.surgery.session import Session
from tokensurgeon.vocabulary import Kind, Vocabulary

_BLOCK = 8192
"""Rows that are rounded at once."""


@dataclass(frozen=True)
class Side:
    """One patched matrix and where its rows came from.

    Attributes
    ----------
    rows : float32 (n_rows, width)
        Already rounded to the checkpoint's dtype.
    copied : int64 (n_rows,)
        The source row that is copied bit for bit, or -1.
    weights : CSR float32 (n_rows, n_source)
        How each row is a sum of source rows; empty where a row is not.
    origin : uint8 (n_rows,)
        Index into `ORIGINS`.
    method : str
        The initialiser's name.
    settings : dict
    """

    rows: Float32
    copied: Ids
    weights: sp.csr_array
    origin: npt.NDArray[np.uint8]
    method: str
    settings: dict[str, Any]
    clipped: int = 0
    """New rows that were shortened."""


@dataclass(frozen=True)
class PatchedRows:
    """Both sides (one object twice when tied), the output bias, and what they took.

    `body` is merged into weights of the source's body, rounded as its files are.
    `forward_tokens` ran through the source's body; `used_donor` and `used_text` say what the
    methods looked at, found out by watching them. `stages` are the calibration's records,
    `calibration_bytes` the text it looked at, of which `generated` says that the source wrote it.
    """

    input: Side
    output: Side
    output_bias: Float32 | None
    seconds: float
    forward_tokens: int
    used_donor: bool
    used_text: bool
    notes: tuple[str, ...] = ()
    stages: tuple[StageRecord, ...] = ()
    gradient_steps: int = 0
    calibration_bytes: int = 0
    generated: bool = False
    body: BodyUpdate | None = None

    @property
    def tied(self) -> bool:
        """Whether the two sides are one matrix."""
        return self.input is self.output

    @property
    def matrices(self) -> Matrices:
        """What calibration works on."""
        return Matrices(self.input.rows, self.output.rows, self.output_bias, self.body)


def patch_rows(
    session: Session,
    methods: tuple[str, str],
    spec: InitSpec,
    initialiser: Initialiser | None = None,
) -> PatchedRows:
    """Compute the rows of a patched checkpoint, in memory.

    Parameters
    ----------
    session : Session
    methods : tuple of str
        Initialisers of the input and of the output side.
    spec : InitSpec
        Where their settings are.
    initialiser : Initialiser, optional
        Makes both sides, in the place of `methods`.

    Raises
    ------
    InitialiserError
        If a method cannot work here, breaks its contract or returns NaN or Inf.
    """
    start = time.perf_counter()
    context, forward = session.context, session.states.n_tokens
    steps = session.states.gradient_steps
    context.seen.clear()
    chosen = [initialiser or build_initialiser(name, spec, methods) for name in methods]
    answers = [_ask(chosen[0], context)]
    answers.append(answers[0] if chosen[1] == chosen[0] else _ask(chosen[1], context))
    # Before the fallback rows, which look at states and text for every method alike.
    forward = session.states.n_tokens - forward
    steps = session.states.gradient_steps - steps
    seen = frozenset(context.seen)
    notes: list[str] = []
    if session.inputs.tied:
        answer = answers[1].output or answers[1].input
        if answer is None:
            raise InitialiserError(
                f"'{chosen[1].name}' returned no rows: choose another with --init"
            )
        output, bias = _assemble(session, answer, "tied", chosen[1])
        matrices = [output, output]
    else:
        matrices = []
        for side, method, new in zip(("input", "output"), chosen, answers, strict=True):
            answer = new.input if side == "input" else new.output
            if answer is None:
                # "Not mine": the plain method stands in, and the report says so.
                notes.append(f"'{method.name}' has no {side} rows; 'subword-mean' made them")
                method = build("subword-mean", {})
                new = _ask(method, context)
                answer = new.input if side == "input" else new.output
                assert answer is not None  # subword-mean answers for both sides
            matrix, bias = _assemble(session, answer, side, method)
            matrices.append(matrix)
    return PatchedRows(
        matrices[0],
        matrices[1],
        bias,
        seconds=time.perf_counter() - start,
        forward_tokens=forward,
        used_donor="donor" in seen,
        used_text="text" in seen,
        notes=tuple(notes),
        gradient_steps=steps,
    )


def _ask(initialiser: Initialiser, context: InitContext) -> NewRows:
    try:
        answer = initialiser(context)
    except (TokensurgeonError, MemoryError):
        raise
    except Exception as error:
        if type(initialiser).__module__.startswith("tokensurgeon."):
            raise
        raise InitialiserError(
            f"the plug-in's '{initialiser.name}' fails: {type(error).__name__}: {reason(error)}; "
            "mend it, and try it with tokensurgeon initialisers check"
        ) from error
    if not isinstance(answer, NewRows):
        raise InitialiserError(
            f"'{initialiser.name}' returned {type(answer).__name__}, not NewRows: see "
            "tokensurgeon.check_initialiser"
        )
    return answer


def _settings(initialiser: Initialiser, context: InitContext) -> dict[str, Any]:
    """Return the settings as they were used."""
    used = initialiser.resolved(context) if isinstance(initialiser, Resolvable) else initialiser
    if not dataclasses.is_dataclass(used):
        return {}
    return {field.name: getattr(used, field.name) for field in dataclasses.fields(used)}


def _assemble(
    session: Session, answer: SideRows, side: str, initialiser: Initialiser
) -> tuple[Side, Float32 | None]:
    """Build one matrix from copied rows, the initialiser's answer and floor rows."""
    context, method = session.context, initialiser.name
    source_rows = context.input_rows if side == "input" else context.output_rows
    n_source, n_rows = context.n_source, session.inputs.n_rows
    copied = copied_rows(session.inputs, side)
    origin = row_origins(session.inputs, copied)
    is_copied = copied >= 0
    rows = np.zeros((n_rows, context.width), dtype=np.float32)
    rows[is_copied] = source_rows[copied[is_copied]]

    new = answer.values(source_rows)
    if new.shape != (context.n_missing, context.width):
        raise InitialiserError(
            f"'{method}' returned {side} rows of shape {new.shape}; "
            f"({context.n_missing}, {context.width}) was asked"
        )
    wanted = origin[context.missing] == INITIALISED
    finite = np.isfinite(new).all(axis=1) | ~wanted
    if not finite.all():
        token = context.target.spellings[int(context.missing[~finite][0])]
        raise InitialiserError(
            f"'{method}' made {int((~finite).sum())} {side} rows with NaN or Inf, the first for "
            f"{token!r}: choose another method, or check the donor's rows"
        )
    rows[context.missing[wanted]] = new if wanted.all() else new[wanted]
    del new
    bias = _bias(context, answer, copied, n_rows) if side != "input" else None
    _fill_fallback(session, side, source_rows, rows, origin, bias)
    for ids in np.array_split(np.flatnonzero(~is_copied), 1 + len(rows) // _BLOCK):
        rows[ids] = round_rows(rows[ids], session.inputs.checkpoint.dtype)
    weights = _weights(answer, context, copied, n_rows, n_source, wanted)
    return Side(rows, copied, weights, origin, method, _settings(initialiser, context)), bias


def _fill_fallback(
    session: Session,
    side: str,
    source_rows: Float32,
    rows: Float32,
    origin: npt.NDArray[np.uint8],
    bias: Float32 | None,
) -> None:
    """Fill the rows that no method answers for; mutates `rows` and `bias`.

    Input: the mean row (of trained control rows, for a control). Output, and the one matrix of a
    tied model: a row that no hidden state prefers.
    """
    context = session.context
    fallback = np.isin(origin, FALLBACK)
    if not fallback.any():
        return
    if side == "input":
        rows[fallback] = mean_row(source_rows, context.anchors)
        controls = _trained_controls(context.source, source_rows)
        if controls.any():
            rows[origin == CONTROL] = mean_row(source_rows, controls)
        return
    suppressed = session.suppressed_row
    rows[fallback] = suppressed.row
    if bias is not None:
        bias[fallback] = suppressed.bias


def _trained_controls(source: Vocabulary, rows: Float32) -> Mask:
    n = min(rows.shape[0], source.n_rows)
    controls = np.zeros(rows.shape[0], dtype=bool)
    controls[:n] = source.kinds[:n] == Kind.CONTROL
    controls &= np.isfinite(rows).all(axis=1) & (rows != 0).any(axis=1)
    return controls


def _bias(context: InitContext, answer: SideRows, copied: Ids, n_rows: int) -> Float32 | None:
    """Carry the output bias over: copied, or the same weights as the rows, else its mean."""
    source_bias = context.output_bias
    if source_bias is None:
        return None
    mean = np.float32(source_bias[context.anchors].mean() if context.anchors.any() else 0.0)
    bias = np.full(n_rows, mean, dtype=np.float32)
    if answer.weights is not None:
        n_virtual = answer.weights.shape[1] - context.n_source
        column = np.concatenate([source_bias, np.full(n_virtual, mean, dtype=np.float32)])
        bias[context.missing] = answer.weights @ column
    is_copied = copied >= 0
    bias[is_copied] = source_bias[copied[is_copied]]
    return bias


def _weights(
    answer: SideRows,
    context: InitContext,
    copied: Ids,
    n_rows: int,
    n_source: int,
    wanted: Mask,
) -> sp.csr_array:
    """Return the weights over source rows of every patched row, for `explain`."""
    ids = np.flatnonzero(copied >= 0)
    data = np.ones(ids.size, dtype=np.float32)
    weights = sp.csr_array((data, (ids, copied[ids])), shape=(n_rows, n_source))
    if answer.weights is None or not context.n_missing:
        return weights
    placed = sp.csr_array(
        (np.ones(int(wanted.sum()), np.float32), (context.missing[wanted], np.flatnonzero(wanted))),
        shape=(n_rows, context.n_missing),
    )
    new = placed @ answer.weights[:, :n_source].astype(np.float32)
    return sp.csr_array(weights + new)
