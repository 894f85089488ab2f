"""Extend a BPE: keep every id, and append tokens that a text makes worth having.

The new merges rank after all that are there, so a text in which none of the new tokens stands is
spelled exactly as before. With `across`, the cuts between words are lifted (only where the base's
pattern is one that we know), tokens may span several words, and text can then be spelled otherwise
even without a new token: how much is measured and said.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokensurgeon.errors import CorpusError, SettingError, TokenizerError
from tokensurgeon.progress import Progress, no_progress
from tokensurgeon.trainers.counting.count import count_segments
from tokensurgeon.trainers.counting.held_out import HeldOut
from tokensurgeon.trainers.counting.pretokenizers import (
    DIGITS,
    NO_CROSS,
    PRETOKENIZERS,
    check_range,
    joined_pattern,
    pattern,
    pretokenizer,
)
from tokensurgeon.trainers.counting.weighted import Text
from tokensurgeon.trainers.edits.base import Base, spelled_merges
from tokensurgeon.trainers.encoders import spell
from tokensurgeon.trainers.learners.merging import Merger, Merges
from tokensurgeon.trainers.mixture import CorpusLike, as_parts, documents_of
from tokensurgeon.trainers.plan import LONGEST_SUPERWORD, MOST_WORDS
from tokensurgeon.trainers.trained import TrainedVocabulary, check_output, versions
from tokensurgeon.vocabulary.parts import SPACE_MARK

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_BYTE = re.compile(rb"<0x[0-9A-F]{2}>")
LINES = 2_000
"""Held-out lines of which drift is told."""


@dataclass(frozen=True)
class OwnPieces:
    """The pieces of a tokenizer's own normaliser and pre-tokenizer, as its model sees them.

    Where it cuts nothing (SentencePiece's kind), pieces begin at a space.
    """

    document: str
    once: bool = False

    def cut(self, text: str) -> Iterator[str]:
        """Yield segments."""
        tokenizer = _loaded(self.document)
        if tokenizer.normalizer is not None:
            text = tokenizer.normalizer.normalize_str(text)
        if tokenizer.pre_tokenizer is not None:
            for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text):
                yield piece
            return
        start = 0
        for place in range(1, len(text)):
            if text[place] == SPACE_MARK and text[place - 1] != SPACE_MARK:
                yield text[start:place]
                start = place
        yield text[start:]


@lru_cache(maxsize=2)
def _loaded(document: str) -> Tokenizer:
    from tokenizers import Tokenizer

    return Tokenizer.from_str(document)


def extend_vocabulary(
    base: str | Path,
    corpus: CorpusLike,
    *,
    size: int,
    across: bool = False,
    most_words: int = MOST_WORDS,
    no_cross: Sequence[str] = NO_CROSS,
    longest: int | None = None,
    held_out: Sequence[str | Path] = (),
    output: str | Path | None = None,
    field: str = "text",
    processes: int | None = None,
    memory_gib: float = 2.0,
    counts: str | Path | None = None,
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
    size : int
        Number of ids in the end.
    across : bool
        Whether new tokens may span several words.
    most_words, no_cross, longest
        Of such tokens; see `Shape`.
    held_out, output, field, processes, memory_gib, counts, force, progress
        As for `train_vocabulary`.

    Raises
    ------
    TokenizerError
        If the base is no BPE, or `across` is asked and its cut is none that we know.
    CorpusError
        If the text is too little for so many tokens.
    """
    from tokensurgeon.trainers.train import measured_sources

    if output is not None:
        check_output(Path(output), force)
    found = Base.load(base)
    if found.model_type != "BPE":
        raise TokenizerError(f"{base} is a {found.model_type} model; only a BPE can be extended")
    n_before = found.vocabulary.n_rows
    check_range("size", size, n_before + 1, 2_000_000)
    started = time.perf_counter()
    cut = _lifted(found, no_cross) if across else None
    lifted = found.changed(lambda document: _put_cut(document, cut))
    cutter = OwnPieces(lifted.to_str(), once=across)
    counted = count_segments(
        {name: documents_of(part, field) for name, part in as_parts(corpus).items()},
        {"pieces": cutter},
        held_out=None if held_out else HeldOut(),
        processes=processes,
        memory_gib=memory_gib,
        state=counts,
        progress=progress,
    )
    sources = measured_sources(counted, held_out, field)
    merges = _merges(found)
    n_merges = len(merges.pairs)
    limit = longest or LONGEST_SUPERWORD
    falls_back = bool(found.document["model"].get("byte_fallback"))

    def allow(token: bytes) -> bool:
        # A byte-fallback token is no text that could be part of a longer one.
        if len(token) > limit or (falls_back and _BYTE.search(token)):
            return False
        return not across or _words(token, found) <= most_words

    pieces = Text(counted).table("pieces")
    progress(0, 0, "spelling the text")
    Merger(spell(_model_only(found), pieces, fewest=2), merges, allow=allow).run(
        size, lambda done: progress(done, size, "merging")
    )
    if len(merges.tokens) < size:
        raise CorpusError(
            f"{sum(counted.n_bytes):,} bytes of text give {len(merges.tokens):,} of {size:,} "
            f"tokens; give more text, or a size of at most {len(merges.tokens):,}"
        )
    spelled = [token.decode("utf-8") for token in merges.tokens[n_before:]]

    def grow(document: dict[str, Any]) -> None:
        _put_cut(document, cut)
        model = document["model"]
        model["vocab"] |= {token: n_before + i for i, token in enumerate(spelled)}
        names = [token.decode("utf-8", "replace") for token in merges.tokens]
        model["merges"] = [
            *([left, right] for left, right in spelled_merges(document)),
            *([names[left], names[right]] for left, right in merges.pairs[n_merges:]),
        ]

    made = found.changed(grow)
    seconds = time.perf_counter() - started
    documents = [text for source in sources for text in source.documents]
    before, after = _n_tokens(found.tokenizer, documents), _n_tokens(made, documents)
    n_bytes = sum(len(text.encode("utf-8")) for text in documents)
    trained = TrainedVocabulary(
        tokenizer=made,
        settings={
            "method": "extend",
            "base": found.name,
            "base_size": n_before,
            "size": size,
            "across": across,
            "most_words": most_words,
            "no_cross": list(no_cross),
            "longest": longest,
        },
        corpus=counted.facts(),
        figures={
            "bytes_per_token": n_bytes / after,
            "base_bytes_per_token": n_bytes / before,
            "held_out_bytes": n_bytes,
            **_drift(found.tokenizer, made, documents, n_before),
            "seconds": round(seconds, 1),
        },
        versions=versions(),
        seen=counted.seen,
        base_config=found.config,
        base_files=found.files,
    )
    return trained if output is None else trained.write(output, force=force)


def _merges(base: Base) -> Merges:
    """Return the base's tokens, as they are spelled, and no pairs: those that are there apply."""
    spellings = base.vocabulary.spellings
    # A hole never stands in text; it only has to be told from every other token.
    tokens = [
        b"\xff%d" % number if spelling is None else spelling.encode("utf-8")
        for number, spelling in enumerate(spellings)
    ]
    return Merges(tokens=tokens, pairs=[], made=[], counts=[])


def _model_only(base: Base) -> Tokenizer:
    from tokenizers import Tokenizer

    return Tokenizer(base.tokenizer.model)


def _words(token: bytes, base: Base) -> int:
    from tokensurgeon.vocabulary.token_bytes import from_alphabet

    text = from_alphabet(token.decode("utf-8")).decode("utf-8", "replace")
    cut = base.tokenizer.pre_tokenizer
    return len(cut.pre_tokenize_str(text))


def _put_cut(document: dict[str, Any], cut: str | None) -> None:
    if cut is not None:
        document["pre_tokenizer"] = json.loads(_as_json(cut))


def _as_json(cut: str) -> str:
    from tokenizers import Tokenizer, models

    holder = Tokenizer(models.BPE())
    holder.pre_tokenizer = pretokenizer(cut)
    return json.dumps(json.loads(holder.to_str())["pre_tokenizer"])


def _lifted(base: Base, no_cross: Sequence[str]) -> str:
    """Return the pattern that joins the base's pieces, if its own is one that we know."""
    written = json.dumps(base.document["pre_tokenizer"])
    for name in PRETOKENIZERS[:-1]:
        for digits in DIGITS:
            own = json.dumps(str(pattern(name, digits)))
            if own in written and "Regex" in written:
                return joined_pattern(name, digits, no_cross=no_cross)
    plain = base.document["pre_tokenizer"] or {}
    if plain.get("type") == "ByteLevel" and plain.get("use_regex"):
        return joined_pattern("gpt2", "any", no_cross=no_cross)
    raise SettingError(
        f"the cut of {base.name} is none of {', '.join(PRETOKENIZERS[:-1])}, so it cannot be "
        "lifted; extend it inside words"
    )


def _n_tokens(tokenizer: Tokenizer, texts: Sequence[str]) -> int:
    encoded = tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
    return sum(len(encoding.ids) for encoding in encoded)


def _drift(
    before: Tokenizer, after: Tokenizer, texts: Sequence[str], n_before: int
) -> dict[str, Any]:
    """Return how many lines without a new token are spelled otherwise than before."""
    lines = [line for text in texts for line in text.splitlines(keepends=True) if line.strip()]
    lines = lines[:: max(1, len(lines) // LINES)]
    without = changed = 0
    pairs = zip(
        before.encode_batch_fast(lines, add_special_tokens=False),
        after.encode_batch_fast(lines, add_special_tokens=False),
        strict=True,
    )
    for old, new in pairs:
        if max(new.ids, default=0) < n_before:
            without += 1
            changed += old.ids != new.ids
    return {"lines": len(lines), "lines_without_new": without, "lines_changed": changed}
