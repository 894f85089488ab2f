"""What merging does to a model on a text: lengths, loss by method of rows, and time.

A causal model reads the first half of each chunk, plain and merged, and is asked for the second,
which is plain in both: bits per byte of the same bytes. Of an encoder the embeddings of whole
chunks are compared, the mean of the final states, each weighed with the pieces it stands for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from tokensurgeon.arrays import Float64, blocks
from tokensurgeon.checkpoint import Checkpoint
from tokensurgeon.errors import EvaluationError, SettingError
from tokensurgeon.evaluation.metrics import bits_per_byte
from tokensurgeon.models import load_model
from tokensurgeon.progress import Progress, no_progress
from tokensurgeon.report.merging_facts import MergingFacts, RowsFact
from tokensurgeon.runtime.merging.dynamic_model import DynamicModel
from tokensurgeon.runtime.merging.merged_batch import MergedBatch
from tokensurgeon.runtime.merging.merged_rows import (
    DEFAULT_ROWS,
    MergedRows,
    context_of,
    merged_rows,
)
from tokensurgeon.runtime.merging.policies import Limits
from tokensurgeon.text.chunks import CHUNK_SIZES, chunk_documents
from tokensurgeon.text.corpus import read_to_measure
from tokensurgeon.vocabulary import load_vocabulary

T = TypeVar("T")

DEFAULT_MAX_BYTES = 20_000
"""Of text: each method takes forward passes over all of it, a minute for a small model."""
DEFAULT_BATCH = 32
"""Chunks that are merged together, by default: pairs repeat, and a batch still fits into memory."""


@dataclass
class _Sums:
    """What adds up over batches, for one method of rows; "" is the plain pass."""

    nll: float = 0.0
    embeddings: list[Float64] = field(default_factory=list)
    seconds_read: float = 0.0
    seconds_made: float = 0.0
    seconds_kept: float = 0.0


def measure_merging(
    path: str | Path,
    texts: Sequence[str | Path],
    *,
    rows: Sequence[str] = (DEFAULT_ROWS,),
    network: str | Path | None = None,
    policy: str = "frequency",
    layer: int | None = None,
    positions: str = "packed",
    merges: int | None = None,
    saving: float | None = None,
    least_count: int = 2,
    keep_last: int = 1,
    batch: int = DEFAULT_BATCH,
    max_bytes: int = DEFAULT_MAX_BYTES,
    chunk_bytes: int = CHUNK_SIZES[0],
    field: str = "text",
    device: str = "cpu",
    dtype: str = "float32",
    seed: int = 0,
    trust_remote_code: bool = False,
    progress: Progress = no_progress,
) -> MergingFacts:
    """Merge the tokens of a text batch by batch, and measure what that saves and costs.

    Parameters
    ----------
    path : str or Path
        A checkpoint with its tokenizer: a causal model or an encoder.
    texts : sequence of str or Path
        Files, folders or globs.
    rows : sequence of str
        Methods that make rows, each measured; times of forward passes are the first's.
    network : str, Path or None
        The file of a trained network, for ``hypernetwork``.
    policy, layer
        As in `DynamicModel.merge`.
    positions : {"packed", "spread"}
    merges, saving, least_count, keep_last
        As in `Limits`, for each batch; an encoder keeps no last token.
    batch : int
        Chunks that are merged and run together.
    max_bytes, chunk_bytes : int
        Of text, and of a chunk at most.
    field : str
        The key that holds the text in JSON objects.
    device, dtype : str
    seed : int
        Of methods that learn or draw.
    trust_remote_code : bool
    progress : callable(done, total, what)

    Raises
    ------
    TokensurgeonError
        If the checkpoint, a text, a method or a limit cannot be used.
    """
    if not rows or len(set(rows)) < len(rows):
        raise SettingError(f"{len(rows)} methods of rows, some twice or none; name each once")
    if network is not None and "hypernetwork" not in rows:
        raise SettingError("a network is for the rows of hypernetwork; name it among the rows too")
    if layer is not None and policy != "meaning":
        raise SettingError(f"policy {policy} compares no states; leave out the layer")
    limits = Limits(merges, saving, least_count, keep_last=keep_last)
    checkpoint = Checkpoint.open(path, trust_remote_code=trust_remote_code)
    corpus = read_to_measure(texts, max_bytes=max_bytes, field=field)
    vocabulary = load_vocabulary(path)
    context = context_of(checkpoint, vocabulary, seed=seed, device=device, progress=progress)
    makers = [
        merged_rows(context, name, {"network": network} if name == "hypernetwork" else None)
        for name in rows
    ]
    language = load_model(path, device=device, dtype=dtype, trust_remote_code=trust_remote_code)
    model = DynamicModel(language, vocabulary, makers[0], positions=positions)
    if not model.causal:
        limits = Limits(merges, saving, least_count)
    chunks = chunk_documents(
        corpus.texts, max_bytes_per_chunk=chunk_bytes, max_bytes_total=max_bytes
    )
    parts = list(_parts(model, [chunk.text for chunk in chunks]))
    if not parts:
        raise EvaluationError(
            f"none of {len(chunks)} chunks can be halved: give longer text, or raise chunk_bytes"
        )
    options = {name: value for name, value in asdict(limits).items() if name != "longest"}
    sums: dict[str, _Sums] = {"": _Sums(), **{name: _Sums() for name in rows}}
    clock = _Clock(device)
    merging = 0.0
    tokens_before = tokens_after = n_merges = n_batches = 0
    known: set[tuple[int, ...]] = set()
    _run(model, makers[0], _plain([parts[0].read], model), parts[:1], _Sums(), clock)  # warms up
    for block in blocks(len(parts), batch):
        own = parts[block]
        read = [part.read for part in own]
        merge = partial(model.merge, read, policy=policy, layer=layer, **options)
        merged, seconds = clock(merge)
        merging += seconds
        tokens_before, tokens_after = tokens_before + merged.n_before, tokens_after + merged.n_after
        n_merges, n_batches = n_merges + merged.n_merges, n_batches + 1
        known.update(merged.merged)
        plain = _plain(read, model)
        for name, maker in zip(sums, [makers[0], *makers], strict=True):
            _run(model.with_rows(maker), maker, merged if name else plain, own, sums[name], clock)
            progress(block.stop, len(parts), f"reading with {name or 'plain tokens'}")
    n_bytes = sum(part.scored for part in parts)

    def bits(one: _Sums) -> float | None:
        return bits_per_byte(one.nll, n_bytes) if model.causal else None

    return MergingFacts(
        checkpoint=str(path),
        kind=language.kind,
        policy=policy,
        positions=positions,
        settings={**options, "layer": layer, "batch": batch, "chunk_bytes": chunk_bytes,
                  "max_bytes": max_bytes, "dtype": dtype, "seed": seed},
        n_texts=len(parts),
        n_batches=n_batches,
        n_bytes=sum(part.n_bytes for part in parts),
        tokens_before=tokens_before,
        tokens_after=tokens_after,
        n_merges=n_merges,
        n_merged=len(known),
        scored_bytes=n_bytes,
        bits_plain=bits(sums[""]),
        rows=tuple(
            RowsFact(
                name,
                bits(sums[name]),
                *_compared(sums[""].embeddings, sums[name].embeddings),
                maker.n_made,
                sums[name].seconds_made,
                sums[name].seconds_kept,
            )
            for name, maker in zip(rows, makers, strict=True)
        ),
        clock=clock.name,
        seconds_merging=merging,
        seconds_plain=sums[""].seconds_read,
        seconds_merged=sums[rows[0]].seconds_read,
    )  # fmt: skip


@dataclass(frozen=True)
class _Part:
    """A chunk: ids that are read, those that are asked for, and the bytes of either."""

    read: list[int]
    asked: list[int]
    n_bytes: int
    scored: int


def _parts(model: DynamicModel, texts: Sequence[str]) -> Iterator[_Part]:
    """Yield the chunks that the tokenizer spells; a causal model's are halved by their bytes."""
    before, after = model.frame
    for encoding in model.vocabulary.encode_many(texts):
        ids = encoding.ids
        if not encoding.lossless and model.causal:
            continue
        if not model.causal:
            yield _Part([*before, *ids, *after], [], encoding.n_bytes, 0)
            continue
        half = int(np.searchsorted(encoding.ends, encoding.n_bytes // 2, side="right"))
        if 1 <= half < len(ids):
            n_read = int(encoding.ends[half - 1])
            yield _Part([*before, *ids[:half]], ids[half:], n_read, encoding.n_bytes - n_read)


def _plain(sequences: Sequence[Sequence[int]], model: DynamicModel) -> MergedBatch:
    return MergedBatch.of_spans(sequences, [()] * len(sequences), model.model.n_rows)


class _Clock:
    """Times a call: by the processor where the model is on it, for other work runs beside."""

    def __init__(self, device: str) -> None:
        self.name = "processor" if device == "cpu" else "wall"
        self._now = time.process_time if device == "cpu" else time.perf_counter

    def __call__(self, call: Callable[[], T]) -> tuple[T, float]:
        start = self._now()
        result = call()
        return result, self._now() - start


def _run(
    model: DynamicModel,
    rows: MergedRows,
    batch: MergedBatch,
    parts: Sequence[_Part],
    sums: _Sums,
    clock: _Clock,
) -> None:
    """Add what one pass over a batch gives, and what it takes."""
    if batch.merged:
        sums.seconds_made += clock(lambda: rows(batch.merged))[1]
        sums.seconds_kept += clock(lambda: rows(batch.merged))[1]
    if model.causal:
        prefilled, seconds = clock(lambda: model.prefill(batch))
        losses = model.nll_after(prefilled, [part.asked for part in parts])
        sums.nll += float(sum(map(np.sum, losses)))
    else:
        states, seconds = clock(lambda: model.states(batch))
        for sequence, own in zip(batch.sequences, states, strict=True):
            weights = batch.n_pieces(sequence).astype(np.float64)
            sums.embeddings.append(np.asarray(weights @ own / weights.sum()))
    sums.seconds_read += seconds


def _compared(
    plain: Sequence[Float64], merged: Sequence[Float64]
) -> tuple[float | None, float | None]:
    """Return the drift of embeddings, and the share of texts whose nearest other is the same."""
    if not plain:
        return None, None
    one, two = (np.stack(list(rows)) for rows in (plain, merged))
    one, two = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (one, two))
    drift = float(1.0 - (one * two).sum(axis=1).mean())
    if len(one) < 2:
        return drift, None
    nearest = []
    for rows in (one, two):
        likeness = rows @ one.T  # a merged query among plain texts, as in an index made before
        np.fill_diagonal(likeness, -np.inf)
        nearest.append(likeness.argmax(axis=1))
    return drift, float((nearest[0] == nearest[1]).mean())
