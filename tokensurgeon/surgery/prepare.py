"""Read everything that a surgery needs, before any row is computed.

`prepare` opens the source, loads or trains the target vocabulary, reads the donor's rows, aligns
by bytes and builds the `InitContext`. It writes nothing but a tokenizer that the recipe asks for
by name; the model's body is loaded only when a method (or the evaluation) first asks for it.
"""

from __future__ import annotations

import contextlib
import resource
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tokensurgeon.alignment import Alignment, Match, align
from tokensurgeon.checkpoint import Checkpoint, read_donor_rows
from tokensurgeon.checkpoint.draft_target import big_rows, role_warnings
from tokensurgeon.checkpoint.embeddings import CAUSAL
from tokensurgeon.errors import CheckpointError, OutputExistsError
from tokensurgeon.evaluation import prefix_of
from tokensurgeon.initialisers import QuietRow, quiet_output_row
from tokensurgeon.initialisers.contract import DonorRows, Ids, Rows
from tokensurgeon.models.device_map import check_device, main_device
from tokensurgeon.progress import Progress, no_progress
from tokensurgeon.recipe import Recipe, TrainSpec
from tokensurgeon.surgery.context import LazyStates, WatchedContext
from tokensurgeon.surgery.limits import can_run, check_kind
from tokensurgeon.text.corpus import read_documents
from tokensurgeon.trainers.from_recipe import train_target
from tokensurgeon.vocabulary import Kind, Vocabulary, load_vocabulary

if TYPE_CHECKING:
    from tokensurgeon.calibration import Workbench
    from tokensurgeon.models.language_model import LanguageModel


@dataclass
class Operation:
    """A surgery that is prepared: everything read and aligned, nothing computed or written.

    Attributes
    ----------
    recipe : Recipe
    checkpoint : Checkpoint
    alignment : Alignment
    pieces : dict
        Missing target id → the source ids that spell it; ids that nothing can spell are absent.
    unspellable : int64
        Missing target ids without pieces.
    donor : DonorRows or None
    donor_facts : dict or None
        For the report.
    n_rows : int
        Rows of the patched matrices.
    timings : dict
        Seconds by stage.
    warnings : list of str
    """

    recipe: Recipe
    checkpoint: Checkpoint
    alignment: Alignment
    pieces: dict[int, tuple[int, ...]]
    unspellable: Ids
    donor: DonorRows | None
    donor_facts: dict[str, object] | None
    n_rows: int
    progress: Progress = no_progress
    timings: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    bench: Workbench | None = None
    """What calibration computed of the source, kept for the next method."""

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage of the surgery; stages of one name add up."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.timings[name] = self.timings.get(name, 0.0) + time.perf_counter() - start

    @cached_property
    def fits_here(self) -> bool:
        """Whether the source fits into memory, or may be spread; else it is not run."""
        return can_run(self.checkpoint, self.recipe)

    @property
    def has_states(self) -> bool:
        """Whether methods and calibration can run the source: a causal model that fits."""
        return self.checkpoint.layout.kind == CAUSAL and self.fits_here

    @property
    def tied(self) -> bool:
        """Whether the patched checkpoint has one matrix for both sides."""
        return self.checkpoint.layout.tied and not self.recipe.untie

    @cached_property
    def model(self) -> LanguageModel:
        """The source, loaded."""
        from tokensurgeon.models.load import load_model

        with self.stage("load model"):
            return load_model(
                self.checkpoint.path,
                device=self.recipe.device,
                dtype=self.recipe.dtype,
                trust_remote_code=self.recipe.trust_remote_code,
            )

    @cached_property
    def calibration_texts(self) -> tuple[str, ...]:
        """The calibration documents of the recipe."""
        patterns = self.recipe.text.calibration
        return tuple(document.text for document in read_documents(patterns)) if patterns else ()

    @cached_property
    def states(self) -> LazyStates:
        """The source's forward pass; its `n_tokens` counts what was run through it."""
        return LazyStates(self.checkpoint, lambda: self.model)

    @cached_property
    def context(self) -> WatchedContext:
        """What every initialiser of this surgery sees."""
        layout = self.checkpoint.layout
        source = self.alignment.source
        input_rows = self.checkpoint.input_rows()
        output_rows = input_rows if layout.tied else self.checkpoint.output_rows()
        if not self.recipe.allow_nonfinite:
            _refuse_nonfinite(input_rows, output_rows)
        missing = np.array(sorted(self.pieces), dtype=np.int64)
        texts = self.calibration_texts
        return WatchedContext(
            alignment=self.alignment,
            missing=missing,
            pieces=tuple(self.pieces[int(i)] for i in missing),
            input_rows=input_rows,
            output_rows=output_rows,
            tied=self.tied,
            anchors=trained_rows(source, input_rows, output_rows),
            embedding_multiplier=layout.embedding_multiplier,
            output_bias=self.checkpoint.output_bias(),
            softcap=layout.softcap,
            donor=self.donor,
            source_counts=_count(source, texts, layout.n_rows) if texts else None,
            target_counts=_count(self.alignment.target, texts, self.n_rows) if texts else None,
            texts=texts,
            states=self.states if self.has_states else None,
            prefix=prefix_of(source),
            device=main_device(self.recipe.device),
            memory_budget=int(self.recipe.memory_gib * 2**30),
            seed=self.recipe.seed,
            progress=self.progress,
        )

    @cached_property
    def quiet_row(self) -> QuietRow:
        """The output row of ids that nothing may emit, computed once for all methods."""
        return quiet_output_row(self.context)


