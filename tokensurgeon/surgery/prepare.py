"""Read everything that a surgery needs, before any row is computed.

`prepare` opens the source, loads or trains the target vocabulary, reads the donor's rows and aligns
by bytes. It writes nothing but a tokenizer that the recipe asks for by name; the model's body is
loaded only when something first asks for it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tokensurgeon.alignment import Alignment, Match, align
from tokensurgeon.arrays import Float32, Ids
from tokensurgeon.checkpoint import Checkpoint, DonorFiles, read_donor_rows
from tokensurgeon.checkpoint.draft_target import big_rows, role_warnings
from tokensurgeon.initialisers.contract import DonorRows
from tokensurgeon.inspection.reach import no_longer_reached
from tokensurgeon.models.device_map import check_device
from tokensurgeon.outputs import check_folder
from tokensurgeon.progress import Progress, Timings, no_progress
from tokensurgeon.recipe import Recipe, TrainSpec
from tokensurgeon.surgery.held_text import HeldText, part_text
from tokensurgeon.surgery.inputs import Inputs
from tokensurgeon.surgery.requirements import check_kind, check_pad
from tokensurgeon.surgery.session import Session
from tokensurgeon.text.corpus import find_files
from tokensurgeon.trainers.digit_cut import cut_digits
from tokensurgeon.trainers.from_recipe import train_target
from tokensurgeon.vocabulary import Vocabulary, load_vocabulary


def prepare(recipe: Recipe, progress: Progress = no_progress) -> Session:
    """Read source, target and donor, align them, and return a session on them.

    Raises
    ------
    OutputExistsError
        If the output is there already and the recipe does not say `force`; checked first.
    CheckpointError, TokenizerError, AlignmentError, CorpusError
        As the readers raise them.
    """
    timings = Timings()
    return Session(read_inputs(recipe, progress, timings), progress=progress, timings=timings)


def read_inputs(recipe: Recipe, progress: Progress, timings: Timings) -> Inputs:
    """Read source, target and donor, and align them; see `prepare`."""
    if recipe.output is not None:
        read = (recipe.donor, recipe.for_draft, recipe.target)
        check_folder(recipe.output, force=recipe.force, source=recipe.source, keep=read)
    check_device(recipe.device)
    for use in ("calibration", "evaluation", "elsewhere", "other", "chat"):
        if patterns := getattr(recipe.text, use):
            find_files(patterns)  # a text that this surgery needs no part of has to be there too
    trust = recipe.trust_remote_code
    with timings.timed("read"):
        checkpoint = Checkpoint.open(recipe.source, trust_remote_code=trust)
        source = load_vocabulary(checkpoint.path)
        donor = None if recipe.donor is None else read_donor_rows(recipe.donor)
    with timings.timed("target vocabulary"):
        held: HeldText | None = None
        spec = recipe.tokenizer
        if isinstance(spec, TrainSpec):
            held = part_text(spec.corpus) if recipe.text.hold_out else None
            parted = None if held is None else (held.training, held.held_out)
            target = train_target(spec, source, recipe.force, progress, parted)
        else:
            named = spec or recipe.for_draft or (donor and donor.vocabulary)
            assert named is not None  # Recipe checks it
            target = load_vocabulary(named)
        lost: tuple[int, ...] = ()
        if recipe.digits == "source":
            target, lost = _cut_as(source, target)
    notes = check_kind(checkpoint, target, recipe)
    with timings.timed("align"):
        n_source_rows = checkpoint.layout.n_rows
        alignment = _within_rows(align(source, target, recipe.map), n_source_rows)
        check_pad(checkpoint, alignment, recipe)
        notes += alignment.warnings
        unreached = np.intersect1d(alignment.missing, lost).astype(np.int64)
        if lost:
            notes.append(
                f"digit runs are cut as {target.number_scheme!r}, as in the source: {len(lost):,} "
                f"tokens of the target are never written any more, {unreached.size:,} of them "
                "missing ones, which no method makes"
            )
        progress(0, 1, "spelling missing tokens")
        pieces, unspellable = spell(alignment, n_source_rows, unreached)
        progress(1, 1, "spelling missing tokens")
        n_rows = _row_count(recipe, n_source_rows, alignment)
        if recipe.for_draft is not None:
            n_rows = max(n_rows, big_rows(recipe.for_draft, target, trust_remote_code=trust))
            notes += role_warnings(recipe.for_draft, target, trust_remote_code=trust)
        rows = facts = None
        if donor is not None:
            rows, facts, note = _by_target_id(donor, alignment, str(recipe.donor))
            notes += note
    return Inputs(
        recipe=recipe,
        checkpoint=checkpoint,
        alignment=alignment,
        pieces=pieces,
        unspellable=unspellable,
        donor=rows,
        donor_facts=facts,
        n_rows=n_rows,
        notes=tuple(notes),
        held=held,
        unreached=unreached,
    )


def _cut_as(source: Vocabulary, target: Vocabulary) -> tuple[Vocabulary, tuple[int, ...]]:
    """Return the target with the source's cut of digits, and the tokens that it emits no more."""
    cut = cut_digits(target, source.number_scheme)
    return cut, () if cut is target else no_longer_reached(target, cut)


