"""A surgery as one small file, which gives any fine-tune of the same source the new tokenizer.

A row of the patched checkpoint is a sum of source rows (most are one, copied) plus, where that is
not all of it, a remainder: what calibration changed, hidden states, floor rows. The file holds the
sums as sparse weights and the remainders that are not nothing, with the tokenizer's files. Applied
to a fine-tune, the sums are taken of *its* rows and the remainders added; applied to the source
itself, the rows are those of the surgery, bit for bit. Where the surgery changed the body, the file
holds the factors of that change, which are merged into the fine-tune's weights.

No row or weight of the model itself is in the file, unless it is a remainder.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from tokensurgeon.alignment import align
from tokensurgeon.arrays import Float32, Ids
from tokensurgeon.checkpoint import (
    BodyUpdate,
    Checkpoint,
    PatchPlan,
    round_rows,
    write_checkpoint,
)
from tokensurgeon.checkpoint.files import read_json
from tokensurgeon.checkpoint.ids import id_map
from tokensurgeon.checkpoint.manifest import NAME as MANIFEST
from tokensurgeon.errors import CheckpointError, OutputExistsError
from tokensurgeon.models.reload import reload_check
from tokensurgeon.progress import Progress, no_progress
from tokensurgeon.recipe import Recipe
from tokensurgeon.surgery.row_records import BODY_RECORD, body_bytes, npz_bytes, read_body
from tokensurgeon.vocabulary import load_vocabulary
from tokensurgeon.vocabulary.hard_text import hard_texts

FORMAT, WITH_BODY = "tokensurgeon patch 1", "tokensurgeon patch 2"
"""What a file says of itself; a release that knows no changes of the body refuses the second."""
FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "seen.txt",
)
RECORDS = ("new_token_ids.json", "surgery/tokens.json")
SIDES = ("input", "output")
BODY = "body:"


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


@dataclass(frozen=True)
class _Side:
    """How the rows of one side come about from a source's."""

    copied: Ids
    weights: sp.csr_array
    remainder_ids: Ids
    remainder: Float32

    def rows(self, source: Float32, dtype: str) -> Float32:
        """Return the rows for a source, rounded as they will be written."""
        rows = np.asarray(self.weights @ source[: self.weights.shape[1]], dtype=np.float32)
        rows[self.remainder_ids] += self.remainder
        is_copied = self.copied >= 0
        rows[~is_copied] = round_rows(rows[~is_copied], dtype)
        rows[is_copied] = source[self.copied[is_copied]]
        return rows

    def tensors(self, name: str) -> dict[str, Any]:
        """Return the arrays as a patch file names them."""
        csr = self.weights
        return {
            f"{name}.copied": self.copied,
            f"{name}.weights.data": csr.data.astype(np.float32),
            f"{name}.weights.indices": csr.indices.astype(np.int32),
            f"{name}.weights.indptr": csr.indptr.astype(np.int64),
            f"{name}.remainder_ids": self.remainder_ids,
            f"{name}.remainder": self.remainder,
        }

    @classmethod
    def read(cls, tensors: dict[str, Any], name: str, n_source: int) -> _Side:
        """Return a side of a patch file."""
        copied = tensors[f"{name}.copied"]
        csr = tuple(tensors[f"{name}.weights.{part}"] for part in ("data", "indices", "indptr"))
        weights = sp.csr_array(csr, shape=(len(copied), n_source))
        return cls(copied, weights, tensors[f"{name}.remainder_ids"], tensors[f"{name}.remainder"])


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
        Replace an existing file.
    progress : callable(done, total, what)

    Raises
    ------
    CheckpointError
        If `patched` has no records of a surgery, or the source is not the one it was made from.
    OutputExistsError
        If the output is there already.
    """
    from safetensors.numpy import save

    output, patched = Path(output), Path(patched)
    if output.exists() and not force:
        raise OutputExistsError(f"{output} exists; give --force to replace it")
    manifest, records = _records(patched)
    recipe = Recipe.parse(_yaml(manifest["recipe"]), where=f"{patched}/{MANIFEST}")
    progress(0, 3, "reading")
    result = Checkpoint.open(patched)
    before = Checkpoint.open(source or recipe.source)
    if before.fingerprint != manifest.get("source"):
        raise CheckpointError(
            f"{before.path} is not the checkpoint that {patched} was made from; "
            "give that one with --source"
        )
    tied = result.layout.tied
    tensors: dict[str, Any] = {}
    n_rows = n_copied = n_remainders = 0
    for number, name in enumerate(SIDES[: 1 if tied else 2], start=1):
        progress(number, 3, "taking rows apart")
        # A tied matrix follows the input side; its source's two sides are equal.
        source_rows = before.input_rows() if name == "input" else before.output_rows()
        result_rows = result.input_rows() if name == "input" else result.output_rows()
        weights = _weights(patched / f"surgery/{name}_weights.npz")
        side = _take_apart(
            np.array(records[name]["copied"], np.int64),
            weights,
            source_rows,
            result_rows,
            result.dtype,
        )
        tensors |= side.tensors(name)
        n_rows, n_copied = n_rows + len(result_rows), n_copied + int((side.copied >= 0).sum())
        n_remainders += len(side.remainder_ids)
    bias, source_bias = result.output_bias(), before.output_bias()
    if bias is not None and source_bias is not None:
        last = _Side.read(tensors, SIDES[0 if tied else 1], before.layout.n_rows)
        tensors["bias.remainder"] = bias - last.weights @ source_bias
    body = read_body(patched)
    if body is not None:
        tensors |= {f"{BODY}{name}": factor for name, factor in body.to_arrays().items()}
    alignment = align(load_vocabulary(before.path), load_vocabulary(patched), dict(recipe.map))
    for name in (*FILES, *RECORDS):
        if (patched / name).is_file():
            tensors[f"file:{name}"] = np.frombuffer((patched / name).read_bytes(), np.uint8)
    facts = {
        "format": FORMAT if body is None else WITH_BODY,
        "source_vocabulary": alignment.source.fingerprint,
        "source_rows": before.layout.n_rows,
        "source_tied": before.layout.tied,
        "tied": tied,
        "width": before.layout.width,
        "id_map": {str(old): new for old, new in id_map(alignment).items()},
        "chat_template": "source" if recipe.chat_template == "source" else "target",
        "recipe": manifest["recipe"],
    }
    tensors = {key: np.ascontiguousarray(value) for key, value in tensors.items()}
    data = save(tensors, {"patch": json.dumps(facts, ensure_ascii=False)})
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = output.with_name(f".{output.name}.new")
    temporary.write_bytes(data)
    temporary.replace(output)
    progress(3, 3, "written")
    n_body = 0 if body is None else len(body.names)
    return Exported(output, len(data), n_rows, n_copied, n_remainders, n_body)


def apply_patch(
    patch: str | Path,
    checkpoint: str | Path,
    output: str | Path,
    *,
    force: bool = False,
    trust_remote_code: bool = False,
    allow_autotokenizer_mismatch: bool = False,
    progress: Progress = no_progress,
) -> Path:
    """Give a fine-tune of a patch's source the patch's tokenizer.

    Parameters
    ----------
    patch : str or Path
        A file of `export_patch`.
    checkpoint : str or Path
        The source itself, or a checkpoint trained on from it with the same tokenizer.
    output : str or Path
        A folder; it appears whole or not at all.
    force, trust_remote_code, allow_autotokenizer_mismatch : bool
        As those of a recipe.
    progress : callable(done, total, what)

    Raises
    ------
    CheckpointError
        If the patch is not of this checkpoint's source, or nothing can be written.
    OutputExistsError
        If the output is there already.
    """
    output = Path(output)
    if output.exists() and not force:
        raise OutputExistsError(f"{output} exists; give --force to replace it")
    progress(0, 3, "reading")
    facts, tensors = _read(Path(patch))
    before = Checkpoint.open(checkpoint, trust_remote_code=trust_remote_code)
    layout = before.layout
    if load_vocabulary(before.path).fingerprint != facts["source_vocabulary"]:
        raise CheckpointError(
            f"{checkpoint} has another tokenizer than the source of {patch}; a patch fits "
            "fine-tunes that kept their tokenizer"
        )
    wanted = (facts["source_rows"], facts["width"], facts["source_tied"])
    if (layout.n_rows, layout.width, layout.tied) != wanted:
        raise CheckpointError(
            f"{checkpoint} has {layout.n_rows} {'tied' if layout.tied else 'untied'} rows of width "
            f"{layout.width}; the source of {patch} had {wanted[0]} "
            f"{'tied' if wanted[2] else 'untied'} ones of width {wanted[1]}"
        )
    progress(1, 3, "making rows")
    sides = [_Side.read(tensors, name, wanted[0]) for name in SIDES[: 1 if facts["tied"] else 2]]
    source_rows = [before.input_rows(), before.output_rows()][: len(sides)]
    rows = [side.rows(own, before.dtype) for side, own in zip(sides, source_rows, strict=True)]
    bias, source_bias = None, before.output_bias()
    if source_bias is not None:
        bias = np.asarray(sides[-1].weights @ source_bias + tensors["bias.remainder"], np.float32)
    body = _body(tensors)
    progress(2, 3, "writing")
    with tempfile.TemporaryDirectory() as scratch:
        for name, data in tensors.items():
            if name.removeprefix("file:") in FILES:
                (Path(scratch) / name.removeprefix("file:")).write_bytes(data.tobytes())
        plan = PatchPlan(
            checkpoint=before,
            target=load_vocabulary(scratch),
            input_rows=rows[0],
            output_rows=rows[-1],
            output_bias=bias,
            copied_input=sides[0].copied,
            copied_output=sides[-1].copied,
            untie=layout.tied and not facts["tied"],
            id_map={int(old): new for old, new in facts["id_map"].items()},
            chat_template=facts["chat_template"],
            special_tokens="target",  # the file's tokenizer is what the surgery wrote
            body=body,
        )
        records = {name: tensors[f"file:{name}"].tobytes() for name in RECORDS}
        for name, side in zip(SIDES, sides, strict=False):
            records[f"surgery/{name}_weights.npz"] = npz_bytes(side.weights)
        if body is not None:
            records[BODY_RECORD] = body_bytes(body)
        write_checkpoint(
            plan,
            output,
            force=force,
            extra_files=records,
            recipe_yaml=facts["recipe"],
            probe_texts=hard_texts(),
            check=reload_check(plan),
            allow_autotokenizer_mismatch=allow_autotokenizer_mismatch,
        )
    progress(3, 3, "written")
    return output


def _body(tensors: dict[str, Any]) -> BodyUpdate | None:
    """Return the change of the body that a patch file holds, if any."""
    factors = {key.removeprefix(BODY): of for key, of in tensors.items() if key.startswith(BODY)}
    return BodyUpdate.from_arrays(factors) if factors else None


def _take_apart(
    copied: Ids, weights: sp.csr_array, source: Float32, result: Float32, dtype: str
) -> _Side:
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
    return _Side(copied, weights, ids, remainder)


def _weights(path: Path) -> sp.csr_array:
    return sp.csr_array(sp.load_npz(path))


def _records(patched: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    if not (patched / RECORDS[1]).is_file() or not (patched / MANIFEST).is_file():
        raise CheckpointError(
            f"{patched} has no records of a surgery; export a folder that transplant wrote"
        )
    return read_json(patched, MANIFEST), read_json(patched, RECORDS[1])


def _yaml(text: str) -> Any:
    import yaml

    return yaml.safe_load(text)


def _read(patch: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(patch, framework="numpy") as file:
            facts = json.loads((file.metadata() or {}).get("patch", "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{patch} is no patch file; export one with 'patch export'"
        ) from error
    if not isinstance(facts, dict) or facts.get("format") not in (FORMAT, WITH_BODY):
        raise CheckpointError(f"{patch} is no patch file of this version ({WITH_BODY})")
    return facts, tensors
