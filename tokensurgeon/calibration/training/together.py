"""Rows that several processes train: one leads, and the others do as it says.

Every process has a copy of the model and takes its share of each batch; the gradients are added up,
and so all of them take the same step. The batches are those of one process, and the rows too, but
for the order in which floats are added. Time, order of the text and validation are the leader's
alone, so that the processes cannot part.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tokensurgeon.arrays import Float32, Ids, Mask, to_float32
from tokensurgeon.calibration.training.trainer import State, Trainer
from tokensurgeon.evaluation.shared_work import SharedWork, followers
from tokensurgeon.models import LanguageModel


@dataclass(frozen=True)
class _Start:
    """What a follower needs besides the source: rows, and which of them train."""

    input: Float32
    output: Float32
    bias: Float32 | None
    masks: tuple[Mask, Mask]
    tied: bool
    shared_map: bool


class _Leader(Trainer):
    """A trainer whose every step others take too."""

    def step(self, ids: Ids, real: Mask, rate: float) -> int:
        """Take a step, together."""
        self.team.said(("step", ids, real, rate))
        return super().step(ids, real, rate)

    def write(self) -> None:
        """Bring every row to the models of all."""
        self.team.said(("write",))
        super().write()

    def state(self) -> State:
        """Return a copy of the rows; the others keep theirs."""
        self.team.said(("keep",))
        return super().state()

    def restore(self, state: State) -> None:
        """Put back the rows that were kept last, everywhere."""
        self.team.said(("restore",))
        super().restore(state)


@contextlib.contextmanager
def make_trainer(
    model: LanguageModel,
    train_input: Mask,
    train_output: Mask,
    *,
    tied: bool,
    shared_map: bool,
) -> Iterator[Trainer]:
    """Yield a trainer of this process and those that it leads; see `Trainer`.

    The rows that `restore` puts back are those of the last `state`.
    """
    team = followers()
    if team.n == 1:
        yield Trainer(model, train_input, train_output, tied=tied, shared_map=shared_map)
        return
    inner, outer = model.model.get_input_embeddings(), model.model.get_output_embeddings()
    bias = getattr(outer, "bias", None)
    team.said(
        _Start(
            to_float32(inner.weight),
            to_float32(outer.weight),
            None if bias is None else to_float32(bias),
            (train_input, train_output),
            tied,
            shared_map,
        )
    )
    try:
        yield _Leader(model, train_input, train_output, tied=tied, shared_map=shared_map, team=team)
    finally:
        team.said(("end",))


def follow(source: LanguageModel, team: SharedWork) -> int:
    """Train along with the leader until its work is over; return how many steps that took.

    Parameters
    ----------
    source : LanguageModel
        With the body of the model that is trained.
    team : SharedWork
        Of which this process is not the first.
    """
    steps = 0
    while (start := team.said()) is not None:
        model = source.patched(start.input, start.output, start.bias)
        trainer = Trainer(
            model, *start.masks, tied=start.tied, shared_map=start.shared_map, team=team
        )
        steps += _train(trainer)
    return steps


def _train(trainer: Trainer) -> int:
    """Do what the leader says of one training; return how many steps it was."""
    steps, kept = 0, trainer.state()
    while True:
        order: tuple[Any, ...] = trainer.team.said()
        match order:
            case ("step", ids, real, rate):
                trainer.step(ids, real, rate)
                steps += 1
            case ("write",):
                trainer.write()
            case ("keep",):
                kept = trainer.state()
            case ("restore",):
                trainer.restore(kept)
            case _:
                return steps
