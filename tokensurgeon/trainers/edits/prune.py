"""Prune a tokenizer: drop the tokens that a text never uses.

Kept are the tokens that the text uses, all added tokens and controls, the bytes, the unknown token,
and for a BPE all tokens that the kept ones are merged from. The text is then encoded again, and
every token must be the same: every merge that applied is kept, and the dropped ones never applied.
The ids left are renumbered in their old order; ``training.json`` lists the old id of each.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokensurgeon.errors import TokenizerError
from tokensurgeon.progress import Progress, no_progress
from tokensurgeon.text.borders import Borders
from tokensurgeon.text.seen import NOTHING_SEEN, line_hashes
from tokensurgeon.trainers.control_tokens import ids_around, renumber
from tokensurgeon.trainers.edits.base import Base, hold_added, spelled_merges
from tokensurgeon.trainers.mixture import CorpusLike, as_parts, documents_of
from tokensurgeon.trainers.trained import TrainedVocabulary, check_output
from tokensurgeon.vocabulary.token_bytes import byte_alphabet

BATCH_BYTES = 4_000_000
"""Text encoded at once; bounds the encodings held in memory."""
_BYTE = re.compile(r"<0x[0-9A-F]{2}>\Z")


def prune_vocabulary(
    base: str | Path,
    corpus: CorpusLike,
    *,
    least_uses: int = 1,
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
        As for `train_vocabulary`; the text that must be spelled as before.
    least_uses : int
        Drop tokens used less often. Above 1, text that uses them is spelled otherwise.
    output, field, force, progress
        As for `train_vocabulary`.

    Raises
    ------
    TokenizerError
        If the base is of another kind, or text is spelled otherwise than before.
    """
    if output is not None:
        check_output(output, force, corpus, base)
    original = Base.load(base)
    if original.model_type not in ("BPE", "Unigram", "WordPiece"):
        raise TokenizerError(
            f"{base} is a {original.model_type} model; give one of BPE, Unigram or WordPiece"
        )
    started = time.perf_counter()
    uses: Counter[int] = Counter()
    n_bytes = n_documents = 0
    seen, ends = NOTHING_SEEN, Borders()  # the tokenizer itself cuts a text at its controls
    for texts in _batches(corpus, field, ends):
        for encoding in original.tokenizer.encode_batch_fast(texts, add_special_tokens=False):
            uses.update(encoding.ids)
        seen = seen.plus(line_hashes(texts))
        n_documents += len(texts)
        n_bytes += sum(len(text.encode("utf-8")) for text in texts)
        progress(n_bytes, 0, "encoding")
    old_ids = _kept_ids(original, {i for i, count in uses.items() if count >= least_uses})
    new = {old: number for number, old in enumerate(old_ids)}
    pruned = original.changed(lambda document: _drop_others(document, new))
    changed = done = 0
    for texts in _batches(corpus, field, Borders()):
        pairs = zip(
            original.tokenizer.encode_batch_fast(texts, add_special_tokens=False),
            pruned.encode_batch_fast(texts, add_special_tokens=False),
            strict=True,
        )
        changed += sum([old_ids[i] for i in new.ids] != old.ids for old, new in pairs)
        done += sum(len(text.encode("utf-8")) for text in texts)
        progress(done, n_bytes, "comparing")
    if changed and least_uses == 1:
        raise TokenizerError(
            f"{changed:,} of {n_documents:,} documents are spelled otherwise; prune with more text"
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
            "old_ids": old_ids,
        },
        corpus={
            "bytes": n_bytes,
            "documents": n_documents,
            "control_strings": ends.facts(),
        },
        figures={
            "used": len(uses),
            "documents_changed": changed,
            "seconds": round(time.perf_counter() - started, 1),
        },
        seen=seen,
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


def _kept_ids(base: Base, used: set[int]) -> list[int]:
    """Return the ids to keep, ascending."""
    model = base.document["model"]
    id_of = base.tokenizer.get_vocab(with_added_tokens=False)
    kept = set(used) | set(base.tokenizer.get_added_tokens_decoder())
    kept |= {*base.controls.values(), *ids_around(base.document["post_processor"])}
    if padding := base.stored.get("padding"):
        kept |= {padding["pad_id"]} & {*base.tokenizer.get_vocab().values()}
    alphabet = set(byte_alphabet().values())
    prefix = model.get("continuing_subword_prefix") or ""
    for token, i in id_of.items():
        is_byte = token.removeprefix(prefix) in alphabet or _BYTE.match(token)
        if is_byte or token == model.get("unk_token"):
            kept.add(i)
    if base.model_type == "Unigram" and model.get("unk_id") is not None:
        kept.add(int(model["unk_id"]))
    if base.model_type == "BPE":
        parts: dict[str, list[tuple[str, str]]] = {}
        for left, right in spelled_merges(base.document):
            parts.setdefault(left + right.removeprefix(prefix), []).append((left, right))
        stack = [token for token, i in id_of.items() if i in kept]
        while stack:
            for pair in parts.get(stack.pop(), ()):
                for part in pair:
                    if id_of[part] not in kept:
                        kept.add(id_of[part])
                        stack.append(part)
    return sorted(kept)


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
