"""A checkpoint as a model of bytes, or of the tokens of another tokenizer.

::

    view = byte_view("patched")
    reading = view.read(b"The capital of Fr")
    reading.next_bytes()
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tokensurgeon.arrays import Float64
from tokensurgeon.models import load_model
from tokensurgeon.models.covers import LEAST_SHARE, MOST_COVERS, ByteView, Reading
from tokensurgeon.vocabulary import load_vocabulary
from tokensurgeon.vocabulary.prefix_table import Continuations
from tokensurgeon.vocabulary.spellings import Spellings


def byte_view(
    checkpoint: str | Path,
    *,
    least_share: float = LEAST_SHARE,
    most_covers: int | None = MOST_COVERS,
    device: str = "cpu",
    dtype: str = "float32",
    trust_remote_code: bool = False,
) -> ByteView:
    """Load a checkpoint as a model of bytes.

    Parameters
    ----------
    checkpoint : str or Path
        A causal model with its own tokenizer.
    least_share, most_covers
        As of `ByteView`: 0 and None for exact probabilities of short texts.
    device, dtype : str
        Of the forward passes.
    trust_remote_code : bool

    Raises
    ------
    CheckpointError
        If there is no such checkpoint.
    EvaluationError
        If it is not causal.
    """
    vocabulary = load_vocabulary(checkpoint)
    model = load_model(checkpoint, device=device, dtype=dtype, trust_remote_code=trust_remote_code)
    return ByteView(model, vocabulary, least_share=least_share, most_covers=most_covers)


def next_tokens(reading: Reading, spellings: Spellings) -> Float64:
    """Return what a model says of the next token of another tokenizer.

    Each of the model's own next tokens counts, with what it has beyond the text that was read, for
    the first token by which the other tokenizer spells that. A token of the other tokenizer that
    goes on beyond the model's next token counts for the one that its beginning is spelled with: the
    model is asked for one token. This is the sum that `marginal` and `distil` learn from
    (arXiv 2410.09303, arXiv 2607.22334), here after any bytes and over all their spellings.

    Parameters
    ----------
    reading : Reading
    spellings : Spellings
        From the model's vocabulary to the other.

    Returns
    -------
    float64 (n_target + 1,)
        They sum to one; the last is what the other tokenizer cannot spell, controls above all.
    """
    target, n = spellings.target, spellings.target.n_rows
    found = np.zeros(n + 1)
    for cover, tokens, masses in reading.continuations():
        if cover.open:
            rests = [_rest(spellings, token, len(cover.open)) for token in tokens.tolist()]
            pieces = [(target.pieces_of(rest) or (n,))[0] for rest in rests]
            first = np.array(pieces, dtype=np.int64)
        else:
            first = np.full(len(tokens), n)
            known = tokens < len(spellings.first)
            first[known] = spellings.first[tokens[known]]
            first[first < 0] = n
        sums = Continuations(tokens, first)
        found[sums.next_symbols] += sums.sums(masses)
    return found


def _rest(spellings: Spellings, token: int, n_read: int) -> bytes:
    return (spellings.source.token_bytes[token] or b"")[n_read:]
