"""What initialisers see of a surgery, watched: forward passes are counted, looks at text noted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tokensurgeon.checkpoint import Checkpoint
from tokensurgeon.initialisers.contract import InitContext, Rows

if TYPE_CHECKING:
    from tokensurgeon.models.language_model import LanguageModel


class LazyStates:
    """The source's forward pass, which loads the model at its first call and counts tokens."""

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
    ) -> Rows:
        """See `tokensurgeon.initialisers.contract.States`."""
        self.n_tokens += sum(map(len, ids))
        return self._load().states(ids, layer, position_ids)

    def language_model(self) -> LanguageModel:
        """Return the source, for a method that trains through it; it says so afterwards."""
        return self._load()

    def count_training(self, n_tokens: int, gradient_steps: int) -> None:
        """Count what a method trained with."""
        self.n_tokens += n_tokens
        self.gradient_steps += gradient_steps


@dataclass(frozen=True)
class WatchedContext(InitContext):
    """A context that remembers whether a method looked at the donor or at the text.

    What a method was given belongs beside its figure, and a plug-in cannot be trusted to say it.
    """

    seen: set[str] = field(default_factory=set, compare=False, repr=False)

    def __getattribute__(self, name: str) -> Any:
        value = super().__getattribute__(name)
        seen = super().__getattribute__("seen")
        if name == "donor" and value is not None:
            seen.add("donor")
        elif (name in ("source_counts", "target_counts") and value is not None) or (
            name == "texts" and value
        ):
            seen.add("text")
        return value