def peak_memory() -> int:
    """Return the largest resident size of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def trained_rows(vocabulary: Vocabulary, *matrices: Rows) -> npt.NDArray[np.bool_]:
    """Return which source rows look trained, bool (n_source,).

    A row is an anchor if it belongs to an ordinary token and is finite, not zero and not one of
    several identical rows (a block of untrained rows often shares its initial value) on any side.
    """
    n_rows = matrices[0].shape[0]
    anchors = np.zeros(n_rows, dtype=bool)
    n = min(n_rows, vocabulary.n_rows)
    anchors[:n] = vocabulary.kinds[:n] == Kind.ORDINARY
    for rows in matrices:
        anchors &= np.isfinite(rows).all(axis=1) & (rows != 0).any(axis=1)
        _, which, counts = np.unique(row_hashes(rows), return_inverse=True, return_counts=True)
        anchors &= counts[which] == 1
    return anchors


def row_hashes(rows: Rows) -> npt.NDArray[np.uint64]:
    """Return a 64-bit hash of each row's bytes: equal rows, equal hashes, in little memory."""
    width = rows.shape[1]
    factors = np.random.default_rng(0).integers(1, 2**63, width, dtype=np.uint64) | np.uint64(1)
    hashes = np.empty(len(rows), dtype=np.uint64)
    for start in range(0, len(rows), 4096):
        bits = np.ascontiguousarray(rows[start : start + 4096]).view(np.uint32)
        # Multiply-add modulo 2^64: overflow is meant.
        hashes[start : start + 4096] = (bits.astype(np.uint64) * factors).sum(axis=1)
    return hashes


def prepare(recipe: Recipe, progress: Progress = no_progress) -> Operation:
    """Read source, target and donor, and align them.

    Raises
    ------
    OutputExistsError
        If the output is there already and the recipe does not say `force`; checked first.
    CheckpointError, TokenizerError, AlignmentError, CorpusError
        As the readers raise them.
    """
    start = time.perf_counter()
    if recipe.output is not None and Path(recipe.output).exists() and not recipe.force:
        raise OutputExistsError(f"{recipe.output} exists already: choose another or add --force")
    check_device(recipe.device)
    checkpoint = Checkpoint.open(recipe.source, trust_remote_code=recipe.trust_remote_code)
    source = load_vocabulary(checkpoint.path)
    donor_folder = donor_input = donor_output = None
    if recipe.donor is not None:
        donor_folder, donor_input, donor_output = read_donor_rows(recipe.donor)
    opened = time.perf_counter()
    if isinstance(recipe.tokenizer, TrainSpec):
        target = train_target(recipe.tokenizer, checkpoint.path, recipe.force, progress)
    else:
        chosen = recipe.tokenizer or recipe.for_draft or donor_folder
        assert chosen is not None  # Recipe checks it
        target = load_vocabulary(chosen)
    loaded = time.perf_counter()
    notes = check_kind(checkpoint, target, recipe)
    alignment = align(source, target, recipe.map)
    alignment = _within_rows(alignment, checkpoint.layout.n_rows)
    progress(0, 1, "spelling missing tokens")
    pieces, unspellable = spell(alignment, checkpoint.layout.n_rows)
    progress(1, 1, "spelling missing tokens")
    operation = Operation(
        recipe=recipe,
        checkpoint=checkpoint,
        alignment=alignment,
        pieces=pieces,
        unspellable=unspellable,
        donor=None,
        donor_facts=None,
        n_rows=_row_count(recipe, checkpoint.layout.n_rows, alignment),
        progress=progress,
        timings={"read": opened - start, "target vocabulary": loaded - opened},
        warnings=[*notes, *alignment.warnings],
    )
    if recipe.for_draft is not None:
        trust = recipe.trust_remote_code
        rows = big_rows(recipe.for_draft, target, trust_remote_code=trust)
        operation.n_rows = max(rows, operation.n_rows)
        operation.warnings += role_warnings(recipe.for_draft, target, trust_remote_code=trust)
    if donor_folder is not None and donor_input is not None and donor_output is not None:
        _attach_donor(operation, donor_folder, donor_input, donor_output)
    operation.timings["align"] = time.perf_counter() - loaded
    return operation


