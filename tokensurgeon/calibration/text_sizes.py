"""How much text a calibration works on: what time, memory and the pace of the model allow."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tokensurgeon.calibration.calibration_texts import TextBounds
from tokensurgeon.calibration.written_texts import WritingTime
from tokensurgeon.initialisers.contract import InitContext
from tokensurgeon.models.pace import Pace

MOST_BYTES = 500_000
"""Of text that stages are fitted to; training reads all that there is."""
MORE_BYTES = 1_500_000
"""Of text besides, for `refit`: it has the most parameters and reads the text once."""
SHARE_OF_MORE = 0.1
"""Of the time, that a run through it may take."""
MOST_CONTEXT_TOKENS = 1 << 19
"""Run to read new tokens in contexts of the source's choice; fewer where time is short."""
SHARE_OF_CONTEXTS = 0.125
"""Of the time, where it is short."""
PASSES = 20
"""Runs through the text to be expected of all stages together, their acceptance included."""
SHARE_OF_FIT = 0.5
"""Of the time, that these runs may take."""
SHARE_OF_VALIDATION = 0.03
"""Of the time, that one look at the selection text may take, and one at other text half of it: a
calibration takes some ten of either."""
FEWEST_BYTES = 4_000
"""Of either text: on less, chance decides."""
LESSONS = 20_000
"""Bytes that the source writes beside a given text, for trainings: what it lacks, such as code."""
SHARE_OF_LESSONS, SHARE_OF_WRITING, SHARE_OF_WRITING_ALL = 0.05, 0.025, 0.2
"""Of the time, that the source may take to write lessons, other text, and all text. SmolLM2-135M
writes 5.7 kB in 15 seconds of a core; fitted to 27 kB instead, `shares` wins 0.027 more on code."""
DRAWN = 2
"""Times the bytes that seem affordable are drawn, for tokens may be longer than expected."""
BYTES_PER_TOKEN = 3
"""Of text that is not there yet; so few err towards more tokens."""


@dataclass(frozen=True)
class AffordedText:
    """How much of the text there is time and memory for.

    Attributes
    ----------
    fit : float
        Bytes to fit to.
    contexts : int
        Tokens in sampled contexts.
    by_time, by_memory : float
        Bytes to draw besides that there is time for, and bytes that fit into memory with `fit`.
    """

    fit: float
    contexts: int
    by_time: float
    by_memory: float

    @classmethod
    def of(
        cls, pace: Pace, seconds: float, tokens_a_byte: float, width: int, memory: float
    ) -> AffordedText:
        """Return what a model of some pace and width affords.

        Parameters
        ----------
        pace : Pace
        seconds : float
            For choice and calibration together.
        tokens_a_byte : float
            Of the text.
        width : int
        memory : float
            Bytes.
        """
        # A state every second byte is more than most tokenizers have; three sets of states at once
        # of what all stages read, and one of what one does.
        room = memory / (4 * width * 3) * 2
        pass_of_a_byte = pace.seconds(tokens_a_byte)
        bytes_run = seconds / pass_of_a_byte if pass_of_a_byte else float("inf")
        return cls(
            fit=min(SHARE_OF_FIT * bytes_run / PASSES, room),
            contexts=int(min(MOST_CONTEXT_TOKENS, SHARE_OF_CONTEXTS * tokens_a_byte * bytes_run)),
            by_time=SHARE_OF_MORE * bytes_run,
            by_memory=3 * room,
        )

    def more(self, fitted: float) -> float:
        """Return the bytes to draw besides, where so many are fitted to."""
        return min(self.by_time, self.by_memory - 3 * fitted)


def text_bounds(
    context: InitContext,
    pace: Pace,
    seconds: float,
    *,
    other: bool,
    max_bytes: int = MOST_BYTES,
) -> TextBounds:
    """Return how much text a model of some pace can go through in some time.

    Parameters
    ----------
    context : InitContext
    pace : Pace
    seconds : float
        For choice and calibration together.
    other : bool
        Whether text of another domain is given; else the source writes it.
    max_bytes : int
        Of text to fit to.
    """
    most = TextBounds(fit=max_bytes, more=MORE_BYTES)
    a_byte = pace.seconds(1, 1, len(context.target.token_bytes)) / BYTES_PER_TOKEN
    if not a_byte:
        return most
    looked_at = SHARE_OF_VALIDATION * seconds / a_byte

    def bound(most_bytes: int, share: float) -> int:
        return int(min(most_bytes, max(FEWEST_BYTES, share * looked_at)))

    bounds = replace(most, selection=bound(most.selection, 1.0), other=bound(most.other, 0.5))
    if bounds.cut:  # what is drawn is encoded twice: no more of it than will be read
        afforded = AffordedText.of(pace, seconds, 1 / BYTES_PER_TOKEN, 1, float("inf"))
        fit, more = DRAWN * afforded.fit, DRAWN * afforded.by_time
        bounds = replace(
            bounds,
            fit=int(min(max_bytes, max(FEWEST_BYTES, fit))),
            more=int(min(MORE_BYTES, more)),
        )

    def writing(n_bytes: int, share: float) -> WritingTime:
        return WritingTime.within(share * seconds, pace.seconds(n_bytes / BYTES_PER_TOKEN))

    share = SHARE_OF_WRITING if context.texts else SHARE_OF_WRITING_ALL
    return replace(
        bounds,
        writing=writing(sum(bounds.to_write(texts=bool(context.texts), other=other)), share),
        lessons=writing(LESSONS, SHARE_OF_LESSONS),
    )
