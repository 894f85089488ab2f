"""Cut the vocabulary of a pretrained model down, and prove that nothing else changed.

The tokenizer is pruned (`trainers.edits.prune`), every kept row is copied bit for bit by the
machinery of a transplant, and both models are run side by side: no row is made, nothing is trained.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tokensurgeon.alignment import Match
from tokensurgeon.arrays import ITEM_BYTES, Ids
from tokensurgeon.checkpoint import Checkpoint
from tokensurgeon.errors import TokenizerError, UsageError
from tokensurgeon.jobs.trim_proof import OtherReader, prove_kept
from tokensurgeon.jobs.wanted import Wanted
from tokensurgeon.outputs import check_folder, scratch_folder
from tokensurgeon.progress import Progress, Timings, no_progress
from tokensurgeon.recipe import InitSpec, Recipe, TrainSpec
from tokensurgeon.report import SurgeryReport, words
from tokensurgeon.report.trim_facts import BeforeAfter, KeptText, TrimFacts
from tokensurgeon.surgery.inputs import Inputs
from tokensurgeon.surgery.output import check_loads, write_output
from tokensurgeon.surgery.prepare import read_inputs
from tokensurgeon.surgery.reporting import make_report
from tokensurgeon.surgery.rows import patch_rows
from tokensurgeon.surgery.session import Session
from tokensurgeon.text.corpus import find_files
from tokensurgeon.trainers import TrainedVocabulary, prune_vocabulary
from tokensurgeon.vocabulary import Kind

NO_METHOD = ("mean", "mean")
"""Methods of the two sides: no token is missing, so none makes a row."""


@dataclass(frozen=True)
class TrimResult:
    """What `trim` returns.

    Attributes
    ----------
    report : SurgeryReport
        Its `trim` has what was kept, the sizes and the proof.
    output : Path or None
        The trimmed checkpoint; None on a dry run, or without an output.
    old_ids : int64 (n_kept,)
        The source's id of each id.
    """

    report: SurgeryReport
    output: Path | None
    old_ids: Ids


def trim(
    source: str | Path,
    output: str | Path | None = None,
    *,
    text: Sequence[str | Path] = (),
    keep_script: Sequence[str] = (),
    languages: Sequence[str] = (),
    size: int | None = None,
    least_uses: int = 1,
    other_text: Sequence[str | Path] = (),
    pad_to_multiple_of: int = 1,
    max_bytes: int = 100_000,
    field: str = "text",
    device: str = "cpu",
    dtype: str = "float32",
    seed: int = 0,
    force: bool = False,
    dry_run: bool = False,
    trust_remote_code: bool = False,
    allow_nonfinite: bool = False,
    allow_autotokenizer_mismatch: bool = False,
    allow_seen_text: bool = False,
    progress: Progress | None = None,
) -> TrimResult:
    """Cut the vocabulary of a checkpoint down, write it, and prove that nothing else changed.

    Parameters
    ----------
    source : str or Path
        A checkpoint with its tokenizer (BPE, Unigram or WordPiece); sentence-transformers folders
        too.
    output : str or Path, optional
        The folder to write.
    text : sequence of path
        Files, folders or globs whose tokens are kept: that text is encoded as before.
    keep_script : sequence of str
        Unicode scripts, such as ``["Latin", "Cyrillic"]``: every token that their text can hold is
        kept.
    languages : sequence of str
        Codes such as ``"de"``, whose scripts are kept, or ``"de=FILE"``, whose text is.
    size : int or None
        Keep so many ids in all: the most used by the text first, then those of the scripts, then
        the earliest merges or best scores.
    least_uses : int
        Keep tokens that the text has so often.
    other_text : sequence of path
        Texts to measure what changes on; each is reported by its name.
    pad_to_multiple_of : int
        Keep further tokens up to a multiple of this number.
    max_bytes : int
        Of each other text, measure bits per byte on so much.
    field : str
        The key that holds the text in JSON objects.
    device, dtype : str
        Of forward passes.
    seed : int
        Which sequences are compared.
    force : bool
        As that of a recipe.
    dry_run : bool
        Choose the tokens and say the sizes; run no model, write nothing.
    trust_remote_code, allow_nonfinite, allow_autotokenizer_mismatch : bool
        As those of a recipe.
    allow_seen_text : bool
        Measure other text of which lines are in the kept text.
    progress : callable(done, total, what), optional

    Returns
    -------
    TrimResult

    Raises
    ------
    TokensurgeonError
        With one line that says what is wrong and what to do; nothing is then at the output.

    Examples
    --------
    >>> from importlib.resources import files
    >>> demo = files("tokensurgeon") / "data"  # the tiny models that `tokensurgeon demo` uses
    >>> result = trim(demo / "source", size=1000)  # nothing is written without an output
    >>> result.report.trim.rows.before, result.report.trim.rows.after
    (4096, 1000)
    >>> result.report.trim.proof.max_difference < 1e-5
    True
    """
    wanted = Wanted.parse(text, keep_script, languages, size, least_uses, pad_to_multiple_of)
    others = [str(name) for name in other_text]
    if others:
        find_files(others)
    if output is not None:
        check_folder(output, force=force, source=source, keep=[*wanted.text, *others])
    show, timings, started = progress or no_progress, Timings(), time.perf_counter()
    # Opened before the text is read: a model that cannot be patched is known at once.
    folder = Checkpoint.open(source, trust_remote_code=trust_remote_code).path
    asked = Recipe.parse(
        {
            "source": str(source),
            "tokenizer": _as_spec(wanted),
            "output": None if output is None or dry_run else str(output),
            "init": InitSpec(input=NO_METHOD[0], output=NO_METHOD[1]),
            "calibrate": (),
            "baselines": (),
            "budget": 0.0,
            "device": device,
            "dtype": dtype,
            "seed": seed,
            "force": force,
            "trust_remote_code": trust_remote_code,
            "allow_nonfinite": allow_nonfinite,
            "allow_autotokenizer_mismatch": allow_autotokenizer_mismatch,
        },
        where="trim()",
    )
    with scratch_folder() as scratch:
        with timings.timed("choose tokens"):
            pruned = prune_vocabulary(
                folder,
                wanted.text,
                least_uses=least_uses,
                scripts=wanted.scripts,
                size=size,
                pad_to_multiple_of=pad_to_multiple_of,
                output=scratch / "tokenizer",
                field=field,
                progress=show,
            )
        running = asked.model_copy(update={"tokenizer": str(scratch / "tokenizer")})
        inputs = _exact(read_inputs(running, show, timings), pruned)
        session = Session(replace(inputs, recipe=asked), progress=show, timings=timings)
        check_loads(session, dry_run)
        facts = _sizes(session, pruned, wanted, others)
        if dry_run:
            report = make_report(session, methods=NO_METHOD)
            report = report.model_copy(update={"trim": facts, "dry_run": True})
            return TrimResult(report, None, inputs.alignment.source_ids)
        with timings.timed("copy rows"):
            rows = patch_rows(session, NO_METHOD, asked.init)
        with timings.timed("prove"):
            proven = prove_kept(session, rows, wanted, field)
        with timings.timed("other text"):
            reader = OtherReader(field, max_bytes, allow_seen_text)
            measured = reader.measure(session, rows, others, by_scripts=bool(wanted.scripts))
        facts = facts.model_copy(update={**proven, "others": measured})
        timings.seconds["total"] = time.perf_counter() - started
        report = make_report(session, methods=NO_METHOD, compared=[("patched", rows)])
        why = "a trimmed model is measured under trim"
        report = report.model_copy(update={"trim": facts, "not_evaluated": why})
        report, written = write_output(session, rows, report)
    return TrimResult(report, written, inputs.alignment.source_ids)


def _as_spec(wanted: Wanted) -> TrainSpec:
    """Return the trim's tokenizer as a recipe would ask for it, as far as a recipe can."""
    return TrainSpec.model_construct(
        method="prune", base="source", corpus=wanted.text, scripts=wanted.scripts, size=wanted.size
    )


