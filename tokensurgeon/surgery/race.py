"""A race of rows over one text: who loses surely drops out early, who may win reads on.

The text is read in parts, each as long as all before it. A challenger is compared with the best so
far on the same chunks, pair by pair, and drops out once its mean difference is beyond two standard
errors, or once the time for it is spent. Entrants come in the order of what is known of them
beforehand, so one that has not read the whole text is ahead only if it surely is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from tokensurgeon.calibration.paired_figures import BitsPerByte, standard_error
from tokensurgeon.progress import Clock
from tokensurgeon.text.chunks import Chunk

FIRST_BYTES = 2_000
"""Of the first part: on so many, methods that differ by a tenth of a bit are told apart."""
SURE = 2.0
"""Standard errors of a difference that is not taken for chance. At one, each of six entrants that
are as good as the best would lead after two kilobytes in one case of six."""

Entrant = TypeVar("Entrant")
Score = Callable[[Entrant, tuple[Chunk, ...]], BitsPerByte]


def parts_of(chunks: Sequence[Chunk], first: int = FIRST_BYTES) -> list[tuple[Chunk, ...]]:
    """Return a text in parts, the first of `first` bytes, each further one as long as all before.

    Examples
    --------
    >>> chunks = [Chunk("x" * 100, 0)] * 9
    >>> [len(part) for part in parts_of(chunks, first=200)]
    [2, 2, 4, 1]
    """
    parts: list[tuple[Chunk, ...]] = []
    held: list[Chunk] = []
    done, goal = 0, first
    for chunk in chunks:
        held.append(chunk)
        done += chunk.n_bytes
        if done >= goal:
            parts.append(tuple(held))
            held, goal = [], 2 * done
    return [*parts, tuple(held)] if held else parts


@dataclass
class Race(Generic[Entrant]):
    """The best entrant so far, and what is known of it.

    Attributes
    ----------
    parts : sequence of tuple of Chunk
        Of the text, in order.
    score : callable(entrant, chunks) -> BitsPerByte
    best : entrant or None
    figure : BitsPerByte or None
        Of the best, on the parts that it has read.
    """

    parts: Sequence[tuple[Chunk, ...]]
    score: Score[Entrant]
    best: Entrant | None = None
    figure: BitsPerByte | None = None
    _read: int = field(default=0, init=False)

    def enter(self, entrant: Entrant, clock: Clock) -> BitsPerByte:
        """Let an entrant run against the best so far; return its figure on what it read.

        `clock` bounds the time for it: no part is begun that takes longer than is left, the first
        one aside.
        """
        figure, read, surely = None, 0, False
        took, before = 0.0, clock.left()
        for part in self.parts:
            if figure is not None and (surely or clock.left() < 2 * took):
                break
            if self.best is not None and self._read == read:
                self.figure = _with(self.figure, self.score(self.best, part))
                self._read += 1
            figure = _with(figure, self.score(entrant, part))
            read += 1
            now = clock.left()
            took, before = before - now, now
            if self.best is None:
                break  # as much as the next one needs to be compared with it
            surely = self._surely_apart(figure, read)
        assert figure is not None
        if self.best is None or self._leads(figure, read):
            self.best, self.figure, self._read = entrant, figure, read
        return figure

    def _same_parts(self, read: int) -> BitsPerByte:
        """Return the figure of the best on the first parts."""
        assert self.figure is not None
        n = sum(len(part) for part in self.parts[:read])
        return BitsPerByte.of(self.figure.losses[:n], self.figure.n_bytes[:n])

    def _surely_apart(self, figure: BitsPerByte, read: int) -> bool:
        best = self._same_parts(read)
        return abs(figure - best) > SURE * standard_error(figure, best)

    def _leads(self, figure: BitsPerByte, read: int) -> bool:
        """Whether an entrant is ahead; on part of the text it must be so surely."""
        best = self._same_parts(read)
        chance = 0.0 if read == len(self.parts) else SURE * standard_error(figure, best)
        return figure < best - chance


def _with(known: BitsPerByte | None, further: BitsPerByte) -> BitsPerByte:
    return further if known is None else known.joined(further)
