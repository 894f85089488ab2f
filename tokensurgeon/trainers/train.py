"""Train a vocabulary: count the text, learn, check that nothing is lost, and measure.

What is counted and how is in `counting` and `cutters`, what is learned in `trainers`, and what is
written in `trained`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokensurgeon.errors import CorpusError
from tokensurgeon.progress import Progress, no_progress
from tokensurgeon.text.corpus import Corpus, Document, read_documents
from tokensurgeon.trainers.counting.count import count_segments
from tokensurgeon.trainers.counting.counts import Counted
from tokensurgeon.trainers.counting.cutters import Pieces
from tokensurgeon.trainers.counting.held_out import HeldOut
from tokensurgeon.trainers.counting.pretokenizers import counted_pattern
from tokensurgeon.trainers.counting.weighted import Text, multipliers
from tokensurgeon.trainers.learners.learn import cutters, train_tokenizer
from tokensurgeon.trainers.measures.figures import (
    Figures,
    Source,
    measure_vocabulary,
    peak_memory,
)
from tokensurgeon.trainers.mixture import ALL, CorpusLike, Part, as_parts, documents_of, shares
from tokensurgeon.trainers.plan import Plan, Shape, distinct_controls, make_plan, settings_of
from tokensurgeon.trainers.trained import TrainedVocabulary, check_output, round_trips, versions

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MOST_FILES = 20
STOCK = "stock"
"""The table of a plain BPE, where the method itself does not count words so."""


def train_vocabulary(
    corpus: CorpusLike,
    *,
    method: str = "bpe",
    size: int | None = None,
    pretokenizer: str = "cl100k",
    digits: str = "left-3",
    shape: Shape | None = None,
    held_out: Sequence[str | Path] = (),
    output: str | Path | None = None,
    bos: str | None = None,
    eos: str = "<|endoftext|>",
    pad: str | None = None,
    extra_controls: Sequence[str] = (),
    pad_to_multiple_of: int = 1,
    chat_template: str | None = None,
    field: str = "text",
    processes: int | None = None,
    memory_gib: float = 2.0,
    counts: str | Path | None = None,
    seed: int = 0,
    force: bool = False,
    progress: Progress = no_progress,
) -> TrainedVocabulary:
    """Train a vocabulary on text.

    Unless `held_out` is given, every twentieth document (or, where there are fewer than twenty, the
    last twentieth of each) is held out, up to two megabytes: the trainer does not see it, and the
    figures are measured on it, beside a plain BPE of equal size and cut.

    Parameters
    ----------
    corpus : files, Corpus, or mapping of str to Part
        Files, folders or globs (see `read_corpus`), a corpus in memory, or the parts of a mixture
        (see `parse_mixture`).
    method : str
        One of `METHODS`.
    size : int or None
        Number of ids, control tokens and the 256 bytes included. Only `bytes` needs none.
    pretokenizer : str
        One of `PRETOKENIZERS`.
    digits : {"left-3", "right-3", "single", "any"}
    shape : Shape or None
    held_out : sequence of str or Path
        Text to measure on.
    output : str, Path or None
        A folder to write; None keeps the result in memory.
    bos, eos, pad : str or None
        Control tokens by role; where `bos` is None, `eos` has that role too.
    extra_controls : sequence of str
        Control tokens without a role, such as chat markers.
    pad_to_multiple_of : int
        Add reserved control tokens until the number of ids is such a multiple.
    chat_template : str or None
        A Jinja template to write beside the tokenizer.
    field : str
        The key that holds the text in JSON objects.
    processes : int or None
        That count; None takes every processor. The result does not depend on it.
    memory_gib : float
        What counted segments may take; the rarest are dropped beyond, and the card says so.
    counts : str, Path or None
        A file to keep counts in, so that a cut-off count goes on, and another training on the same
        text with the same cuts need not count again.
    seed : int
        Of `supertoken`'s chunks.
    force : bool
        Replace an existing output.
    progress : callable(done, total, what)

    Raises
    ------
    UsageError
        If a setting is out of range or unknown, or the output exists.
    CorpusError
        If the text cannot be read, or is too little for that size.
    TokenizerError
        If the result does not give a hard text back unchanged.
    """
    roles = {"bos": bos or eos, "eos": eos} | ({"pad": pad} if pad else {})
    controls = distinct_controls([*roles.values(), *extra_controls])
    plan = make_plan(
        method, size, pretokenizer, digits, shape or Shape(), controls, pad_to_multiple_of, seed
    )
    if output is not None:
        check_output(Path(output), force)
    parts = as_parts(corpus)
    started = time.perf_counter()
    progress(0, 0, "counting")
    wanted = dict(cutters(plan))
    stock = replace(plan, method="bpe", encoder="bpe", shape=Shape(parallel=plan.shape.parallel))
    if method == "dna" or plan.preset == "none":
        stock = replace(stock, preset="gpt2", digits="any")
    plain = Pieces(counted_pattern(stock.preset, stock.digits))
    shared = wanted.get("words") == plain
    if not shared:
        wanted[STOCK] = plain
    counted = count_segments(
        {name: documents_of(part, field) for name, part in parts.items()},
        wanted,
        held_out=None if held_out else HeldOut(),
        processes=processes,
        memory_gib=memory_gib,
        state=counts,
        progress=progress,
    )
    text = Text(counted, multipliers(counted.n_bytes, _shares(parts)))
    baseline = Text(
        replace(counted, tables={"words": counted.tables["words" if shared else STOCK]}),
        text.multipliers,
    )
    measured = measured_sources(counted, held_out, field)
    counting = time.perf_counter() - started
    tokenizer = train_tokenizer(text, plan, progress)
    seconds = time.perf_counter() - started
    text.counted.tables.clear()
    kept = round_trips(tokenizer)
    found = _measure(tokenizer, measured, plan)
    beside: Figures | None = found
    if (plan.method, plan.encoder) != ("bpe", "bpe"):
        progress(0, 0, "training a plain BPE to compare with")
        beside = _stock(baseline, stock, measured, progress)
    trained = TrainedVocabulary(
        tokenizer=tokenizer,
        settings=settings_of(plan, roles, len(controls)),
        corpus=counted.facts() | {"shares": _shares(parts)},
        figures=_figures(found, beside, kept)
        | {
            "held_out_lines_seen": counted.seen.share(
                text for source in measured for text in source.documents
            ),
            "seconds": round(seconds, 1),
            "counting_seconds": round(counting, 1),
            "peak_memory_bytes": peak_memory(),
        },
        versions=versions(),
        seen=counted.seen if plan.method != "bytes" else None,  # it learns nothing
        chat_template=chat_template,
    )
    return trained if output is None else trained.write(output, force=force)


def _shares(parts: Mapping[str, Part | Corpus]) -> list[float] | None:
    named = {name: part for name, part in parts.items() if isinstance(part, Part)}
    return shares(named) if len(named) == len(parts) else None


def measured_sources(counted: Counted, held_out: Sequence[str | Path], field: str) -> list[Source]:
    """Return what is measured on: by part of the mixture, else by file where there are few.

    Raises
    ------
    CorpusError
        If nothing was held out.
    """
    if held_out:
        read = read_documents(held_out, field=field)
        return _by_file({ALL: read})
    found = {name: documents for name, documents in counted.held_out.items() if documents}
    if not found:
        raise CorpusError(f"{sum(counted.n_bytes):,} bytes are too few to train on; give more")
    if len(counted.parts) > 1:
        return [Source(name, tuple(d.text for d in each)) for name, each in found.items()]
    return _by_file(found)


def _by_file(found: Mapping[str, list[Document]]) -> list[Source]:
    documents = [document for each in found.values() for document in each]
    files = dict.fromkeys(document.file for document in documents)
    if len(files) > MOST_FILES or not all(files):
        return [Source(ALL, tuple(document.text for document in documents))]
    return [
        Source(Path(file).name, tuple(d.text for d in documents if d.file == file))
        for file in files
    ]


def _measure(tokenizer: Tokenizer, sources: Sequence[Source], plan: Plan) -> Figures:
    from tokensurgeon.vocabulary import vocabulary_from_tokenizer

    vocabulary = vocabulary_from_tokenizer(tokenizer)
    return measure_vocabulary(vocabulary, sources, parallel=plan.shape.parallel)


def _stock(text: Text, plan: Plan, sources: Sequence[Source], progress: Progress) -> Figures | None:
    try:
        return _measure(train_tokenizer(text, plan, progress), sources, plan)
    except CorpusError:
        return None  # its own cuts leave too few pairs for that many merges


def _figures(found: Figures, beside: Figures | None, kept: int) -> dict[str, Any]:
    total = found.total
    if total is None or found.unused is None:
        raise CorpusError("there is no held-out text to measure on; give more text")
    return {
        "bytes_per_token": total.bytes_per_token,
        "stock_bpe_bytes_per_token": (
            beside.total.bytes_per_token if beside and beside.total else None
        ),
        "held_out_bytes": total.bytes,
        "held_out_tokens": total.tokens,
        "unused": found.unused / found.text_tokens,
        "hard_texts": kept,
        "longest_token": len(found.longest),
        "held_out": found.to_dict(),
        "stock_bpe": beside.to_dict() if beside else None,
    }
