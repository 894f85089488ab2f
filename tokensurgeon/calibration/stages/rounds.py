"""What stages share that take rounds of a regression, one ridge after another."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Generator
from typing import Any

from tokensurgeon.calibration.contract import Candidate, Cost, Stage
from tokensurgeon.calibration.data import TextSizes
from tokensurgeon.calibration.stages.regression import RIDGES, Regression, scored_states


class RegressionStage(Stage):
    """A stage of rounds, which end where one does not help."""

    def rounds(
        self, regression: Regression, **settings: Any
    ) -> Generator[Candidate, bool | None, int]:
        """Yield a candidate for each ridge for as long as they help; return how many there were.

        Parameters
        ----------
        regression : Regression
            Goes on from where it is.
        **settings
            For the record, besides the round and its ridge.
        """
        for number, ridge in enumerate(RIDGES, 1):
            settings |= {"rounds": number, "ridge": ridge}
            if (yield Candidate.of(dict(settings), regression.advance(ridge))) is False:
                break
        return number

    @abstractmethod
    def read_tokens(self, sizes: TextSizes) -> int:
        """Return the tokens that are run through the body before the first round."""

    def scored_once(self, sizes: TextSizes) -> int:
        """Return at how many states the vocabulary is scored before the first round."""
        return 0

    def cost(self, sizes: TextSizes) -> Cost:
        """What comes before, and all rounds."""
        return self._of(len(RIDGES), sizes)

    def least(self, sizes: TextSizes) -> Cost:
        """What comes before, and one round."""
        return self._of(1, sizes)

    def _of(self, n: int, sizes: TextSizes) -> Cost:
        scored = n * scored_states(sizes) + self.scored_once(sizes)
        return Cost(self.read_tokens(sizes), scored=scored)