def _within_rows(alignment: Alignment, n_source_rows: int) -> Alignment:
    """Unmatch target ids whose source id has no row: some tokenizers know more ids than rows."""
    beyond = alignment.source_ids >= n_source_rows
    if not beyond.any():
        return alignment
    source_ids = np.where(beyond, -1, alignment.source_ids)
    match = np.where(beyond, Match.NONE, alignment.match).astype(np.uint8)
    note = f"{int(beyond.sum())} tokens of the source have no row in its matrix; taken as missing"
    return alignment.with_matches(source_ids, match, note)


def spell(alignment: Alignment, n_source_rows: int) -> tuple[dict[int, tuple[int, ...]], Ids]:
    """Return the pieces of each missing token, and the ids of those that nothing can spell.

    A source that lower-cases cannot spell " The"; the pieces of what it makes of it stand in.
    """
    source = alignment.source
    rowless = range(n_source_rows, source.n_rows)
    pieces: dict[int, tuple[int, ...]] = {}
    unspellable: list[int] = []
    for i in alignment.missing.tolist():
        data = alignment.target.token_bytes[i]
        found = None
        if data:
            found = source.pieces_of(data, forbid=rowless) or source.near_pieces_of(data)
        if found and max(found) < n_source_rows:
            pieces[i] = found
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


def _attach_donor(
    operation: Operation, folder: Path, donor_input: Rows, donor_output: Rows
) -> None:
    """Bring the donor's rows into the order of the target's ids."""
    target = operation.alignment.target
    vocabulary = load_vocabulary(folder)
    if vocabulary.fingerprint == target.fingerprint:
        ids = np.arange(target.n_rows)
        ids[ids >= donor_input.shape[0]] = -1
    else:
        own = align(vocabulary, target)
        ids = np.where(own.source_ids < donor_input.shape[0], own.source_ids, -1)
    here = ids >= 0
    sides = []
    for rows in (donor_input, donor_output):
        side = np.zeros((target.n_rows, rows.shape[1]), dtype=np.float32)
        side[here] = rows[ids[here]]
        sides.append(side)
    known = here.copy()
    for side in sides:
        known &= np.isfinite(side).all(axis=1) & (side != 0).any(axis=1)
    for side in sides:
        side[~known] = 0
    operation.donor = DonorRows(input=sides[0], output=sides[1], known=known)
    missing = operation.alignment.missing
    n_unknown = int((~known[missing]).sum())
    if n_unknown:
        operation.warnings.append(
            f"the donor has no usable row for {n_unknown} of {missing.size} missing tokens"
        )
    operation.donor_facts = {
        "path": operation.recipe.donor,
        "fingerprint": vocabulary.fingerprint,
        "width": int(donor_input.shape[1]),
        "n_rows": int(donor_input.shape[0]),
        "same_tokenizer": vocabulary.fingerprint == target.fingerprint,
        "known_missing": int(known[missing].sum()),
    }


def _refuse_nonfinite(*matrices: Rows) -> None:
    """Refuse broken rows before anything is computed from them."""
    bad = [int((~np.isfinite(rows).all(axis=1)).sum()) for rows in matrices]
    if any(bad):
        raise CheckpointError(
            f"{max(bad)} rows of the source hold NaN or Inf: repair it, or add --allow-nonfinite"
        )


def _count(vocabulary: Vocabulary, texts: Sequence[str], n_rows: int) -> Ids:
    counts = np.zeros(n_rows, dtype=np.int64)
    for encoding in vocabulary.encode_many(texts):
        counts += np.bincount(encoding.ids, minlength=n_rows)[:n_rows]
    return counts