def _within_rows(alignment: Alignment, n_source_rows: int) -> Alignment:
    """Unmatch target ids whose source id has no row: some tokenizers know more ids than rows."""
    beyond = alignment.source_ids >= n_source_rows
    if not beyond.any():
        return alignment
    source_ids = np.where(beyond, -1, alignment.source_ids)
    match = np.where(beyond, Match.NONE, alignment.match).astype(np.uint8)
    note = f"{int(beyond.sum())} tokens of the source have no row in its matrix; taken as missing"
    return alignment.with_matches(source_ids, match, note)


def spell(
    alignment: Alignment, n_source_rows: int, unreached: Ids | tuple[()] = ()
) -> tuple[dict[int, tuple[int, ...]], Ids]:
    """Return the pieces of each missing token, and the ids of those that nothing can spell.

    Tokens that are never emitted (`unreached`) are neither.

    A source that lower-cases cannot spell " The"; the pieces of what it makes of it stand in.
    """
    source = alignment.source
    rowless = range(n_source_rows, source.n_rows)
    pieces: dict[int, tuple[int, ...]] = {}
    unspellable: list[int] = []
    for i in np.setdiff1d(alignment.missing, unreached).tolist():
        data = alignment.target.token_bytes[i]
        spelled = None
        if data:
            spelled = source.pieces_of(data, forbid=rowless) or source.near_pieces_of(data)
        if spelled and max(spelled) < n_source_rows:
            pieces[i] = spelled
        else:
            unspellable.append(i)
    return pieces, np.array(unspellable, dtype=np.int64)


def _row_count(recipe: Recipe, n_source_rows: int, alignment: Alignment) -> int:
    """Return the rows of the patched matrices: all stay for the source's own vocabulary."""
    needed = alignment.target.n_rows
    same = alignment.is_identity or alignment.is_permutation
    if same and not recipe.trim_rows:
        needed = max(needed, n_source_rows)
    multiple = recipe.pad_to_multiple_of
    return -(-needed // multiple) * multiple


def _by_target_id(
    donor: DonorFiles, alignment: Alignment, name: str
) -> tuple[DonorRows, dict[str, Any], list[str]]:
    """Bring the donor's rows into the order of the target's ids; with facts, and notes."""
    target, missing = alignment.target, alignment.missing
    vocabulary = load_vocabulary(donor.vocabulary)
    same = vocabulary.fingerprint == target.fingerprint
    n_donor, width = donor.input.shape
    ids = _donor_ids(vocabulary, target, same)
    present = (ids >= 0) & (ids < n_donor)
    sides: list[Float32] = []
    for rows in (donor.input,) if donor.input is donor.output else (donor.input, donor.output):
        side = np.zeros((target.n_rows, width), dtype=np.float32)
        side[present] = rows[ids[present]]
        sides.append(side)
    known = present.copy()
    for side in sides:
        known &= np.isfinite(side).all(axis=1) & (side != 0).any(axis=1)
    for side in sides:
        side[~known] = 0
    n_unknown = int((~known[missing]).sum())
    notes = []
    if n_unknown:
        notes.append(
            f"the donor has no usable row for {n_unknown} of {missing.size} missing tokens"
        )
    facts = {
        "path": name,
        "fingerprint": vocabulary.fingerprint,
        "width": int(width),
        "n_rows": int(n_donor),
        "same_tokenizer": same,
        "known_missing": int(known[missing].sum()),
    }
    return DonorRows(input=sides[0], output=sides[-1], known=known), facts, notes


def _donor_ids(vocabulary: Vocabulary, target: Vocabulary, same: bool) -> Ids:
    """Return the donor's id of each target id, or -1."""
    return np.arange(target.n_rows) if same else align(vocabulary, target).source_ids
