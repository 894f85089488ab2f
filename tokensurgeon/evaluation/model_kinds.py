"""How each kind of model is asked for the loss of a text.

A causal model gives the loss of each token after those before it. An encoder is asked for each
token with it hidden, and with it the rest of its word to the right: else the second half of a word
would give the first away, and the more so the finer a tokenizer cuts (PLL-word-l2r: Kauf &
Ivanova, 2023, arXiv 2305.10588). An encoder–decoder reads the first half of a chunk and is asked
for the second, which its decoder writes. What has no output rows has no loss.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from tokensurgeon.arrays import Float64, Ids, Mask
from tokensurgeon.checkpoint.embeddings import CAUSAL, ENCODER_DECODER, HEADLESS, MASKED
from tokensurgeon.errors import EvaluationError
from tokensurgeon.text.encoding import Encoded, Frame, prefix_of
from tokensurgeon.vocabulary import Vocabulary

PROTOCOLS = {
    CAUSAL: (
        "bits per byte = loss / (ln 2 × bytes); chunks cut from the text alone, each tokenised "
        "whole and scored whole after BOS (else EOS); the end of the text is not scored"
    ),
    MASKED: (
        "bits per byte = pseudo-log-likelihood / (ln 2 × bytes): each token hidden in turn, with "
        "the rest of its word to the right; not comparable with the loss of a causal model"
    ),
    ENCODER_DECODER: (
        "bits per byte = decoder loss / (ln 2 × bytes) on the second half of each chunk, the first "
        "half read by the encoder; not comparable with the loss of a causal model"
    ),
}
"""What a figure is, by the kind of the models."""


def frame_of(vocabulary: Vocabulary, kind: str) -> Frame:
    """Return the ids before and after a text, for a kind of model.

    Raises
    ------
    EvaluationError
        If the vocabulary lacks a token that an encoder needs, or the model has no loss at all.
    """
    if kind == CAUSAL:
        return prefix_of(vocabulary), ()
    if kind == HEADLESS:
        raise EvaluationError(
            "a model without output rows has no loss on a text: leave the text out"
        )
    end = _role(vocabulary, "sep", "eos")
    if kind == ENCODER_DECODER:
        # The decoder's own start stands before what it writes, whatever the vocabulary.
        return (-1,), () if end is None else (end,)
    start = _role(vocabulary, "cls", "bos")
    if start is None or end is None or vocabulary.roles.get("mask") is None:
        raise EvaluationError(
            "an encoder's loss needs tokens for start, end and mask, and the vocabulary has not "
            "all of them: leave the text out, or take a tokenizer made for an encoder"
        )
    return (start,), (end,)


def _role(vocabulary: Vocabulary, *roles: str) -> int | None:
    return next((vocabulary.roles[role] for role in roles if role in vocabulary.roles), None)


def masked_losses(
    model: Any, vocabulary: Vocabulary, text: str, encoded: Encoded, i: int
) -> Float64:
    """Return the pseudo-loss of each token of chunk `i` under an encoder, in nats."""
    frame = (encoded.prefix[0], encoded.suffix[0], vocabulary.roles["mask"])
    hidden = hidden_with(text.encode("utf-8"), encoded.ends[i])
    losses: Float64 = model.pseudo_nll(encoded.ids[i].tolist(), hidden, frame)
    return losses


def hidden_with(data: bytes, ends: Ids) -> Mask:
    """Return which tokens are hidden while each is asked for, bool (n_tokens, n_tokens).

    Itself, and those to its right that begin within a word that it has a part of; words are what
    white space parts.

    Examples
    --------
    >>> hidden_with(b"ab c", np.array([1, 2, 4])).astype(int).tolist()
    [[1, 1, 0], [0, 1, 0], [0, 0, 1]]
    """
    word = np.full(len(data) + 1, -1, dtype=np.int64)
    for number, match in enumerate(re.finditer(rb"\S+", data)):
        word[match.start() : match.end()] = number
    starts = np.concatenate([[0], ends[:-1]])
    n = len(ends)
    first, last = np.full(n, -1, dtype=np.int64), np.full(n, -2, dtype=np.int64)
    for i, (begin, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        inside = word[begin:end]
        inside = inside[inside >= 0]
        if inside.size:
            first[i], last[i] = inside[0], inside[-1]
    later = np.arange(n)[None, :] > np.arange(n)[:, None]
    return np.asarray((later & (first[None, :] == last[:, None])) | np.eye(n, dtype=np.bool_))


def decoder_losses(model: Any, encoded: Encoded, i: int, skip: int) -> Float64:
    """Return the loss of each token of chunk `i` past its first `skip` bytes; 0 before them."""
    ids, ends = encoded.ids[i].tolist(), encoded.ends[i]
    n_read = int(np.searchsorted(ends, skip, side="right"))
    losses = np.zeros(len(ids))
    if n_read < len(ids):
        losses[n_read:] = model.decoder_nll([*ids[:n_read], *encoded.suffix], ids[n_read:])
    return losses


def kind_of_all(kinds: list[str]) -> str:
    """Return the kind of the models of a table.

    Raises
    ------
    EvaluationError
        If they are of several, whose losses are not one measure.
    """
    if len(set(kinds)) > 1:
        raise EvaluationError(
            f"{' and '.join(sorted(set(kinds)))} models have no measure in common: compare models "
            "of one kind"
        )
    return kinds[0]
