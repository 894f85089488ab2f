"""Lessons: what the source says of some chunks of text, beside how the target cuts them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tokensurgeon.arrays import Float32, blocks
from tokensurgeon.calibration.byte_positions import BytePositions, positions_of
from tokensurgeon.calibration.teacher.implied import Implied, ImpliedTokens
from tokensurgeon.calibration.teacher.spellings import Spellings
from tokensurgeon.models.head import shape_logits
from tokensurgeon.models.language_model import LanguageModel
from tokensurgeon.text.chunks import Chunk
from tokensurgeon.text.encoding import encode_chunks

if TYPE_CHECKING:
    import torch

CHUNKS_AT_ONCE = 4
"""Whose logits are in memory together: some thousand positions times the source's vocabulary."""


@dataclass(frozen=True)
class Lesson:
    """Some chunks, with what the source implies of the target's tokens on them.

    Attributes
    ----------
    target : BytePositions
    implied : Implied
    """

    target: BytePositions
    implied: Implied


class Teacher:
    """Gives lessons.

    Parameters
    ----------
    model : LanguageModel
        The source, or a faster copy.
    spellings : Spellings

    Attributes
    ----------
    n_tokens : int
        Run through the source so far.
    """

    def __init__(self, model: LanguageModel, spellings: Spellings) -> None:
        self.model, self.spellings = model, spellings
        self.n_tokens = 0
        self._implied = ImpliedTokens(spellings)

    def lesson(self, chunks: Sequence[Chunk]) -> Lesson:
        """Run the source over a few chunks; memory holds its logits at all their tokens."""
        source, target = (
            positions_of(encode_chunks(vocabulary, chunks), chunks)
            for vocabulary in (self.spellings.source, self.spellings.target)
        )
        states = self.model.all_states(source.sequences, self.model.n_layers)
        self.n_tokens += len(states)
        implied = self._implied.of(source, target, log_probs(self.model, states))
        return Lesson(target, implied)

    def read(self, chunks: Sequence[Chunk]) -> Implied:
        """Return what the source implies on many chunks, positions counted over all of them."""
        parts, n_before = [], 0
        for part in blocks(len(chunks), CHUNKS_AT_ONCE):
            lesson = self.lesson(chunks[part])
            implied = lesson.implied
            parts.append(replace(implied, positions=implied.positions + n_before))
            n_before += len(lesson.target.ids)
        return Implied.joined(parts)


def log_probs(model: LanguageModel, states: Float32) -> torch.Tensor:
    """Return next-token log-probabilities after final states, float32 (n, n_rows), on the CPU.

    Products are in the model's own dtype; its logits must be plain products.
    """
    import torch

    outer = model.model.get_output_embeddings()
    with torch.inference_mode():
        given = torch.from_numpy(states).to(outer.weight.device, outer.weight.dtype)
        logits = shape_logits(outer(given).float(), model.logit_scale, model.softcap)
        logits -= logits.logsumexp(1, keepdim=True)
        return logits.cpu()
