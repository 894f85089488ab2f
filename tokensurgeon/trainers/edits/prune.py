"""Prune a tokenizer: drop the tokens that a text never uses, and keep those that are asked for.

Kept are the tokens that the text uses, those of the scripts asked for, and what `kept` says is
always kept. The text is then encoded again, whole, with the tokens around it: where all tokens of a
document are kept every one must be the same, for every merge that applied is kept, and the dropped
ones never applied. The ids left are renumbered in their old order; ``training.json`` lists the old
id of each.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tokensurgeon.errors import SettingError, TokenizerError
from tokensurgeon.progress import Progress, no_progress
from tokensurgeon.text.borders import Borders
from tokensurgeon.text.seen import NOTHING_SEEN, line_hashes
from tokensurgeon.trainers.control_tokens import renumber
from tokensurgeon.trainers.edits.base import Base, hold_added, spelled_merges
from tokensurgeon.trainers.edits.kept import BeforeUnknown, Homes, Keep, choose, count_dropped
from tokensurgeon.trainers.mixture import CorpusLike, as_parts, documents_of
from tokensurgeon.trainers.trained import TrainedVocabulary, check_output

BATCH_BYTES = 4_000_000
"""Text encoded at once; bounds the encodings held in memory."""


def prune_vocabulary(
    base: str | Path,
    corpus: CorpusLike = (),
    *,
    least_uses: int = 1,
    scripts: Sequence[str] = (),
    size: int | None = None,
    pad_to_multiple_of: int = 1,
    output: str | Path | None = None,
    field: str = "text",
    force: bool = False,
    progress: Progress = no_progress,
) -> TrainedVocabulary:
    """Drop the tokens of a tokenizer that a text never uses.

    Parameters
    ----------
    base : str or Path
        A folder, a tokenizer.json or a hub id; BPE, Unigram or WordPiece.
    corpus
        As for `train_vocabulary`; the text that must be spelled as before. None is needed where
        `scripts` or `size` say what to keep.
    least_uses : int
        Drop tokens used less often. Above 1, text that uses them is spelled otherwise.
    scripts : sequence of str
        Keep every token that text of these Unicode scripts can hold, such as ``["Latin"]``; digits,
        punctuation and signs (Common, Inherited) are of every script.
    size : int or None
        Keep so many ids in all: the most used by the text first, then those of the scripts, then
        the earliest merges of a BPE, the best scores of a Unigram, the lowest ids of a WordPiece.
    pad_to_multiple_of : int
        Keep further tokens, in that order, up to a multiple of this number.
    output, field, force, progress
        As for `train_vocabulary`.

    Raises
    ------
    SettingError
        If nothing says what to keep, or the size is below what must be kept.
    UnknownNameError
        If a script has no such name.
    TokenizerError
        If the base is of another kind, or text whose tokens are all kept is spelled otherwise.
    """
    keep = Keep.parse(least_uses, scripts, size, pad_to_multiple_of)
    has_text = not isinstance(corpus, Sequence) or len(corpus) > 0
    if not (has_text or keep.scripts or size is not None):
        raise SettingError("nothing says which tokens to keep: give text, scripts or a size")
    if output is not None:
        check_output(output, force, corpus, base)
    original = Base.load(base)
    if original.model_type not in ("BPE", "Unigram", "WordPiece"):
        raise TokenizerError(
            f"{base} is a {original.model_type} model, whose tokens no others can spell; give one "
            "of BPE, Unigram or WordPiece"
        )
    started = time.perf_counter()
    uses: Counter[int] = Counter()
    needed: set[int] = set()
    before_unknown, homes = BeforeUnknown(original), Homes()
    n_bytes = n_documents = 0
    seen, ends = NOTHING_SEEN, Borders()  # the tokenizer itself cuts a text at its controls
    for texts in _batches(corpus, field, ends) if has_text else ():
        encodings = original.tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        for text, encoding in zip(texts, encodings, strict=True):
            uses.update(encoding.ids)
            homes.add(encoding.ids)
            needed |= before_unknown.of(text, encoding.ids)
        seen = seen.plus(line_hashes(texts))
        n_documents += len(texts)
        n_bytes += sum(len(text.encode("utf-8")) for text in texts)
        progress(n_bytes, 0, "encoding")
    kept = choose(original, keep, uses, needed)
    old_ids = kept.ids
    new = {old: number for number, old in enumerate(old_ids)}
    pruned = original.changed(lambda document: _drop_others(document, new))
    changed = wrong = done = n_after = 0
    for texts in _batches(corpus, field, Borders()) if has_text else ():
        both = (t.encode_batch_fast(texts) for t in (original.tokenizer, pruned))
        for text, before, after in zip(texts, *both, strict=True):
            n_after += len(after.ids) - len(before.ids)
            if [old_ids[i] for i in after.ids] != before.ids:
                changed += 1
                whole = {*before.ids, *before_unknown.of(text, before.ids)}
                wrong += whole <= new.keys()
        done += sum(len(text.encode("utf-8")) for text in texts)
        progress(done, n_bytes, "comparing")
    if wrong:
        raise TokenizerError(
            f"{wrong:,} of {n_documents:,} documents are spelled otherwise though all of their "
            f"tokens are kept: the rules of {base} are not understood; give another tokenizer"
        )
    ends.counts.update({control: uses[i] for control, i in original.controls.items() if uses[i]})
    trained = TrainedVocabulary(
        tokenizer=original.as_stored(pruned, new),
        settings={
            "method": "prune",
            "base": original.name,
            "base_size": original.vocabulary.n_rows,
            "dropout": original.dropout,
            "size": len(old_ids),
            "least_uses": least_uses,
            "scripts": list(keep.scripts),
            "size_asked": size,
            "pad_to_multiple_of": pad_to_multiple_of,
            "old_ids": old_ids,
        },
        corpus={
            "bytes": n_bytes,
            "documents": n_documents,
            "control_strings": ends.facts(),
        },
        figures={
            "used": len(uses),
            "kept": kept.why,
            "documents_changed": changed,
            **homes.left_out(original, keep, uses),
            "tokens": uses.total(),
            "tokens_dropped": count_dropped(uses, new),
            "tokens_after": uses.total() + n_after,
            "seconds": round(time.perf_counter() - started, 1),
        },
        seen=seen.joined(original.seen) if has_text else original.seen,
        base_config=_with_new_ids(original.config, new),
        base_files=original.files,
    )
    return trained if output is None else trained.write(output, force=force)


def _batches(corpus: CorpusLike, field: str, ends: Borders) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for part in as_parts(corpus).values():
        for document, _ in documents_of(part, field, ends):
            batch.append(document.text)
            size += document.n_bytes
            if size >= BATCH_BYTES:
                yield batch
                batch, size = [], 0
    if batch:
        yield batch


def _with_new_ids(config: dict[str, Any], new: dict[int, int]) -> dict[str, Any]:
    """Return a tokenizer_config.json in which the added tokens that it lists have new ids."""
    listed = config.get("added_tokens_decoder")
    if not isinstance(listed, dict):
        return config
    ids = {old: new.get(int(old)) if old.isdecimal() else None for old in listed}
    moved = {str(ids[old]): entry for old, entry in listed.items() if ids[old] is not None}
    return {**config, "added_tokens_decoder": moved}


def _drop_others(document: dict[str, Any], new: dict[int, int]) -> None:
    """Drop the ids without a new one from a tokenizer.json and renumber the others, in place."""
    model = document["model"]
    if model["type"] == "Unigram":
        model["vocab"] = [entry for i, entry in enumerate(model["vocab"]) if i in new]
        if model.get("unk_id") is not None:
            model["unk_id"] = new[model["unk_id"]]
    else:
        model["vocab"] = {t: new[i] for t, i in model["vocab"].items() if i in new}
    if model["type"] == "BPE":
        vocabulary = model["vocab"]
        prefix = model.get("continuing_subword_prefix") or ""
        model["merges"] = [
            [left, right]
            for left, right in spelled_merges(document)
            if {left, right, left + right.removeprefix(prefix)} <= vocabulary.keys()
        ]
    for token in document["added_tokens"]:
        token["id"] = new[token["id"]]
    hold_added(document)
    renumber(document.get("post_processor"), new)
