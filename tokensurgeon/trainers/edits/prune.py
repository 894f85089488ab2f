"""Prune a tokenizer: drop the tokens that a text never uses.

What stays is what the text uses, all added tokens, the bytes, the unknown token, and for a BPE
everything that the tokens kept are merged from. The text is then encoded again, and every token
must be the same: the merges that fired are all there, and those that are gone never fired. Ids
close up in their old order; ``training.json`` says which old id each new one had.
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
from tokensurgeon.text.seen import NOTHING_SEEN, line_hashes
from tokensurgeon.trainers.edits.base import Base, spelled_merges
from tokensurgeon.trainers.mixture import CorpusLike, as_parts, documents_of
from tokensurgeon.trainers.trained import TrainedVocabulary, check_output, versions
from tokensurgeon.vocabulary.token_bytes import byte_alphabet

BATCH_BYTES = 4_000_000
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
        As for `train_vocabulary`; text that is to be spelled as before.
    least_uses : int
        Drop tokens used less often; above 1, text that uses them is spelled otherwise.
    output, field, force, progress
        As for `train_vocabulary`.

    Raises
    ------
    TokenizerError
        If the base is of another kind, or text is spelled otherwise than before.
    """
    if output is not None:
        check_output(Path(output), force)
    found = Base.load(base)
    if found.model_type not in ("BPE", "Unigram", "WordPiece"):
        raise TokenizerError(f"{base} is a {found.model_type} model, which is not pruned")
    started = time.perf_counter()
    uses: Counter[int] = Counter()
    n_bytes = n_documents = 0
    seen = NOTHING_SEEN
    for texts in _batches(corpus, field):
        for encoding in found.tokenizer.encode_batch_fast(texts, add_special_tokens=False):
            uses.update(encoding.ids)
        seen = seen.plus(line_hashes(texts))
        n_documents += len(texts)
        n_bytes += sum(len(text.encode("utf-8")) for text in texts)
        progress(n_bytes, 0, "encoding")
    kept = _kept(found, {token for token, count in uses.items() if count >= least_uses})
    made = found.changed(lambda document: _shrink(document, kept))
    changed = 0
    done = 0
    for texts in _batches(corpus, field):
        pairs = zip(
            found.tokenizer.encode_batch_fast(texts, add_special_tokens=False),
            made.encode_batch_fast(texts, add_special_tokens=False),
            strict=True,
        )
        changed += sum([kept[i] for i in new.ids] != old.ids for old, new in pairs)
        done += sum(len(text.encode("utf-8")) for text in texts)
        progress(done, n_bytes, "comparing")
    if changed and least_uses == 1:
        raise TokenizerError(f"{changed:,} of {n_documents:,} documents are spelled otherwise")
    trained = TrainedVocabulary(
        tokenizer=made,
        settings={
            "method": "prune",
            "base": found.name,
            "base_size": found.vocabulary.n_rows,
            "size": len(kept),
            "least_uses": least_uses,
            "old_ids": kept,
        },
        corpus={"bytes": n_bytes, "documents": n_documents},
        figures={
            "used": len(uses),
            "documents_changed": changed,
            "seconds": round(time.perf_counter() - started, 1),
        },
        versions=versions(),
        seen=seen,
        base_config=found.config,
        base_files=found.files,
    )
    return trained if output is None else trained.write(output, force=force)


def _batches(corpus: CorpusLike, field: str) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for part in as_parts(corpus).values():
        for document, _ in documents_of(part, field):
            batch.append(document.text)
            size += document.n_bytes
            if size >= BATCH_BYTES:
                yield batch
                batch, size = [], 0
    if batch:
        yield batch


def _kept(base: Base, used: set[int]) -> list[int]:
    """Return the ids that stay, in their order."""
    model = base.document["model"]
    number_of = base.tokenizer.get_vocab(with_added_tokens=False)
    kept = set(used) | set(base.tokenizer.get_added_tokens_decoder())
    alphabet = set(byte_alphabet().values())
    prefix = model.get("continuing_subword_prefix") or ""
    for token, number in number_of.items():
        if token.removeprefix(prefix) in alphabet or _BYTE.match(token):
            kept.add(number)
    unknown = model.get("unk_token")
    if unknown in number_of:
        kept.add(number_of[unknown])
    if base.model_type == "Unigram" and model.get("unk_id") is not None:
        kept.add(int(model["unk_id"]))
    if base.model_type == "BPE":
        parts: dict[str, list[tuple[str, str]]] = {}
        for left, right in spelled_merges(base.document):
            parts.setdefault(left + right.removeprefix(prefix), []).append((left, right))
        spelled = {number: token for token, number in number_of.items()}
        waiting = [spelled[number] for number in kept if number in spelled]
        while waiting:
            for pair in parts.get(waiting.pop(), ()):
                for part in pair:
                    if number_of[part] not in kept:
                        kept.add(number_of[part])
                        waiting.append(part)
    return sorted(kept)


def _shrink(document: dict[str, Any], kept: list[int]) -> None:
    """Drop all other ids from a tokenizer.json, in place."""
    new = {old: number for number, old in enumerate(kept)}
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
    _renumber(document.get("post_processor"), new)


def _renumber(part: Any, new: dict[int, int]) -> None:
    """Give the special tokens of a post-processor their new ids, in place."""
    if isinstance(part, list):
        for inner in part:
            _renumber(inner, new)
    if not isinstance(part, dict):
        return
    if part.get("type") in ("BertProcessing", "RobertaProcessing"):
        for name in ("cls", "sep"):
            part[name][1] = new[part[name][1]]
    for special in (part.get("special_tokens") or {}).values():
        special["ids"] = [new[i] for i in special["ids"]]
    _renumber(part.get("processors"), new)