def _exact(inputs: Inputs, pruned: TrainedVocabulary) -> Inputs:
    """Return the inputs with each id matched with its old id, and nothing else with anything.

    Raises
    ------
    UsageError
        If no row would go, or the text uses tokens that have no row.
    TokenizerError
        If a token is not the one that had its old id.
    """
    alignment, n_source = inputs.alignment, inputs.checkpoint.layout.n_rows
    source, target = alignment.source, alignment.target
    old_ids = np.array(pruned.settings["old_ids"], dtype=np.int64)
    if len(old_ids) >= n_source:
        raise UsageError(
            f"all {len(old_ids):,} tokens of {inputs.recipe.source} would be kept: give less text, "
            "fewer scripts, or a smaller size"
        )
    moved = [
        new
        for new, old in enumerate(old_ids.tolist())
        if target.spellings[new] != source.spellings[old]
    ]
    if len(old_ids) != target.n_rows or moved:
        raise TokenizerError(
            f"{len(moved):,} tokens of the pruned tokenizer are not those of their old ids: "
            "transplant a tokenizer of 'train prune' instead"
        )
    source_ids = np.where(old_ids < n_source, old_ids, -1)
    text = np.isin(target.kinds, (Kind.ORDINARY, Kind.BYTE))
    rowless = np.flatnonzero(text & (source_ids < 0))
    if rowless.size:
        raise UsageError(
            f"{rowless.size:,} of the kept tokens have no row, the first "
            f"{target.spellings[int(rowless[0])]!r}: the model cannot read them; give other text"
        )
    match = np.where(text, Match.EXACT, Match.CONTROL).astype(np.uint8)
    match[source_ids < 0] = Match.NONE
    exact = replace(
        alignment,
        source_ids=source_ids,
        output_source_ids=source_ids,
        match=match,
        collisions={},
        is_identity=False,
        is_permutation=False,
    )
    # What an alignment says of a pair is no news of a tokenizer and a part of it.
    notes = [note for note in inputs.notes if note not in alignment.warnings]
    beyond = np.flatnonzero(source_ids < 0)
    if beyond.size:
        notes.append(
            f"{words.count(beyond.size, 'control token')} without a row in the source, the first "
            f"{target.spellings[int(beyond[0])]!r}: a row that means nothing is given"
        )
    if source.number_scheme != target.number_scheme:
        notes.append(
            f"the kept tokens cut runs of digits as {target.number_scheme!r}, all of them as "
            f"{source.number_scheme!r}: other text with numbers changes most"
        )
    nothing = np.zeros(0, dtype=np.int64)
    return replace(
        inputs,
        notes=tuple(notes),
        alignment=exact,
        pieces={},
        unspellable=nothing,
        unreached=nothing,
        n_rows=target.n_rows,
    )


