"""Bits per byte by the exact probabilities of bytes, beside those of the tokenizer's own tokens.

The usual figure scores one spelling of a text, the tokenizer's own. What a model says of the text
itself is the sum over all spellings (`tokensurgeon.models.covers`), so it is never worse.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tokensurgeon.errors import EvaluationError
from tokensurgeon.evaluation.metrics import bits_per_byte
from tokensurgeon.models.covers import LEAST_SHARE, MOST_COVERS, ByteView
from tokensurgeon.models.language_model import LanguageModel
from tokensurgeon.progress import Progress, no_progress
from tokensurgeon.text.chunks import Chunk
from tokensurgeon.text.encoding import encode_chunks
from tokensurgeon.vocabulary import Vocabulary


@dataclass(frozen=True)
class ExactBytes:
    """Two figures of one model on the first bytes of a text.

    Attributes
    ----------
    bits_per_byte : float
        By next-byte probabilities, the covers left out taken to predict what follows as well as
        those that were held. Where none was left out it is exact.
    at_most : float
        By the mass of the covers that were never left out, the tokenizer's own among them: no exact
        figure is higher.
    spelled : float
        As `bits_per_byte`, of the text with its end at a token's end, as the canonical figure
        counts it: the rest of the gap is that the last token may go on.
    canonical : float
        By the tokenizer's own tokens, on the same bytes.
    n_bytes, n_chunks : int
    n_lost : int
        Chunks on which the tokenizer loses text: left out.
    mean_covers : float
        Covers that were held, on average over the bytes.
    least_share : float
        Share of the mass below which a cover was left out.
    """

    bits_per_byte: float
    at_most: float
    spelled: float
    canonical: float
    n_bytes: int
    n_chunks: int
    n_lost: int
    mean_covers: float
    least_share: float

    @property
    def gap(self) -> float:
        """Bits per byte that the canonical figure is above the exact one."""
        return self.canonical - self.bits_per_byte


def first_bytes(chunks: Sequence[Chunk], n_bytes: int) -> list[Chunk]:
    """Return the chunks that hold the first bytes of a text, the last cut short at a character."""
    found: list[Chunk] = []
    for chunk in chunks:
        data = chunk.text.encode()[:n_bytes]
        text = data.decode("utf-8", "ignore")
        if text:
            found.append(Chunk(text, chunk.document))
        n_bytes -= len(data)
        if n_bytes <= 0:
            break
    return found


def exact_bytes(
    model: LanguageModel,
    vocabulary: Vocabulary,
    chunks: Sequence[Chunk],
    *,
    least_share: float = LEAST_SHARE,
    most_covers: int | None = MOST_COVERS,
    name: str = "the model",
    progress: Progress = no_progress,
) -> ExactBytes:
    """Measure a model by the exact probabilities of bytes.

    Parameters
    ----------
    model : LanguageModel
    vocabulary : Vocabulary
    chunks : sequence of Chunk
        Each is read from its start, as for the canonical figure.
    least_share, most_covers
        As of `ByteView`.
    name : str
        What progress calls it.
    progress : callable(done, total, what)

    Raises
    ------
    EvaluationError
        If the tokenizer gives back no chunk, has neither BOS nor EOS, or as `Reading.read`.
    """
    view = ByteView(model, vocabulary, least_share=least_share, most_covers=most_covers)
    encoded = encode_chunks(vocabulary, chunks)
    usable = np.flatnonzero(encoded.lossless & encoded.fits(model.max_positions))
    if not len(usable):
        raise EvaluationError(
            f"none of {len(chunks):,} chunks can be read by bytes: {name} loses text or has too "
            "few positions; give other text"
        )
    texts = [chunks[i].text.encode() for i in usable.tolist()]
    total, done, n_covers = sum(map(len, texts)), 0, 0
    exact = kept = spelled = 0.0
    for data in texts:
        reading = view.start(data)
        for byte in data:
            reading = reading.read(bytes([byte]))
            n_covers += len(reading.covers)
            done += 1
            progress(done, total, f"exact bytes of {name}")
        exact -= reading.log_probability
        kept -= reading.log_kept
        spelled -= reading.log_spelled()
    canonical = sum(float(loss.sum()) for loss in model.nll(encoded.sequences(usable)))
    return ExactBytes(
        bits_per_byte=bits_per_byte(exact, total),
        at_most=bits_per_byte(kept, total),
        spelled=bits_per_byte(spelled, total),
        canonical=bits_per_byte(canonical, total),
        n_bytes=total,
        n_chunks=len(texts),
        n_lost=len(chunks) - len(texts),
        mean_covers=n_covers / total,
        least_share=least_share,
    )
