"""A context that remembers what a method looked at."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tokensurgeon.initialisers.contract import InitContext


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
