"""Checkpoints that were patched and handed over, tied and untied."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import tokensurgeon
from tokensurgeon.handover.facts import TRAINERS

MEAN = {"input": "mean", "output": "mean"}


@pytest.fixture(scope="session")
def handed_over(
    world: Path, checkpoints: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[bool], Path]:
    """Return a patched checkpoint with files for every trainer; tests must not write into it."""
    made: dict[bool, Path] = {}

    def make(tied: bool) -> Path:
        if tied not in made:
            output = tmp_path_factory.mktemp("handed-over") / "patched"
            tokensurgeon.transplant(
                source=checkpoints("llama", tied),
                tokenizer=world / "target",
                init=MEAN,
                output=output,
                hand_over=TRAINERS,
            )
            made[tied] = output
        return made[tied]

    return make
