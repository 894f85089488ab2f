"""Write the surgery that made a checkpoint as a patch file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from tokensurgeon.alignment import align
from tokensurgeon.arrays import Float32, Ids
from tokensurgeon.checkpoint import Checkpoint, round_rows
from tokensurgeon.checkpoint.files import check_inside, read_json
from tokensurgeon.checkpoint.ids import id_map
from tokensurgeon.checkpoint.likeness import Sketch
from tokensurgeon.checkpoint.manifest import NAME as MANIFEST
from tokensurgeon.checkpoint.manifest import read_manifest
from tokensurgeon.errors import CheckpointError
from tokensurgeon.outputs import check_file, write_whole
from tokensurgeon.outputs.paths import check_apart, safetensors_with
from tokensurgeon.patches.patch_file import FILES, FORMAT, RECORDS, SIDES, Facts, Patch, PatchSide
from tokensurgeon.progress import Progress, no_progress
from tokensurgeon.recipe import Recipe
from tokensurgeon.recipe_yaml import read_yaml
from tokensurgeon.report.records import read_weights
from tokensurgeon.surgery.row_records import read_body
from tokensurgeon.vocabulary import load_vocabulary


@dataclass(frozen=True)
class Exported:
    """What was exported.

    Attributes
    ----------
    path : Path
    n_bytes : int
        Of the file.
    rows, copied, remainders : int
        Rows of both sides (once where tied): in all, copied, and with a remainder.
    body_tensors : int
        Weights of the body that it changes.
    """

    path: Path
    n_bytes: int
    rows: int
    copied: int
    remainders: int
    body_tensors: int = 0


def export_patch(
    patched: str | Path,
    output: str | Path,
    *,
    source: str | Path | None = None,
    force: bool = False,
    progress: Progress = no_progress,
) -> Exported:
    """Write the surgery that made a checkpoint as one file.

    Parameters
    ----------
    patched : str or Path
        A checkpoint that `transplant` wrote.
    output : str or Path
        A ``.safetensors`` file.
    source : str, Path or None
        The checkpoint it was made from; None takes the one its recipe names.
    force : bool
        Replace an existing patch; another file is never replaced.
    progress : callable(done, total, what)

    Raises
    ------
    CheckpointError
        If `patched` has no records of a surgery, or the source is not the one it was made from.
    OutputExistsError
        If the output is there already.
    """
    patched = Path(patched).expanduser()
    output = check_file(
        output, force=force, what="a patch", is_ours=safetensors_with("patch"), make_parent=True
    )
    check_apart(output, patched)
    manifest, records = _records(patched)
    recipe_text = str(manifest.get("recipe"))
    where = f"{patched}/{MANIFEST}"
    recipe = Recipe.parse(read_yaml(recipe_text, where), where=where)
    progress(0, 3, "reading")
    result = Checkpoint.open(patched)
    before = Checkpoint.open(source or recipe.source)
    if before.fingerprint != manifest.get("source"):
        raise CheckpointError(
            f"{before.path} is not the checkpoint that {patched} was made from; "
            "give that one with --source"
        )
    tied = result.layout.tied
    sides: list[PatchSide] = []
    for number, name in enumerate(SIDES[: 1 if tied else 2], start=1):
        progress(number, 3, "taking rows apart")
        # A tied matrix follows the input side; its source's two sides are equal.
        source_rows = before.input_rows() if name == "input" else before.output_rows()
        result_rows = result.input_rows() if name == "input" else result.output_rows()
        shape = (len(result_rows), len(source_rows))
        weights = read_weights(patched / f"surgery/{name}_weights.npz")
        copied = _copied(records, name, *shape)
        if copied is None or weights.shape[0] != shape[0] or weights.shape[1] > shape[1]:
            raise CheckpointError(
                f"the records in {patched}/surgery are not of its {shape[0]:,} {name} rows: "
                "transplant again"
            )
        sides.append(_take_apart(copied, weights, source_rows, result_rows, result.dtype))
    bias, source_bias = result.output_bias(), before.output_bias()
    if bias is not None and source_bias is not None:
        bias = bias - sides[-1].weights @ source_bias[: sides[-1].weights.shape[1]]
    alignment = align(load_vocabulary(before.path), load_vocabulary(patched), dict(recipe.map))
    facts = Facts(
        format=f"tokensurgeon patch {FORMAT}",
        source_vocabulary=alignment.source.fingerprint,
        source_rows=before.layout.n_rows,
        source_tied=before.layout.tied,
        tied=tied,
        width=before.layout.width,
        id_map={str(old): new for old, new in id_map(alignment).items()},
        chat_template="source" if recipe.chat_template == "source" else "target",
        recipe=recipe_text,
        sketch=Sketch.of(before),
    )
    files = {
        name: check_inside(patched, name).read_bytes()
        for name in (*FILES, *RECORDS)
        if (patched / name).is_file()
    }
    body = read_body(patched)
    data = Patch(facts, tuple(sides), bias, body, files).to_bytes()
    output.parent.mkdir(parents=True, exist_ok=True)
    write_whole(output, data)
    progress(3, 3, "written")
    copies = [int((side.copied >= 0).sum()) for side in sides]
    return Exported(
        output,
        len(data),
        rows=sum(len(side.copied) for side in sides),
        copied=sum(copies),
        remainders=sum(len(side.remainder_ids) for side in sides),
        body_tensors=0 if body is None else len(body.names),
    )


def _take_apart(
    copied: Ids, weights: sp.csr_array, source: Float32, result: Float32, dtype: str
) -> PatchSide:
    """Return the sums, and the remainders of the rows that the sums do not give."""
    sums = np.asarray(weights @ source[: weights.shape[1]], dtype=np.float32)
    other = (copied < 0) & (round_rows(sums, dtype) != result).any(axis=1)
    ids = np.flatnonzero(other)
    remainder = result[ids] - sums[ids]
    # Where adding loses the last bits, the row is its remainder alone.
    lost = (round_rows(sums[ids] + remainder, dtype) != result[ids]).any(axis=1)
    if lost.any():
        keep = np.ones(len(copied), np.float32)
        keep[ids[lost]] = 0
        weights = sp.csr_array(sp.diags_array(keep) @ weights)
        weights.eliminate_zeros()
        remainder[lost] = result[ids[lost]]
    return PatchSide(copied, weights, ids, remainder)


def _copied(records: dict[str, Any], name: str, n_target: int, n_source: int) -> Ids | None:
    """Return which source row each row is a copy of, or None where the record cannot be."""
    side = records.get(name)
    ids = side.get("copied") if isinstance(side, dict) else None
    if not isinstance(ids, list) or len(ids) != n_target:
        return None
    right = all(type(i) is int and -1 <= i < n_source for i in ids)
    return np.array(ids, np.int64) if right else None


def _records(patched: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    if not (patched / RECORDS[1]).is_file() or not (patched / MANIFEST).is_file():
        raise CheckpointError(
            f"{patched} has no records of a surgery; export a folder that transplant wrote"
        )
    return read_manifest(patched), read_json(patched, RECORDS[1])
