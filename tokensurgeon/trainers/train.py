"""Train a vocabulary: count the text, learn, check that no text is lost, and measure."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from tokensurgeon.errors import CorpusError, SettingError
from tokensurgeon.outputs import output_path
from tokensurgeon.outputs.paths import check_apart
from tokensurgeon.progress import Progress, no_progress, peak_memory
from tokensurgeon.text.borders import borders_of
from tokensurgeon.text.corpus import Corpus
from tokensurgeon.trainers.control_tokens import make_controls
from tokensurgeon.trainers.counting.count_tables import CountTables
from tokensurgeon.trainers.counting.held_out import HeldOut
from tokensurgeon.trainers.counting.in_memory import count_segments
from tokensurgeon.trainers.counting.pretokenizers import PRETOKENIZER, SCHEME
from tokensurgeon.trainers.counting.weighted import WeightedText, multipliers
from tokensurgeon.trainers.learners.learn import tables_of, train_tokenizer
from tokensurgeon.trainers.measures.figures import Figures, measure_vocabulary
from tokensurgeon.trainers.measures.sources import Source, held_out_sources
from tokensurgeon.trainers.mixture import CorpusLike, as_parts, documents_of, shares
from tokensurgeon.trainers.plan import Plan, Shape, make_plan, settings_of
from tokensurgeon.trainers.trained import TrainedVocabulary, check_output, round_trips
from tokensurgeon.vocabulary import Vocabulary, vocabulary_from_tokenizer


def train_vocabulary(
    corpus: CorpusLike = (),
    *,
    method: str = "bpe",
    size: int | None = None,
    pretokenizer: str | None = None,
    digits: str | None = None,
    shape: Shape | None = None,
    held_out: Sequence[str | Path] | Corpus = (),
    output: str | Path | None = None,
    bos: str | None = None,
    eos: str | None = None,
    pad: str | None = None,
    extra_controls: Sequence[str] = (),
    controls_of: Vocabulary | str | Path | None = None,
    borders: str = "known",
    pad_to_multiple_of: int = 1,
    chat_template: str | None = None,
    field: str = "text",
    processes: int | None = None,
    memory_gib: float = 2.0,
    counts: str | Path | None = None,
    from_counts: str | Path | None = None,
    seed: int = 0,
    force: bool = False,
    progress: Progress = no_progress,
) -> TrainedVocabulary:
    """Train a vocabulary on text.

    Unless `held_out` is given, every twentieth document (or, if there are fewer than twenty, the
    last twentieth of each) is held out, up to two megabytes. It is not trained on; the figures of
    the vocabulary are measured on it, beside those of a plain BPE of equal size and cut.

    Parameters
    ----------
    corpus : files, Corpus, or mapping of str to Part
        Files, folders or globs (see `read_corpus`), a corpus in memory, or the parts of a mixture
        (see `parse_mixture`).
    method : str
        One of `METHODS`.
    size : int or None
        Number of ids, control tokens and the 256 bytes included. Only `bytes` can do without.
    pretokenizer : str or None
        One of `PRETOKENIZERS`; None is that of the counts, else "cl100k".
    digits : {"left-3", "right-3", "single", "any"} or None
        None is that of the counts, else "left-3".
    shape : Shape or None
    held_out : sequence of str or Path, or Corpus
        Text to measure on.
    output : str, Path or None
        A folder to write; None keeps the result in memory.
    bos, eos, pad : str or None
        Control tokens by role; if `bos` is None, `eos` has that role too. If `eos` is None, it is
        ``<|endoftext|>``, or that of `controls_of`.
    extra_controls : sequence of str
        Control tokens without a role, such as chat markers.
    controls_of : Vocabulary, str, Path or None
        A tokenizer, such as that of the model to move, whose control tokens are taken: their
        roles, what they put around a text, and their ids where these are below `size`.
    borders : {"known", "own"}
        Control strings in the text end a document, and are not learned from: those of the
        vocabulary, and with "known" those that many tokenizers have, such as ``<|im_start|>``.
    pad_to_multiple_of : int
        Add reserved control tokens until the number of ids is a multiple of this.
    chat_template : str or None
        A Jinja template to write beside the tokenizer.
    field : str
        The key that holds the text in JSON objects.
    processes : int or None
        Number of counting processes; None takes every processor. It does not change the result.
    memory_gib : float
        Memory for counted segments, in GiB. Beyond it the rarest are dropped, and the card says so.
    counts : str, Path or None
        A file to save counts in, so that an interrupted count continues, and another training on
        the same text with the same cuts need not count again.
    from_counts : str, Path or None
        A folder of `count_corpus` to train from, in the place of a corpus. Of tables that do not
        fit into `memory_gib` the rarest segments are left out, and the card says how many.
    seed : int
        Seed of `supertoken`'s chunks.
    force : bool
        Whether to replace an existing output.
    progress : callable(done, total, what)

    Raises
    ------
    UsageError
        If a setting is out of range or unknown, or the output exists.
    CorpusError
        If the text cannot be read, or is too little for that size.
    TokenizerError
        If the result does not decode every hard text to itself.
    """
    if output is not None:
        check_output(output, force, corpus)
        if from_counts is not None:
            check_apart(output_path(output), from_counts)
    controls = make_controls(bos, eos, pad, extra_controls, controls_of)
    tokens, shape = controls.tokens, shape or Shape()
    if from_counts is not None and corpus:
        raise SettingError("give either a text or counts to train from, not both")
    stored = None if from_counts is None else CountTables.open(from_counts)
    cut = {} if stored is None else stored.settings
    preset = pretokenizer or cut.get("pretokenizer") or PRETOKENIZER
    scheme = digits or cut.get("digits") or SCHEME
    plan = make_plan(method, size, preset, scheme, shape, tokens, pad_to_multiple_of, seed)
    ends = borders_of(plan.controls, borders)
    parts = as_parts(corpus)
    started = time.perf_counter()
    progress(0, 0, "counting")
    tables, stock, stock_table = tables_of(plan)
    if stored is None:
        counted = count_segments(
            {name: documents_of(part, field, ends) for name, part in parts.items()},
            tables,
            held_out=None if held_out else HeldOut(),
            processes=processes,
            memory_gib=memory_gib,
            state=counts,
            progress=progress,
        )
        weights, ended = shares(parts), ends.facts()
    else:
        counted = stored.for_training(tables, ends.strings, memory_gib)
        weights, ended = stored.settings.get("shares"), stored.control_strings
    text = WeightedText(counted, multipliers(counted.n_bytes, weights))
    stock_text = WeightedText(
        # What it leaves out is not what the card is about.
        replace(counted, tables={"words": counted.tables[stock_table]}, dropped={}, left_out={}),
        text.multipliers,
    )
    sources = held_out_sources(counted, held_out, field, ends.strings)
    counting = time.perf_counter() - started
    tokenizer = controls.placed(train_tokenizer(text, plan, progress))
    seconds = time.perf_counter() - started
    text.counted.tables.clear()
    n_hard_texts = round_trips(tokenizer)
    figures = _measure(tokenizer, sources, plan)
    stock_figures: Figures | None = figures
    if (plan.method, plan.encoder) != ("bpe", "bpe"):
        progress(0, 0, "training a plain BPE to compare with")
        try:
            stock_figures = _measure(train_tokenizer(stock_text, stock, progress), sources, stock)
        except CorpusError:
            stock_figures = None  # its own cuts leave too few pairs for that many merges
    trained = TrainedVocabulary(
        tokenizer=tokenizer,
        settings=settings_of(plan, controls) | {"borders": borders},
        corpus=counted.facts()
        | {"shares": weights, "control_strings": ended}
        | ({"counts_divided_by": text.divided_by} if text.divided_by > 1 else {}),
        figures=_summary(figures, stock_figures, n_hard_texts)
        | {
            "held_out_lines_seen": counted.seen.share(
                text for source in sources for text in source.documents
            ),
            "seconds": round(seconds, 1),
            "counting_seconds": round(counting, 1),
            "peak_memory_bytes": peak_memory(),
        },
        seen=counted.seen if plan.method != "bytes" else None,  # it learns nothing from text
        chat_template=chat_template,
    )
    return trained if output is None else trained.write(output, force=force)


def _measure(tokenizer: Tokenizer, sources: Sequence[Source], plan: Plan) -> Figures:
    vocabulary = vocabulary_from_tokenizer(tokenizer)
    return measure_vocabulary(vocabulary, sources, parallel=plan.shape.parallel)


def _summary(figures: Figures, stock: Figures | None, n_hard_texts: int) -> dict[str, Any]:
    total = figures.total
    if total is None or figures.unused is None:
        raise CorpusError("there is no held-out text to measure on; give more text")
    return {
        "bytes_per_token": total.bytes_per_token,
        "stock_bpe_bytes_per_token": (
            stock.total.bytes_per_token if stock and stock.total else None
        ),
        "held_out_bytes": total.bytes,
        "held_out_tokens": total.tokens,
        "unused": figures.unused / figures.text_tokens,
        "hard_texts": n_hard_texts,
        "longest_token": len(figures.longest),
        "held_out": figures.to_dict(),
        "stock_bpe": stock.to_dict() if stock else None,
    }
