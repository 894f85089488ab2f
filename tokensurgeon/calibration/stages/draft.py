"""Fit a draft's rows to what the big model says.

What a draft is for is to be accepted: a token drafted from q passes with probability Σ min(p, q), p
the big model's (Leviathan et al., 2023, arXiv 2211.17192). So its rows are trained towards p, both
sides, as the source teaches elsewhere (`Distil`), and the body where it may change. Then its output
rows are refitted in closed form, as to a text, but that each state is followed by all tokens, by
the big model's probability of them. The big model runs over the text once; its final states are
kept, and its distributions are worked out from them, a few at a time.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tokensurgeon.arrays import Float32, blocks
from tokensurgeon.calibration.contract import Candidate, Candidates, Cost, Stage
from tokensurgeon.calibration.data import CalibrationData, TextSizes
from tokensurgeon.calibration.matrices import Matrices
from tokensurgeon.calibration.stages.follows import Distributions
from tokensurgeon.calibration.stages.regression import Regression, rows_that_matter
from tokensurgeon.calibration.stages.taught import usable_chunks
from tokensurgeon.calibration.teacher.big_model import BigModel
from tokensurgeon.calibration.teacher.lessons import mixed
from tokensurgeon.calibration.training.distillation import distil
from tokensurgeon.calibration.training.teaching import CHUNKS_PER_STEP
from tokensurgeon.errors import TokensurgeonError
from tokensurgeon.models import LanguageModel, OutputHead
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
SHARE_OF_TRAINING = 0.7
"""Of the time; the rest is for rounds, and for a run of the draft over what was read."""
MOST_REFITTED = 200_000
"""Rows of a vocabulary up to which there are rounds. With 262,144 the products for them take as
long as the training did, and two rounds on 8,000 tokens after it won 0.006 of the acceptance."""
MOST_JUDGED = 1 << 28
"""Logits of either model in a look at the acceptance: at a thousand states for 262,144 tokens."""
JUDGED_TOGETHER = 128
"""States that a look takes of a sequence, where it cannot take all: of many texts, a part each."""
MOST_TOKENS = 60_000
"""Of text that is read."""
LEAST_RISE = 1e-3
"""Of the acceptance, that a round must win on the selection text: a token in a thousand."""


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


class Judge:
    """Says what the big model accepts of a draft's tokens on text that nothing is fitted to.

    Parameters
    ----------
    data : CalibrationData
    big : LanguageModel
        With a `plain_head`.
    sequences : sequence of sequences of int
        Ids, evenly spaced parts of which are judged where there are many.
    n_rows : int
        Tokens that count.
    """

    def __init__(
        self,
        data: CalibrationData,
        big: LanguageModel,
        sequences: Sequence[Sequence[int]],
        n_rows: int,
    ) -> None:
        self._data = data
        most, total = max(1, MOST_JUDGED // n_rows), sum(map(len, sequences))
        if total > most:
            n = max(1, most // JUDGED_TOGETHER)
            sequences = sequences[:: max(1, len(sequences) // n)][:n]
            sequences = [sequence[: max(2, most // len(sequences))] for sequence in sequences]
        self.sequences = [tuple(sequence) for sequence in sequences]
        states = big.all_states(self.sequences, big.n_layers)
        self._said = Distributions(states, big.head, n_rows)
        self._of_input: tuple[Matrices, Float32] | None = None

    def __call__(self, rows: Matrices) -> float:
        """Return the mean of Σ min(p, q) for a draft with these rows."""
        known, states = self._of_input or (None, None)
        if states is None or known is None or rows.input is not known.input:
            states = final_states(self._data, rows, self.sequences)
            self._of_input = rows, states
        return acceptance(self._data.head(rows), states, self._said)


def final_states(
    data: CalibrationData, rows: Matrices, sequences: Sequence[Sequence[int]]
) -> Float32:
    """Return the states of a model with these rows that its logits are made of."""
    return data.states(data.patched(rows), sequences, data.model.n_layers)


@dataclass(frozen=True)
class _Round:
    """Rows after a round, and the share that is accepted of them; number 0 is before the first."""

    number: int
    rows: Matrices
    share: float


class Draft(Stage):
    """Fit rows to the big model that the result is to draft for, for as long as it helps.

    The objective is the share of drafted tokens that the big model accepts, and not bits per byte:
    it may cost a little of these, and other text is not asked.

    Parameters
    ----------
    load : callable() -> LanguageModel
        Loads the big model; may raise a TokensurgeonError that says why it cannot run.
    seconds : float
        For the training, and the rounds after it.
    progress : callable(done, total, what)
    chats : sequence of sequences of int
        Conversations in the big model's ids, controls among them: read beside the text.
    seed : int
        Of the rows that the training scores.
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
        seed: int = 0,
    ) -> None:
        self._load, self._seconds, self._progress, self._seed = load, seconds, progress, seed
        self._chats = [list(chat[:LONGEST_CHAT]) for chat in chats if len(chat) > 1]
        self._accepted: Callable[[Matrices], float] | None = None

    def propose(self, data: CalibrationData, matrices: Matrices) -> Candidates:
        """Yield the rows of the training, or of the best round after it, if they help."""
        try:
            big = self._load()
        except TokensurgeonError as error:
            return f"not tried: {error}"
        if not (big.plain_head and data.model.plain_head):
            return "not tried: a model's logits are no plain product with its output rows"
        teacher = BigModel(big, min(len(matrices.output), big.n_rows), len(matrices.output))
        judged, fit = (
            [one for one in sequences if 1 < len(one) <= teacher.longest]
            for sequences in self._sequences(data)
        )
        if not judged or not fit:
            return "not tried: the text is longer than the big model takes"
        judge = Judge(data, big, judged, teacher.n_rows)
        start = _Round(0, matrices, judge(matrices))
        trained, steps = self._trained(data, matrices, teacher, fit)
        best = max(start, _Round(0, trained, judge(trained)), key=lambda one: one.share)
        settings = {
            "acceptance_before": round(start.share, 4),
            "acceptance_trained": round(best.share, 4),
            "steps": steps,
            "big_model_tokens": sum(map(len, (*judge.sequences, *teacher.sequences))),
        }
        best = self._refitted(data, best, teacher, judge)
        if best.share - start.share <= LEAST_RISE:
            return f"no gain: {_words(start.share)} already"
        self._accepted = judge
        settings |= {"rounds": best.number, "acceptance_after": round(best.share, 4)}
        yield Candidate.of(settings, best.rows)
        return None

    def _trained(
        self,
        data: CalibrationData,
        matrices: Matrices,
        teacher: BigModel,
        sequences: Sequence[Sequence[int]],
    ) -> tuple[Matrices, int]:
        """Train rows, and the body where it may change, on what the big model says of a text.

        Returns
        -------
        matrices : Matrices
        n_steps : int
        """
        ids = data.new_and_shared
        share = SHARE_OF_TRAINING if teacher.n_rows <= MOST_REFITTED else 1.0
        done = distil(
            data.fast,
            teacher,
            (sequences[part] for part in blocks(len(sequences), CHUNKS_PER_STEP)),
            matrices,
            ids[ids < teacher.n_rows],
            clock=data.clock.within(share * self._seconds),
            max_tokens=MOST_TOKENS,
            body=data.body_weights,
            seed=self._seed,
            progress=self._progress,
        )
        data.forward_tokens += done.n_tokens
        data.gradient_steps += done.n_steps
        return done.matrices if done.n_steps else matrices, done.n_steps

    def _refitted(
        self, data: CalibrationData, start: _Round, teacher: BigModel, judge: Judge
    ) -> _Round:
        """Return the best round of a regression of the output rows on what was read."""
        n_rows, read = teacher.n_rows, teacher.sequences
        n_tokens = sum(map(len, read))
        # Both models' logits are summed over all tokens once.
        takes = data.pace.seconds(n_tokens, 2 * n_tokens, n_rows)
        if not read or n_rows > MOST_REFITTED or takes >= data.end.left():
            return start
        said = Distributions(teacher.states, teacher.head, n_rows)
        states, head = final_states(data, start.rows, read), data.head(start.rows)
        active = rows_that_matter(head, states, said)
        ids = data.new_and_shared
        regression = Regression(
            head,
            start.rows,
            states,
            said if active is None else said.among(active),
            ids[ids < n_rows],
            active,
        )
        return self._best_round(regression, judge, start, data.end)

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

    def _sequences(self, data: CalibrationData) -> tuple[list[Sequence[int]], list[Sequence[int]]]:
        """Return what judges, and what is fitted to: text and conversations in turn.

        One chunk of a few is of text that the source wrote, as in other trainings.
        """
        last = CHATS_TO_JUDGE - 1
        judging = self._chats[last::CHATS_TO_JUDGE]
        fitting = [c for i, c in enumerate(self._chats) if i % CHATS_TO_JUDGE != last]
        chunks = usable_chunks(data, data.texts.documents)
        order = np.random.default_rng(0).permutation(len(chunks)).tolist()
        written = usable_chunks(data, data.lessons)
        text = data.positions(tuple(mixed([chunks[i] for i in order], written))).sequences
        texts = text[: MOST_TOKENS // max(1, max(map(len, text), default=1))]
        in_turn = itertools.chain(*itertools.zip_longest(fitting, texts))
        judged = data.positions(data.texts.selection).sequences
        return [*judging, *judged], [one for one in in_turn if one is not None]

    def cost(self, sizes: TextSizes) -> Cost:
        """The time that was given, and two looks at the text."""
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
