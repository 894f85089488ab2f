"""Fit a draft's output rows to what the big model says, in closed form.

What a draft is for is to be accepted: a token drafted from q passes with probability Σ min(p, q), p
the big model's (Leviathan et al., 2023, arXiv 2211.17192). So its rows are refitted as to a text,
but that each state is followed by all tokens, by the big model's probability of them, instead of
the text's one. The big model runs over the text once; its final states are kept, and from them its
distributions are worked out whenever they are needed, a few at a time.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tokensurgeon.arrays import Float32
from tokensurgeon.calibration.contract import Candidate, Candidates, Cost, Stage
from tokensurgeon.calibration.data import CalibrationData, TextSizes
from tokensurgeon.calibration.matrices import Matrices
from tokensurgeon.calibration.stages.follows import Distributions
from tokensurgeon.calibration.stages.regression import Regression, rows_that_matter
from tokensurgeon.calibration.stages.taught import usable_chunks
from tokensurgeon.errors import TokensurgeonError
from tokensurgeon.models import LanguageModel, OutputHead
from tokensurgeon.models.pace import Pace
from tokensurgeon.progress import Clock, Progress, no_progress

LONGEST_CHAT = 512
"""Ids of a conversation that are read: its template and first turns."""
CHATS_TO_JUDGE = 5
"""One conversation of so many is not fitted to, and judges."""
RIDGES = (1024.0, 256.0, 64.0, 16.0, 4.0, 1.0)
"""λ, one a round: fewer and lower ones than for a text, for a round over a large vocabulary is
dear, and whole distributions have no noise of a draw."""
PATIENCE = 2
"""Rounds in a row that may win nothing: the first hold the rows so that they hardly move."""
SHARE_OF_LOOKING = 0.5
"""Of the time, that both models may take to read, and to score all tokens once after each that they
read; the rest is for rounds. A round takes 25 seconds for SmolLM2-135M and Gemma-3-270M, and ten
minutes of budget have room for one."""
MOST_JUDGED = 1 << 28
"""Logits of either model in a look at the acceptance: where the text has more, evenly spaced states
are looked at, a thousand for 262,144 tokens."""
MOST_TOKENS = 60_000
"""Of text that is read."""
LEAST_RISE = 1e-3
"""Of the acceptance, that a round must win on the selection text: a token in a thousand."""


def predict(
    big: LanguageModel,
    sequences: Sequence[Sequence[int]],
    n_rows: int,
    *,
    seconds: float = float("inf"),
    progress: Progress = no_progress,
) -> tuple[list[tuple[int, ...]], Distributions]:
    """Run the big model over a text; return what it read, and what it says after each token.

    Parameters
    ----------
    big : LanguageModel
        With a `plain_head`.
    sequences : sequence of sequences of int
        Ids of its own vocabulary.
    n_rows : int
        Rows of the draft: ids beyond are left out.
    seconds : float
        When they are spent, the rest of the text is left out.
    progress : callable(done, total, what)
    """
    start = time.perf_counter()
    read: list[tuple[int, ...]] = []
    states: list[Float32] = []
    longest = big.max_positions or max(map(len, sequences), default=0)
    for done, sequence in enumerate(sequences):
        if read and time.perf_counter() - start > seconds:
            break
        if len(sequence) > longest:
            continue
        read.append(tuple(sequence))
        states.append(big.all_states([sequence], big.n_layers))
        progress(done + 1, len(sequences), "asking the big model")
    whole = np.concatenate(states) if read else np.zeros((0, big.width), dtype=np.float32)
    return read, Distributions(whole, big.head, n_rows)


def acceptance(head: OutputHead, states: Float32, said: Distributions) -> float:
    """Return the mean over a text of Σ min(p, q).

    Parameters
    ----------
    head : OutputHead
        The draft's.
    states : float32 (n, width)
        The draft's final states.
    said : Distributions
        What the big model says there.
    """
    import torch

    total = 0.0
    for part in head.blocks(len(states)):
        q = head.log_softmax(states[part])[:, : said.n_rows].exp_()
        total += float(torch.minimum(q, said.chances(part).to(q.device)).sum())
    return total / max(1, len(states))


@dataclass(frozen=True)
class _Round:
    """Rows after a round, the first of which is 1, and the share that is accepted of them."""

    number: int
    rows: Matrices
    share: float


class Draft(Stage):
    """Fit output rows to the big model that the result is to draft for, for as long as it helps.

    The objective is the share of drafted tokens that the big model accepts, and not bits per byte:
    it may cost a little of these, and other text is not asked.

    Parameters
    ----------
    load : callable() -> LanguageModel
        Loads the big model; may raise a TokensurgeonError that says why it cannot run.
    seconds : float
        For both models' runs over the text that is fitted to, and the rounds.
    progress : callable(done, total, what)
    chats : sequence of sequences of int
        Conversations in the big model's ids, controls among them: read beside the text.
    """

    name = "draft"
    changes_shared = True
    after_training = True
    parts = ()

    def __init__(
        self,
        load: Callable[[], LanguageModel],
        seconds: float = float("inf"),
        progress: Progress = no_progress,
        chats: Sequence[Sequence[int]] = (),
    ) -> None:
        self._load, self._seconds, self._progress = load, seconds, progress
        self._chats = [list(chat[:LONGEST_CHAT]) for chat in chats if len(chat) > 1]
        self._accepted: Callable[[Matrices], float] | None = None

    def propose(self, data: CalibrationData, matrices: Matrices) -> Candidates:
        """Yield the rows of the best round, if one helps."""
        try:
            big = self._load()
        except TokensurgeonError as error:
            return f"not tried: {error}"
        if not big.plain_head:
            return "not tried: the big model's logits are no plain product with its output rows"
        n_rows = min(len(matrices.output), big.n_rows)
        selection, fit = self._sequences(data)
        judging, validation = predict(big, selection, n_rows, progress=self._progress)
        seconds = self._reading_seconds(data.pace, n_rows)
        fitting, fitted = predict(big, fit, n_rows, seconds=seconds, progress=self._progress)
        if not judging or not fitting:
            return "not tried: the text is longer than the big model takes"

        thin = max(1, len(validation) * n_rows // MOST_JUDGED)
        validation = validation.thinned(thin)

        def accepted(rows: Matrices) -> float:
            same = rows.input is matrices.input  # of untied rows, output rows alone change
            at = states if same else final_states(rows, judging)
            return acceptance(data.head(rows), np.ascontiguousarray(at[::thin]), validation)

        def final_states(rows: Matrices, sequences: Sequence[Sequence[int]]) -> Float32:
            return data.states(data.patched(rows), sequences, data.model.n_layers)

        states, head = final_states(matrices, judging), data.head(matrices)
        fit_states = final_states(matrices, fitting)
        ids = data.new_and_shared
        active = rows_that_matter(head, fit_states, fitted)
        regression = Regression(
            head,
            matrices,
            fit_states,
            fitted if active is None else fitted.among(active),
            ids[ids < n_rows],
            active,
        )
        before = accepted(matrices)
        best = self._best_round(regression, accepted, _Round(0, matrices, before), data.end)
        if not best.number:
            return f"no gain: {_words(before)} already"
        self._accepted = accepted
        settings = {
            "rounds": best.number,
            "acceptance_before": round(before, 4),
            "acceptance_after": round(best.share, 4),
            "big_model_tokens": sum(map(len, (*judging, *fitting))),
        }
        yield Candidate.of(settings, best.rows)
        return None

    def _best_round(
        self,
        regression: Regression,
        accepted: Callable[[Matrices], float],
        best: _Round,
        end: Clock,
    ) -> _Round:
        """Go on for as long as rounds help and fit into the time; return the best, or the start."""
        longest = 0.0
        for number, ridge in enumerate(RIDGES, 1):
            if longest > end.left():
                break
            start = time.perf_counter()
            rows = regression.advance(ridge)
            share = accepted(rows)
            longest = max(longest, time.perf_counter() - start)
            self._progress(number, len(RIDGES), "fitting to the big model")
            if share - best.share > LEAST_RISE:
                best = _Round(number, rows, share)
            elif number - best.number >= PATIENCE:
                break
        return best

    def _reading_seconds(self, pace: Pace, n_rows: int) -> float:
        """Return how long the big model may read, as if it were as fast as the draft."""
        body, head = pace.seconds(1), pace.seconds(0, 1, n_rows)
        share = body / (2 * (body + head)) if body else 0.5
        return SHARE_OF_LOOKING * share * self._seconds

    def _sequences(self, data: CalibrationData) -> tuple[list[Sequence[int]], list[Sequence[int]]]:
        """Return what judges, and what is fitted to: text and conversations in turn."""
        last = CHATS_TO_JUDGE - 1
        judging = self._chats[last::CHATS_TO_JUDGE]
        fitting = [c for i, c in enumerate(self._chats) if i % CHATS_TO_JUDGE != last]
        text = data.positions(tuple(usable_chunks(data, data.texts.documents))).sequences
        order = np.random.default_rng(0).permutation(len(text))
        texts = [text[i] for i in order[: MOST_TOKENS // max(1, max(map(len, text), default=1))]]
        in_turn = itertools.chain(*itertools.zip_longest(fitting, texts))
        judged = data.positions(data.texts.selection).sequences
        return [*judging, *judged], [one for one in in_turn if one is not None]

    def cost(self, sizes: TextSizes) -> Cost:
        """The time that was given, and two looks."""
        return Cost(passes=2, seconds=self._seconds)

    def own_objective(self) -> Callable[[Matrices], float] | None:
        """Return minus the acceptance on the selection text."""
        accepted = self._accepted
        return None if accepted is None else lambda rows: -accepted(rows)

    def describe(self, before: float, after: float) -> str:
        """Say the acceptance, before and after."""
        return f"{_words(-before)}, {-after:.3f} afterwards"


def _words(share: float) -> str:
    return f"the big model accepts {share:.3f} of a text's tokens"