def _sizes(
    session: Session, pruned: TrainedVocabulary, wanted: Wanted, others: Sequence[str]
) -> TrimFacts:
    """Return what is kept, and the sizes before and after."""
    inputs = session.inputs
    checkpoint, layout = inputs.checkpoint, inputs.checkpoint.layout
    rows = BeforeAfter(before=layout.n_rows, after=inputs.n_rows)
    names = {*layout.input_names, *layout.output_names}
    per_row = len(names) * layout.width + len(layout.bias_names)
    gone = (layout.n_rows - inputs.n_rows) * per_row * ITEM_BYTES[checkpoint.dtype]
    tokenizers = (inputs.alignment.source.tokenizer, inputs.alignment.target.tokenizer)
    lengths = [len(tokenizer.to_str().encode("utf-8")) for tokenizer in tokenizers]
    figures = pruned.figures
    kept_text = KeptText(
        n_bytes=pruned.corpus["bytes"],
        documents=pruned.corpus["documents"],
        documents_changed=figures["documents_changed"],
        tokens_before=figures["tokens"],
        tokens_after=figures["tokens_after"],
        tokens_dropped=figures["tokens_dropped"],
        documents_left_out=figures["documents_left_out"],
        tokens_left_out=figures["tokens_left_out"],
    )
    return TrimFacts(
        settings=wanted.settings(others),
        why=figures["kept"],
        rows=rows,
        weights=BeforeAfter(before=layout.n_rows * per_row, after=inputs.n_rows * per_row),
        weight_bytes=BeforeAfter(before=checkpoint.n_bytes, after=checkpoint.n_bytes - gone),
        tokenizer_bytes=BeforeAfter(before=lengths[0], after=lengths[1]),
        text=kept_text if wanted.text else None,
    )
