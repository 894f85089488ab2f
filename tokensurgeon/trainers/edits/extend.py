"""Extend a BPE: keep every id, and append tokens that are frequent in a text.

The new merges rank after the existing ones, and each makes a token that was not there. So a text
that contains no new token is spelled exactly as before, and no text takes more tokens than before
(`edits.never_longer` says why). With `across`, tokens may span several words: the cuts between
words are removed, which needs a base with a known pattern. Then text can be spelled otherwise even
without a new token; how often is measured and reported.

More tokens are learned than asked. Those are dropped again that the fewest documents use, as long
as no other new token is merged from them (leaves; Purason et al., 2025, arXiv 2512.03989).
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, models

from tokensurgeon.errors import CorpusError, SettingError, TokenizerError
from tokensurgeon.progress import Progress, no_progress
from tokensurgeon.text.borders import borders_of
from tokensurgeon.text.corpus import Corpus
from tokensurgeon.trainers.counting.held_out import HeldOut
from tokensurgeon.trainers.counting.in_memory import count_segments
from tokensurgeon.trainers.counting.pretokenizers import (
    DIGITS,
    NO_CROSS,
    PRETOKENIZERS,
    check_range,
    joined_pattern,
    pattern,
    pretokenizer,
)
from tokensurgeon.trainers.counting.weighted import WeightedText
from tokensurgeon.trainers.edits.base import Base, hold_added, spelled_merges
from tokensurgeon.trainers.edits.continued import continue_merges
from tokensurgeon.trainers.edits.never_longer import check_guarantee, refuse_longer
from tokensurgeon.trainers.measures.sources import held_out_sources
from tokensurgeon.trainers.mixture import CorpusLike, as_parts, documents_of
from tokensurgeon.trainers.plan import LONGEST_SUPERWORD, MAX_SIZE, MOST_WORDS
from tokensurgeon.trainers.trained import TrainedVocabulary, check_output
from tokensurgeon.trainers.training_methods import SPARE
from tokensurgeon.vocabulary.parts import SPACE_MARK, pre_tokens
from tokensurgeon.vocabulary.token_bytes import from_alphabet

_BORDER = re.compile(f"(?<=[^{SPACE_MARK}])(?={SPACE_MARK})")
MOST_SPARE = 10
"""Times as many tokens as asked: beyond, all of them are about as rare as the rarest."""
LINES = 2_000
"""Held-out lines on which drift is measured: a share is known to about one percentage point."""


@dataclass(frozen=True)
class OwnPieces:
    """The pieces that a tokenizer's own normalizer and pre-tokenizer pass to its model.

    Added tokens are cut out first, as the tokenizer does. One without a pre-tokenizer (as
    SentencePiece's) is cut before each space.
    """

    document: str
    once: bool = False

    def cut(self, text: str) -> Iterator[str]:
        """Yield segments."""
        tokenizer, added = _loaded(self.document)
        for part in filter(None, added.split(text)):
            pieces = pre_tokens(tokenizer, part)
            yield from pieces if tokenizer.pre_tokenizer is not None else _BORDER.split(pieces[0])


@lru_cache(maxsize=2)
def _loaded(document: str) -> tuple[Tokenizer, re.Pattern[str]]:
    """Return a tokenizer and a pattern of its added tokens, the longest first."""
    tokenizer = Tokenizer.from_str(document)
    tokens = tokenizer.get_added_tokens_decoder().values()
    ordered = sorted(tokens, key=lambda token: -len(token.content))
    return tokenizer, re.compile("|".join(map(_as_pattern, ordered)) or r"(?!)")


def _as_pattern(token: AddedToken) -> str:
    left, right = (r"\s*" if strips else "" for strips in (token.lstrip, token.rstrip))
    edge = r"(?<!\w){}(?!\w)" if token.single_word else "{}"
    return left + edge.format(re.escape(token.content)) + right


def extend_vocabulary(
    base: str | Path,
    corpus: CorpusLike,
    *,
    size: int | None = None,
    add: int | None = None,
    never_longer: bool = False,
    spare: float = SPARE,
    across: bool = False,
    most_words: int = MOST_WORDS,
    no_cross: Sequence[str] = NO_CROSS,
    longest: int | None = None,
    held_out: Sequence[str | Path] | Corpus = (),
    output: str | Path | None = None,
    field: str = "text",
    processes: int | None = None,
    memory_gib: float = 2.0,
    counts: str | Path | None = None,
    borders: str = "known",
    force: bool = False,
    progress: Progress = no_progress,
) -> TrainedVocabulary:
    """Append tokens to a BPE tokenizer.

    Parameters
    ----------
    base : str or Path
        A folder, a tokenizer.json or a hub id.
    corpus
        As for `train_vocabulary`.
    size : int or None
        Number of ids of the result; this or `add`.
    add : int or None
        Number of new tokens.
    never_longer : bool
        Guarantee that no text takes more tokens than before. It holds without being asked for,
        except with `across` and a base that drops merges; asked for, it is refused there, and
        checked on the held-out text and on hard texts.
    spare : float
        Share of tokens that are learned beyond those asked. Of all of them those are dropped again
        that the fewest documents use, and that no other new token is merged from. With `across`
        none are learned beyond.
    across : bool
        Whether new tokens may span several words.
    most_words, no_cross, longest
        Limits of such tokens; see `Shape`.
    held_out, output, field, processes, memory_gib, counts, borders, force, progress
        As for `train_vocabulary`; a document ends at the base's controls too.

    Raises
    ------
    SettingError
        If `size` and `add` are not one of them, or a setting is out of range or cannot be kept.
    TokenizerError
        If the base is no BPE, or `across` is given and its pattern is not a known one.
    CorpusError
        If the text is too little for so many tokens.
    """
    if (size is None) == (add is None):
        raise SettingError(
            "extend needs either the number of ids in the end or of new tokens: give "
            "one of size and add"
        )
    if output is not None:
        check_output(output, force, corpus, base)
    original = Base.load(base)
    if original.model_type != "BPE":
        raise TokenizerError(
            f"{base} is a {original.model_type} model; only a BPE can be extended; give one"
        )
    if prefix := original.document["model"].get("continuing_subword_prefix"):
        raise TokenizerError(
            f"{base} marks what continues a word with {prefix!r}, so it cannot be extended; give "
            "a BPE without such marks"
        )
    n_before = original.vocabulary.n_rows
    if add is not None:
        check_range("number of new tokens", add, 1, MAX_SIZE - n_before)
        size = n_before + add
    assert size is not None
    check_range("size", size, n_before + 1, MAX_SIZE)
    if not 0 <= spare <= MOST_SPARE:
        raise SettingError(f"spare is {spare}; take a share between 0 and {MOST_SPARE}")
    if never_longer:
        check_guarantee(original, across)
    started = time.perf_counter()
    cut = _joined_cut(original, no_cross) if across else None
    cutter = OwnPieces(original.changed(lambda new: _set_cut(new, cut)).to_str(), once=across)
    cutters = {"pieces": cutter}
    if not across:  # there, pieces count once a document as they are
        cutters["documents"] = replace(cutter, once=True)
    ends = borders_of(original.controls, borders)
    counted = count_segments(
        {name: documents_of(part, field, ends) for name, part in as_parts(corpus).items()},
        cutters,
        held_out=None if held_out else HeldOut(),
        processes=processes,
        memory_gib=memory_gib,
        state=counts,
        progress=progress,
    )
    sources = held_out_sources(counted, held_out, field, ends.strings)
    limit = longest or LONGEST_SUPERWORD
    text = WeightedText(counted)
    learned = continue_merges(
        original,
        text.table("pieces"),
        None if across else text.table("documents"),
        size - n_before,
        spare=spare,
        longest=limit,
        fits=_at_most(original, most_words) if across else None,
        progress=progress,
    )
    if (reached := n_before + len(learned.names)) < size:
        raise CorpusError(
            f"{sum(counted.n_bytes):,} bytes of text give {reached - n_before:,} of "
            f"{size - n_before:,} new tokens; give more text, or add at most so many"
        )

    def extend(document: dict[str, Any]) -> None:
        _set_cut(document, cut)
        model = document["model"]
        model["vocab"] |= {name: i for i, name in enumerate(learned.names, start=n_before)}
        model["merges"] = [
            *([left, right] for left, right in spelled_merges(document)),
            *([left, right] for left, right in learned.pairs),
        ]
        hold_added(document)

    extended = original.changed(extend)
    _check_kept(original, extended)
    seconds = time.perf_counter() - started
    documents = [text for source in sources for text in source.documents]
    before, after = (
        sum(len(e.ids) for e in tokenizer.encode_batch_fast(documents, add_special_tokens=False))
        for tokenizer in (original.tokenizer, extended)
    )
    n_bytes = sum(len(text.encode("utf-8")) for text in documents)
    checked = None
    if never_longer:
        own = [extended.decode([i]) for i in range(n_before, size)]
        checked = refuse_longer(original.tokenizer, extended, [*documents, *own], original.name)
    trained = TrainedVocabulary(
        tokenizer=original.as_stored(extended),
        settings={
            "method": "extend",
            "base": original.name,
            "base_size": n_before,
            "dropout": original.dropout,
            "size": size,
            "never_longer": never_longer,
            "spare": 0.0 if across else spare,
            "across": across,
            "most_words": most_words,
            "no_cross": list(no_cross),
            "longest": longest,
            "borders": borders,
        },
        corpus=counted.facts() | {"control_strings": ends.facts()},
        figures={
            "bytes_per_token": n_bytes / after,
            "base_bytes_per_token": n_bytes / before,
            "held_out_bytes": n_bytes,
            "steps": learned.steps,
            "texts_checked": checked,
            **_drift(original.tokenizer, extended, documents, n_before),
            "seconds": round(seconds, 1),
        },
        seen=counted.seen.joined(original.seen),
        base_config=original.config,
        base_files=original.files,
    )
    return trained if output is None else trained.write(output, force=force)


def _at_most(base: Base, most_words: int) -> Callable[[bytes], bool]:
    """Return what says whether a token has at most so many words, as the base cuts them."""

    def fits(token: bytes) -> bool:
        text = from_alphabet(token.decode("utf-8")).decode("utf-8", "replace")
        return len(base.tokenizer.pre_tokenizer.pre_tokenize_str(text)) <= most_words

    return fits


def _check_kept(original: Base, extended: Tokenizer) -> None:
    """Refuse a result in which a token has another id, or a control is written for text."""
    new_ids = extended.get_vocab()
    moved = [t for t, i in original.tokenizer.get_vocab().items() if new_ids.get(t) != i]
    if moved:
        raise TokenizerError(
            f"{original.name} cannot be extended: {moved[0][:40]!r} and {len(moved) - 1} other "
            "tokens would get other ids; give another base"
        )
    for control, i in original.controls.items():
        # A tokenizer without bytes may write its unknown token, before as now.
        before, after = (
            _spelled(tokenizer, control) for tokenizer in (original.tokenizer, extended)
        )
        if i in after - before:
            raise TokenizerError(
                f"{original.name} cannot be extended: its control token {control[:40]!r} would be "
                "written for that text too; give another base"
            )


def _spelled(tokenizer: Tokenizer, control: str) -> set[int]:
    """Return the ids that the model writes for a control that is not cut out of the text."""
    pieces = pre_tokens(tokenizer, control)
    return {token.id for piece in pieces for token in tokenizer.model.tokenize(piece)}


def _set_cut(document: dict[str, Any], cut: str | None) -> None:
    if cut is not None:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pretokenizer(cut)
        document["pre_tokenizer"] = json.loads(tokenizer.to_str())["pre_tokenizer"]


def _joined_cut(base: Base, no_cross: Sequence[str]) -> str:
    """Return the pattern that joins the base's pieces, if its own pattern is a known one."""
    written = json.dumps(base.document["pre_tokenizer"])
    for name in PRETOKENIZERS[:-1]:
        for digits in DIGITS:
            own = json.dumps(str(pattern(name, digits)))
            if own in written and "Regex" in written:
                return joined_pattern(name, digits, no_cross=no_cross)
    own_part = base.document["pre_tokenizer"] or {}
    if own_part.get("type") == "ByteLevel" and own_part.get("use_regex"):
        return joined_pattern("gpt2", "any", no_cross=no_cross)
    raise SettingError(
        f"the cut of {base.name} is none of {', '.join(PRETOKENIZERS[:-1])}, so it cannot be "
        "lifted; extend it inside words"
    )


def _drift(
    before: Tokenizer, after: Tokenizer, texts: Sequence[str], n_before: int
) -> dict[str, Any]:
    """Return how many lines without a new token are spelled otherwise, and how many are longer."""
    lines = [line for text in texts for line in text.splitlines(keepends=True) if line.strip()]
    lines = lines[:: max(1, len(lines) // LINES)]
    without = changed = longer = 0
    pairs = zip(
        before.encode_batch_fast(lines, add_special_tokens=False),
        after.encode_batch_fast(lines, add_special_tokens=False),
        strict=True,
    )
    for old, new in pairs:
        longer += len(new.ids) > len(old.ids)
        if max(new.ids, default=0) < n_before:
            without += 1
            changed += old.ids != new.ids
    return {
        "lines": len(lines),
        "lines_without_new": without,
        "lines_changed": changed,
        "lines_longer": longer,
    }
