"""A race of rows: who loses surely reads little, and the best of those that read on wins."""

from __future__ import annotations

import numpy as np
import pytest

from tokensurgeon.calibration.paired_figures import BitsPerByte, standard_error
from tokensurgeon.progress import Clock
from tokensurgeon.surgery.race import SURE, Race, parts_of
from tokensurgeon.text.chunks import Chunk

CHUNKS = tuple(Chunk(f"{i:03d}" + "x" * 97, i) for i in range(160))
"""100 bytes each."""


class World:
    """Entrants are their mean loss in nats a chunk; chunks are harder and easier for all alike."""

    def __init__(self, noise: float = 0.3, seconds: float = 1.0) -> None:
        rng = np.random.default_rng(0)
        self.hardness = rng.normal(0, 20, size=len(CHUNKS))
        self.own = rng.normal(0, noise, size=(10, len(CHUNKS)))
        self.time, self.seconds = 0.0, seconds
        self.read: dict[float, int] = {}

    def score(self, entrant: float, chunks: tuple[Chunk, ...]) -> BitsPerByte:
        at = [int(chunk.text[:3]) for chunk in chunks]
        self.read[entrant] = self.read.get(entrant, 0) + sum(chunk.n_bytes for chunk in chunks)
        self.time += self.seconds * len(chunks)
        losses = entrant + self.hardness[at] + self.own[round(10 * entrant) % 10, at]
        return BitsPerByte.of(losses, np.array([chunk.n_bytes for chunk in chunks]))

    def race(self, entrants: list[float], seconds: float = float("inf")) -> Race[float]:
        race: Race[float] = Race(parts_of(CHUNKS), self.score)
        for entrant in entrants:
            race.enter(entrant, Clock(seconds, lambda: self.time))
        return race


def test_the_best_wins_and_sure_losers_read_the_first_part_only() -> None:
    world = World()
    race = world.race([104.0, 101.0, 103.0, 100.0, 102.0])
    assert race.best == 100.0
    assert set(world.read.values()) == {2_000}  # a nat is more than ten standard errors


def test_what_is_nearly_as_good_reads_on() -> None:
    world = World(noise=6.0)
    race = world.race([100.0, 100.9])
    assert world.read[100.9] > 4_000
    assert world.read[100.9] == world.read[100.0]
    assert race.best in (100.0, 100.9)


@pytest.mark.parametrize("close", [99.9, 99.5])
def test_chance_on_part_of_the_text_does_not_beat_the_order(close: float) -> None:
    world = World(noise=6.0)
    figures = [world.score(one, parts_of(CHUNKS)[0]) for one in (100.0, close)]
    assert 0 < figures[0] - figures[1] < SURE * standard_error(*figures)  # ahead, but not surely
    assert world.race([100.0, close], seconds=0.0).best == 100.0
    assert World(noise=0.01).race([100.0, close], seconds=0.0).best == close


def test_nothing_is_read_twice() -> None:
    world = World(noise=6.0)
    race = world.race([100.0, 101.0, 102.0, 100.5])
    assert max(world.read.values()) <= sum(chunk.n_bytes for chunk in CHUNKS)
    assert race.figure is not None
    assert race.best is not None
    again = World(noise=6.0).score(race.best, CHUNKS[: len(race.figure.losses)])
    assert race.figure == again


def test_time_ends_the_reading_but_not_the_first_part() -> None:
    world = World(noise=6.0)
    world.race([100.0, 100.1], seconds=0.0)
    assert world.read == {100.0: 2_000, 100.1: 2_000}
    world = World(noise=6.0)
    world.race([100.0, 100.1], seconds=200.0)
    assert 2_000 < world.read[100.1] < 16_000


def test_a_standard_error_is_that_of_paired_differences() -> None:
    n_bytes = np.full(100, 50)
    rng = np.random.default_rng(1)
    hard = rng.normal(0, 100, size=100)
    one = BitsPerByte.of(hard, n_bytes)
    other = BitsPerByte.of(hard + rng.normal(1.0, 2.0, size=100), n_bytes)
    expected = 2.0 / np.sqrt(100) / (np.log(2) * 50)
    assert 0.8 * expected < standard_error(other, one) < 1.2 * expected
    assert standard_error(one, one) == 0
    assert standard_error(1.0, 2.0) == 0
    few = BitsPerByte.of(hard[:2], n_bytes[:2])
    assert standard_error(few, few) == float("inf")
