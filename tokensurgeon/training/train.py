"""Train a vocabulary: count the text, learn, check that nothing is lost, and measure.

What is counted and how is in `counting` and `cutters`, what is learned in `trainers`, and what is
written in `trained`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tokensurgeon
from tokensurgeon.errors import CorpusError, SettingError
from tokensurgeon.training.corpus import Corpus, Document, read_documents
from tokensurgeon.training.counting import Counted, count_segments
from tokensurgeon.training.cutters import Pieces
from tokensurgeon.training.figures import Figures, Source, measure_vocabulary, peak_memory
from tokensurgeon.training.held_out import HeldOut
from tokensurgeon.training.mixture import ALL, Part, as_parts, documents_of, shares
from tokensurgeon.training.plan import MOST_WORDS, Plan, Text, multipliers
from tokensurgeon.training.pretokenizers import (
    BARRIERS,
    DIGITS,
    NO_CROSS,
    PRETOKENIZERS,
    check_choice,
    check_range,
    counted_pattern,
)
from tokensurgeon.training.progress import Progress, no_progress
from tokensurgeon.training.trained import TrainedVocabulary, check_output, round_trips
from tokensurgeon.training.trainers import METHODS, METHODS_BY_NAME, cutters, train_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MAX_SIZE = 2_000_000
MOST_FILES = 20
STOCK = "stock"
"""The table of a plain BPE, where the method itself does not count words so."""


@dataclass(frozen=True)
class Shape:
    """How tokens of a vocabulary may look; None, or a method that has no use for it: its own way.

    Attributes
    ----------
    encoder : {"bpe", "min-tokens"} or None
    transition : float or None
        Share of what is learned that is learned inside words.
    most_words : int
        Of a token of several words.
    no_cross : tuple of {"newline", "digits", "punctuation"}
        What such a token never crosses.
    max_pieces : int or None
        The most words and signs in a run that such tokens are learned from.
    longest : int or None
        Bytes of a token; for `characters`, characters.
    terms : tuple of str
        For `terms` and `morphemes`.
    """

    encoder: str | None = None
    transition: float | None = None
    most_words: int = MOST_WORDS
    no_cross: tuple[str, ...] = NO_CROSS
    max_pieces: int | None = None
    longest: int | None = None
    terms: tuple[str, ...] = ()


def train_vocabulary(
    corpus: Sequence[str | Path] | str | Path | Corpus | Mapping[str, Part],
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
    controls = _distinct([*roles.values(), *extra_controls])
    plan = _plan(
        method, size, pretokenizer, digits, shape or Shape(), controls, pad_to_multiple_of, seed
    )
    if output is not None:
        check_output(Path(output), force)
    parts = as_parts(corpus)
    started, busy = time.perf_counter(), time.process_time()
    progress(0, 0, "counting")
    wanted = dict(cutters(plan))
    stock = replace(plan, method="bpe", encoder="bpe", longest=None)
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
    measured = _sources(counted, held_out, field)
    counting = time.perf_counter() - started
    tokenizer = train_tokenizer(text, plan, progress)
    seconds, cpu = time.perf_counter() - started, time.process_time() - busy
    text.counted.tables.clear()
    kept = round_trips(tokenizer)
    found = _measure(tokenizer, measured)
    beside: Figures | None = found
    if (plan.method, plan.encoder) != ("bpe", "bpe"):
        progress(0, 0, "training a plain BPE to compare with")
        beside = _stock(baseline, stock, measured, progress)
    trained = TrainedVocabulary(
        tokenizer=tokenizer,
        settings=_settings(plan, roles, len(controls)),
        corpus=counted.facts() | {"shares": _shares(parts)},
        figures=_figures(found, beside, kept)
        | {
            "seconds": round(seconds, 1),
            "counting_seconds": round(counting, 1),
            "cpu_seconds": round(cpu, 1),
            "peak_memory_bytes": peak_memory(),
        },
        versions=_versions(),
        seen=counted.seen,
        chat_template=chat_template,
    )
    return trained if output is None else trained.write(output, force=force)


def _plan(
    method: str,
    size: int | None,
    preset: str,
    digits: str,
    shape: Shape,
    controls: list[str],
    multiple: int,
    seed: int,
) -> Plan:
    check_choice("method", method, METHODS)
    check_choice("pre-tokenizer", preset, PRETOKENIZERS)
    check_choice("digit scheme", digits, DIGITS)
    for barrier in shape.no_cross:
        check_choice("barrier", barrier, BARRIERS)
    way = METHODS_BY_NAME[method]
    encoder = shape.encoder or way.encoders[0]
    check_choice(f"encoder for {method}", encoder, way.encoders)
    if way.lists != bool(shape.terms):
        raise SettingError(
            f"{method} needs a list of terms" if way.lists else f"{method} takes no list of terms"
        )
    if shape.transition is not None and not 0 < shape.transition < 1:
        raise SettingError(f"transition is {shape.transition}; take a share between 0 and 1")
    check_range("most words of a token", shape.most_words, 2, 64)
    if shape.max_pieces is not None:
        check_range("most pieces of a run", shape.max_pieces, 2, 10_000)
    if shape.longest is not None:
        check_range("longest token", shape.longest, 1, 1_000)
    check_range("multiple", multiple, 1, 65_536)
    least = 256 + len(controls)
    if method == "bytes":
        size = least
    if size is None:
        raise SettingError(f"{method} needs a size")
    check_range("size", size, least + (method != "bytes"), MAX_SIZE)
    # The reserved tokens are controls too; what is learned is not made less by them.
    n_reserved = -size % multiple
    reserved = tuple(f"<|reserved_{number}|>" for number in range(n_reserved))
    return Plan(
        method=method,
        size=size + n_reserved,
        controls=(*controls, *reserved),
        preset=preset,
        digits=digits,
        encoder=encoder,
        transition=shape.transition,
        most_words=shape.most_words,
        no_cross=shape.no_cross,
        max_pieces=shape.max_pieces,
        longest=shape.longest,
        terms=shape.terms,
        seed=seed,
    )


def _shares(parts: Mapping[str, Part | Corpus]) -> list[float] | None:
    named = {name: part for name, part in parts.items() if isinstance(part, Part)}
    return shares(named) if len(named) == len(parts) else None


def _sources(counted: Counted, held_out: Sequence[str | Path], field: str) -> list[Source]:
    """Return what is measured on: by part of the mixture, else by file where there are few."""
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


def _measure(tokenizer: Tokenizer, sources: Sequence[Source]) -> Figures:
    from tokensurgeon.vocabulary import vocabulary_from_tokenizer

    return measure_vocabulary(vocabulary_from_tokenizer(tokenizer), sources)


def _stock(text: Text, plan: Plan, sources: Sequence[Source], progress: Progress) -> Figures | None:
    try:
        return _measure(train_tokenizer(text, plan, progress), sources)
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


def _settings(plan: Plan, roles: Mapping[str, str], n_controls: int) -> dict[str, Any]:
    return {
        "method": plan.method,
        "encoder": plan.encoder,
        "size": plan.size,
        "pretokenizer": plan.preset,
        "digits": plan.digits,
        "transition": plan.transition,
        "most_words": plan.most_words,
        "no_cross": list(plan.no_cross),
        "max_pieces": plan.max_pieces,
        "longest": plan.longest,
        "terms": len(plan.terms),
        "seed": plan.seed,
        "controls": dict(roles),
        "extra_controls": [
            each for each in plan.controls[:n_controls] if each not in roles.values()
        ],
        "reserved": len(plan.controls) - n_controls,
    }


def _distinct(controls: Sequence[str]) -> list[str]:
    found: list[str] = []
    for control in controls:
        if not control or control.isspace():
            raise SettingError("a control token is empty; give it a spelling such as <|endoftext|>")
        if len(control) == 1:
            raise SettingError(f"the control token {control!r} is a letter of text; spell it <…>")
        if control not in found:
            found.append(control)
    return found


def _versions() -> dict[str, str]:
    import tokenizers

    return {"tokensurgeon": tokensurgeon.__version__, "tokenizers": tokenizers.__version__}
