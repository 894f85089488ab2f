"""The source's forward pass as initialisers see it: loaded when first asked, and counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tokensurgeon.arrays import Float32
from tokensurgeon.checkpoint import Checkpoint
from tokensurgeon.models.language_model import LanguageModel


class SourceStates:
    """Hidden states of a model that is loaded at the first call.

    Attributes
    ----------
    n_layers, width : int
    max_positions : int or None
    n_tokens, gradient_steps : int
        Run through the model, and trained with, so far.
    """

    def __init__(self, checkpoint: Checkpoint, load: Callable[[], LanguageModel]) -> None:
        self.n_layers = checkpoint.n_layers
        self.width = checkpoint.hidden_width
        self.max_positions = checkpoint.max_positions
        self.n_tokens = 0
        self.gradient_steps = 0
        self._load = load

    def __call__(
        self,
        ids: Sequence[Sequence[int]],
        layer: int,
        position_ids: Sequence[Sequence[int]] | None = None,
    ) -> Float32:
        """See `tokensurgeon.initialisers.contract.States`."""
        self.n_tokens += sum(map(len, ids))
        return self._load().states(ids, layer, position_ids)

    def language_model(self) -> LanguageModel:
        """Return the model, for a method that trains through it; it says so afterwards."""
        return self._load()

    def count_training(self, n_tokens: int, gradient_steps: int) -> None:
        """Count what a method trained with."""
        self.n_tokens += n_tokens
        self.gradient_steps += gradient_steps
