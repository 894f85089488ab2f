"""The records that go beside a patched checkpoint, for `explain` and for further training.

``surgery/input_weights.npz``, ``surgery/output_weights.npz``
    scipy CSR (n_rows, n_source): how each row is a sum of source rows. The output's is left out
    where the two sides are one matrix.
``surgery/tokens.json``
    Spellings of both vocabularies, and per target id its match, source id, pieces and origin,
    and `rest`: the share of its row's norm that the weights do not say (the mean row, hidden
    states, a fallback row).
``surgery/body_update.safetensors``
    The factors of what was merged into weights of the body, ``A:NAME`` (out, rank) and ``B:NAME``
    (rank, in); only where the body was changed.
``new_token_ids.json``
    The ids whose rows are new: what to train first.
``draft_vocabulary/``
    The maps of a draft's cut head, where one was asked for.
"""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from tokensurgeon.alignment import Match
from tokensurgeon.arrays import Float32, Ids
from tokensurgeon.checkpoint import BodyUpdate
from tokensurgeon.checkpoint.draft_vocabulary import kept_tokens, map_files
from tokensurgeon.errors import CheckpointError
from tokensurgeon.surgery.row_origins import CONTROL, INITIALISED, ORIGINS, UNSPELLABLE
from tokensurgeon.surgery.rows import PatchedRows, Side
from tokensurgeon.surgery.session import Session
from tokensurgeon.surgery.shown_rows import rest_of_rows

BODY_RECORD = "surgery/body_update.safetensors"


def record_files(session: Session, rows: PatchedRows) -> dict[str, bytes | str]:
    """Return the records by file name."""
    files: dict[str, bytes | str] = {
        "new_token_ids.json": _new_token_ids(session, rows),
        "surgery/tokens.json": _tokens(session, rows),
        "surgery/input_weights.npz": npz_bytes(rows.input.weights),
    }
    if not rows.tied:
        files["surgery/output_weights.npz"] = npz_bytes(rows.output.weights)
    if rows.body is not None:
        files[BODY_RECORD] = body_bytes(rows.body)
    if session.recipe.draft_vocabulary is not None:
        files |= map_files(kept_of_draft(session), len(rows.output.rows))
    return files


def kept_of_draft(session: Session) -> Ids:
    """Return the ids that the cut head of the draft keeps, int64, ascending.

    Raises
    ------
    UsageError
        If so many tokens cannot be kept.
    """
    context, n = session.context, session.recipe.draft_vocabulary
    assert n is not None
    assert context.target_counts is not None  # Recipe asks for the text
    return kept_tokens(context.target, context.target_counts, n)


def body_bytes(update: BodyUpdate) -> bytes:
    """Return an update of the body as the bytes of its record."""
    from safetensors.numpy import save

    return save(update.to_arrays())


def read_body(folder: Path) -> BodyUpdate | None:
    """Return the update that was merged into a written checkpoint's body; None where none was.

    Raises
    ------
    CheckpointError
        If its record cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    path = folder / BODY_RECORD
    if not path.is_file():
        return None
    try:
        return BodyUpdate.from_arrays(load_file(path))
    except (SafetensorError, OSError, KeyError) as error:
        raise CheckpointError(
            f"{path} cannot be read as the change of a body; transplant again"
        ) from error


def npz_bytes(weights: sp.csr_array) -> bytes:
    """Return weights as the bytes of an npz file of scipy's."""
    buffer = io.BytesIO()
    sp.save_npz(buffer, weights)
    return buffer.getvalue()


def new_tokens(rows: PatchedRows) -> list[int]:
    """Return the ids whose row is new on either side, ascending."""
    new = (INITIALISED, UNSPELLABLE, CONTROL)
    either = np.isin(rows.input.origin, new) | np.isin(rows.output.origin, new)
    tokens: list[int] = np.flatnonzero(either).tolist()
    return tokens


def _new_token_ids(session: Session, rows: PatchedRows) -> str:
    target, tokens = session.alignment.target, new_tokens(rows)
    data = {
        "new_token_ids": tokens,
        "spellings": [target.spellings[i] for i in tokens],
        "n_rows": session.inputs.n_rows,
    }
    return json.dumps(data, ensure_ascii=False) + "\n"


def _tokens(session: Session, rows: PatchedRows) -> str:
    alignment = session.alignment

    context = session.context

    def side(patched: Side, source_rows: Float32) -> dict[str, object]:
        rest = rest_of_rows(patched, source_rows, np.arange(len(patched.rows)))
        return {
            "rest": np.round(rest, 3).tolist(),
            "method": patched.method,
            "origin": [ORIGINS[code] for code in patched.origin],
            "copied": patched.copied.tolist(),
        }

    data = {
        "source": list(alignment.source.spellings),
        "target": list(alignment.target.spellings),
        "match": [Match(code).name.lower() for code in alignment.match.tolist()],
        "source_ids": alignment.source_ids.tolist(),
        "pieces": {str(i): list(pieces) for i, pieces in session.inputs.pieces.items()},
        "input": side(rows.input, context.output_rows if rows.tied else context.input_rows),
        "output": side(rows.output, context.output_rows),
        "tied": rows.tied,
    }
    return json.dumps(data, ensure_ascii=False) + "\n"
