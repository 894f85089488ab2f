"""Train a composer for a checkpoint, from files of text to a file of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tokensurgeon.checkpoint.files import find_folder
from tokensurgeon.errors import CalibrationError, UsageError
from tokensurgeon.evaluation.metrics import bits_per_byte
from tokensurgeon.models import load_model
from tokensurgeon.outputs.paths import check_apart
from tokensurgeon.progress import Progress, no_progress
from tokensurgeon.runtime.hypertokens.codec import Codebook, Limits
from tokensurgeon.runtime.hypertokens.composer_file import ComposerFile, check_output
from tokensurgeon.runtime.hypertokens.composer_training import CodedText, fit_composer
from tokensurgeon.runtime.hypertokens.composers import DEFAULT_COMPOSER
from tokensurgeon.runtime.hypertokens.contexts import cut_contexts
from tokensurgeon.runtime.hypertokens.hyper_model import HyperModel, base_rows
from tokensurgeon.runtime.hypertokens.learned_composer import LearnedComposer
from tokensurgeon.runtime.hypertokens.lora import add_lora
from tokensurgeon.runtime.hypertokens.zip_model import check_causal, limits_for
from tokensurgeon.text import read_documents
from tokensurgeon.vocabulary import Vocabulary, load_vocabulary

TRAINED_BYTES = 3072
"""Of a chunk: some 750 tokens, of which a good many repeat, at a step of seconds on a CPU."""
HELD_BYTES = 16_384
"""Of text that is held out, at most: the start and four checks are measured on it."""


def train_composer(
    checkpoint: str | Path,
    texts: Sequence[str | Path],
    output: str | Path,
    *,
    start: str = DEFAULT_COMPOSER,
    minutes: float = 5.0,
    steps: int | None = None,
    lora_rank: int = 0,
    max_hypertokens: int | None = None,
    max_ids: int | None = None,
    chunk_bytes: int = TRAINED_BYTES,
    field: str = "text",
    device: str = "cpu",
    seed: int = 0,
    force: bool = False,
    trust_remote_code: bool = False,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Train rows of hypertokens on text that the codec has compressed, and write them to a file.

    Parameters
    ----------
    checkpoint : str or Path
        Not changed.
    texts : sequence of str or Path
        To train on; about a tenth, at most 16 KiB, is held out, and the state that does best on it
        is kept.
    output : str or Path
        The safetensors file; with `lora_rank` it holds the adapter too.
    start : str
        The fixed composer that the trained one starts as.
    minutes : float
        Of training, the checks on held-out text included.
    steps : int or None
        In the place of minutes: the same on every run.
    lora_rank : int
        Adapt the blocks too, by LoRA of this rank (extra ``peft``); 0 leaves them alone.
    max_hypertokens, max_ids : int or None
        As in `load_zip`.
    chunk_bytes : int
        Longest chunk of training text.
    field, device, seed, force, trust_remote_code, progress
        As elsewhere.

    Returns
    -------
    dict
        The facts of the training, which the file holds too.

    Raises
    ------
    UsageError, OutputError
        If the output is taken or cannot be written.
    CalibrationError
        If there is too little text.
    MissingExtraError
        If LoRA is asked for and peft is not installed.
    """
    path = check_output(output, force=force)
    check_apart(path, find_folder(checkpoint))
    if lora_rank < 0 or (steps is not None and steps < 1) or not minutes > 0:
        raise UsageError(
            f"{minutes:g} minutes, {steps} steps and rank {lora_rank} are no training; give "
            "numbers above 0, and rank 0 for none"
        )
    documents = [document.text for document in read_documents(texts, field=field)]
    vocabulary = load_vocabulary(checkpoint)
    model = load_model(checkpoint, device=device, trust_remote_code=trust_remote_code)
    check_causal(model, checkpoint)
    limits = limits_for(vocabulary, model, max_hypertokens, max_ids)
    coded = coded_texts(vocabulary, documents, limits, chunk_bytes, model.max_positions)
    train, held = _split(coded, seed)
    composer = LearnedComposer(base_rows(model), start, limits.max_ids, seed=seed)
    hyper = HyperModel(model, composer, limits)
    plain = _plain(hyper, held)
    adapter = add_lora(model, lora_rank, seed) if lora_rank else []
    fitted = fit_composer(
        hyper,
        composer,
        train,
        held,
        adapter=adapter,
        seconds=math.inf if steps is not None else 60 * minutes,
        steps=steps,
        seed=seed,
        progress=progress,
    )
    card: dict[str, Any] = {
        "start": start,
        "lora_rank": lora_rank,
        "steps": fitted.n_steps,
        "codes": fitted.n_codes,
        "held_bytes": sum(text.n_bytes for text in held),
        "bits_per_byte_plain": plain,
        "bits_per_byte_before": fitted.history[0][1],
        "bits_per_byte_after": fitted.best,
        "history": [list(one) for one in fitted.history],
        "seed": seed,
    }
    ComposerFile(composer, limits, vocabulary.fingerprint, lora_rank, card).save(path, model)
    return {"output": str(path), **card}


def coded_texts(
    vocabulary: Vocabulary,
    documents: Sequence[str],
    limits: Limits,
    chunk_bytes: int,
    max_positions: int | None,
) -> list[CodedText]:
    """Return chunks of documents as codes, each after the prefix, as long as the model takes."""
    chunks, encoded = cut_contexts(vocabulary, documents, chunk_bytes, max_positions)
    usable = encoded.lossless & encoded.fits(max_positions)
    return [
        CodedText(Codebook(limits).encode([*encoded.prefix, *ids.tolist()]), chunk.n_bytes)
        for chunk, ids, use in zip(chunks, encoded.ids, usable, strict=True)
        if use and len(ids) > 1
    ]


def _split(coded: Sequence[CodedText], seed: int) -> tuple[list[CodedText], list[CodedText]]:
    """Return what to train on, and what is held out."""
    if len(coded) < 2:
        raise CalibrationError(
            f"{len(coded)} chunks of text are too few to train on some and measure on others; give "
            "more text"
        )
    order = np.random.default_rng(seed).permutation(len(coded)).tolist()
    held: list[int] = []
    size = 0
    for i in order[: max(1, len(coded) // 10)]:
        if held and size + coded[i].n_bytes > HELD_BYTES:
            break
        held.append(i)
        size += coded[i].n_bytes
    return [coded[i] for i in order if i not in held], [coded[i] for i in held]


def _plain(hyper: HyperModel, held: Sequence[CodedText]) -> float:
    """Return the bits per byte of the same chunks as ids, without hypertokens."""
    nll = 0.0
    for text in held:
        ids = Codebook(hyper.limits).decode(text.codes)
        nll += float(hyper.model.nll([ids])[0].sum())
    return bits_per_byte(nll, sum(text.n_bytes for text in held))
