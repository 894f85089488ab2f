"""What a trainer has to know of a patched checkpoint, and what cannot be handed over."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import get_args

from tokensurgeon.checkpoint import Checkpoint
from tokensurgeon.checkpoint import transformers_internals as internals
from tokensurgeon.checkpoint.embeddings import CAUSAL, KIND_WORDS, find_embeddings
from tokensurgeon.errors import UnknownNameError, UnsupportedCheckpointError
from tokensurgeon.recipe import Trainer

TRAINERS: tuple[str, ...] = get_args(Trainer)
BY_PEFT = ("peft", "llamafactory")
"""Trainers whose first stage is PEFT's layer of trainable rows."""


@dataclass(frozen=True)
class Facts:
    """What is trained first, and where it is in the model that transformers loads.

    Attributes
    ----------
    ids : tuple of int
        Of the new rows, ascending.
    parameters : tuple of str
        The full names of the matrices that hold them: one where the model is tied.
    dtype : str
        torch's name of the type of the rows in the file.
    longest : int or None
        Tokens that the model can take, where it says so.
    """

    ids: tuple[int, ...]
    parameters: tuple[str, ...]
    dtype: str
    longest: int | None

    @property
    def modules(self) -> tuple[str, ...]:
        """The last part of the names of the modules that hold the rows."""
        return tuple(name.split(".")[-2] for name in self.parameters)


def facts_of(checkpoint: Checkpoint, ids: Iterable[int], *, tied: bool) -> Facts:
    """Return the facts of a checkpoint that has the rows `ids` anew.

    Parameters
    ----------
    checkpoint : Checkpoint
        The patched one, or its source: the names are the same.
    ids : iterable of int
    tied : bool
        Whether the patched one has one matrix for both sides.
    """
    config = internals.load_config(checkpoint.path, trust_remote_code=checkpoint.trust_remote_code)
    model = internals.skeleton(config, trust_remote_code=checkpoint.trust_remote_code)
    sides = find_embeddings(model)
    # Where the flag says untied, transformers loads two matrices, though they be equal.
    one = tied and checkpoint.layout.tied_flag
    return Facts(
        ids=tuple(sorted(ids)),
        parameters=(sides.input,) if one else (sides.input, sides.output),
        dtype=checkpoint.dtype,
        longest=checkpoint.max_positions,
    )


def check_names(names: Collection[str]) -> tuple[str, ...]:
    """Return the trainers that are named, each once.

    Raises
    ------
    UnknownNameError
        Naming the nearest one.
    """
    for name in names:
        if name not in TRAINERS:
            near = difflib.get_close_matches(name, TRAINERS, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(TRAINERS)}"
            raise UnknownNameError(f"no trainer '{name[:40]}'; {hint}")
    return tuple(dict.fromkeys(names))


def check_trainable(checkpoint: Checkpoint, names: Collection[str]) -> None:
    """Refuse what a trainer has no stage for.

    Raises
    ------
    UnsupportedCheckpointError
        If it is no causal language model, or its output rows have a bias that a trainer would
        leave out.
    """
    layout = checkpoint.layout
    if names and layout.kind != CAUSAL:
        raise UnsupportedCheckpointError(
            f"what is handed over trains causal language models, and this is "
            f"{KIND_WORDS[layout.kind]}: train it with a script of its own, the ids in "
            "new_token_ids.json first"
        )
    without = [name for name in names if name in BY_PEFT and layout.bias_names]
    if without:
        raise UnsupportedCheckpointError(
            f"PEFT leaves out the bias of output rows that it trains, so {without[0]} would train "
            f"another model than this one, which has {layout.bias_names[0][0]}: name trl or "
            "axolotl instead"
        )
