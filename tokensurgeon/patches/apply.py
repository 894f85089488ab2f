"""Give a checkpoint the tokenizer of a patch file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tokensurgeon.checkpoint import Checkpoint, PatchPlan, write_checkpoint
from tokensurgeon.checkpoint.likeness import LEAST_ALIKE, likeness
from tokensurgeon.errors import CheckpointError, TokenizerError
from tokensurgeon.models.reload import reload_check
from tokensurgeon.outputs import check_folder, scratch_folder
from tokensurgeon.patches.patch_file import FILES, RECORDS, SIDES, Facts, read_patch
from tokensurgeon.progress import Progress, no_progress
from tokensurgeon.surgery.row_records import BODY_RECORD, body_bytes, npz_bytes
from tokensurgeon.vocabulary import Vocabulary, load_vocabulary
from tokensurgeon.vocabulary.hard_text import hard_texts


def apply_patch(
    patch: str | Path,
    checkpoint: str | Path,
    output: str | Path,
    *,
    force: bool = False,
    trust_remote_code: bool = False,
    allow_autotokenizer_mismatch: bool = False,
    allow_other_model: bool = False,
    warnings: list[str] | None = None,
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
    allow_other_model : bool
        Apply it to a checkpoint that does not look like the source or a fine-tune of it.
    warnings : list of str or None
        What should be said is appended.
    progress : callable(done, total, what)

    Raises
    ------
    CheckpointError
        If the patch is damaged or not of this checkpoint's source, or nothing can be written.
    OutputExistsError
        If the output is there already.
    """
    output = check_folder(output, force=force, source=checkpoint, keep=(patch,))
    said = [] if warnings is None else warnings
    progress(0, 3, "reading")
    data = read_patch(Path(patch))
    facts, sides = data.facts, data.sides
    before = Checkpoint.open(checkpoint, trust_remote_code=trust_remote_code)
    layout = before.layout
    if load_vocabulary(before.path).fingerprint != facts.source_vocabulary:
        raise CheckpointError(
            f"{checkpoint} has another tokenizer than the source of {patch}; give a "
            "fine-tune that kept its tokenizer"
        )
    wanted = (facts.source_rows, facts.width, facts.source_tied)
    if (layout.n_rows, layout.width, layout.tied) != wanted:
        raise CheckpointError(
            f"{checkpoint} has {layout.n_rows} {'tied' if layout.tied else 'untied'} rows of width "
            f"{layout.width}; the source of {patch} had {wanted[0]} "
            f"{'tied' if wanted[2] else 'untied'} ones of width {wanted[1]}: give a fine-tune of it"
        )
    if bool(layout.bias_names) != (data.bias is not None):
        raise CheckpointError(
            f"{checkpoint} has {'an' if layout.bias_names else 'no'} output bias and the source of "
            f"{patch} {'none' if layout.bias_names else 'one'}: give a fine-tune of it"
        )
    unlike = _unlike(facts, before, str(checkpoint), str(patch))
    if unlike is not None and facts.sketch is not None and not allow_other_model:
        raise CheckpointError(f"{unlike}; give a fine-tune of it, or add --allow-other-model")
    said += [] if unlike is None else [unlike]
    progress(1, 3, "making rows")
    source_rows = [before.input_rows(), before.output_rows()][: len(sides)]
    rows = [side.rows(own, before.dtype) for side, own in zip(sides, source_rows, strict=True)]
    bias, source_bias = None, before.output_bias()
    if source_bias is not None and data.bias is not None:
        bias = np.asarray(
            sides[-1].weights @ source_bias[: facts.source_rows] + data.bias, np.float32
        )
    for name, side, own in zip(SIDES, sides, rows, strict=False):
        bad = np.flatnonzero((side.copied < 0) & ~np.isfinite(own).all(axis=1))
        if len(bad):
            raise CheckpointError(
                f"{patch} makes {len(bad):,} {name} rows of {checkpoint} NaN or Inf, the first of "
                f"id {bad[0]}: export it anew"
            )
    progress(2, 3, "writing")
    with scratch_folder() as scratch:
        for name in FILES:
            if name in data.files:
                (scratch / name).write_bytes(data.files[name])
        plan = PatchPlan(
            checkpoint=before,
            target=_tokenizer_of(patch, scratch),
            input_rows=rows[0],
            output_rows=rows[-1],
            output_bias=bias,
            copied_input=sides[0].copied,
            copied_output=sides[-1].copied,
            untie=layout.tied and not facts.tied,
            id_map={int(old): new for old, new in facts.id_map.items()},
            chat_template=facts.chat_template,
            special_tokens="target",  # the file's tokenizer is what the surgery wrote
            body=data.body,
        )
        records = {name: data.files[name] for name in RECORDS}
        for name, side in zip(SIDES, sides, strict=False):
            records[f"surgery/{name}_weights.npz"] = npz_bytes(side.weights)
        if data.body is not None:
            records[BODY_RECORD] = body_bytes(data.body)
        written = write_checkpoint(
            plan,
            output,
            force=force,
            extra_files=records,
            recipe_yaml=facts.recipe,
            probe_texts=hard_texts(),
            check=reload_check(plan),
            allow_autotokenizer_mismatch=allow_autotokenizer_mismatch,
        )
    said += written.warnings
    progress(3, 3, "written")
    return output


def _tokenizer_of(patch: str | Path, folder: Path) -> Vocabulary:
    """Load the tokenizer that a patch holds, unpacked in a folder of our own."""
    try:
        return load_vocabulary(folder)
    except TokenizerError as error:
        said = str(error).replace(f"{folder}/", "").replace(str(folder), "it")
        raise CheckpointError(
            f"{patch} holds a tokenizer that cannot be read ({said}): export it anew"
        ) from error


def _unlike(facts: Facts, before: Checkpoint, checkpoint: str, patch: str) -> str | None:
    """Say that a checkpoint does not look like a patch's source, or that none can tell."""
    if facts.sketch is None:
        return (
            f"{patch} has the older format {facts.version}, without a checksum and without what "
            f"tells whether {checkpoint} is a fine-tune of its source; export it again for both"
        )
    shares = likeness(facts.sketch, before)
    if shares.related:
        return None
    return (
        f"{checkpoint} is no fine-tune of the source of {patch}: {shares.rows:.0%} of the signs of "
        f"its rows and {shares.body:.0%} of its body's are the same, where a fine-tune has at "
        f"least {LEAST_ALIKE:.0%} and chance 50%"
    )
