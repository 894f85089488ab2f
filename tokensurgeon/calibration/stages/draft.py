"""Fit a draft's output rows to what the big model says, in closed form.

What a draft is for is to be accepted: a token drafted from q passes with probability Σ min(p, q), p
the big model's (Leviathan et al., 2023, arXiv 2211.17192). So its rows are refitted as to a text,
but that each state is followed by the big model's likeliest tokens, by their probability, instead
of the text's one. The big model runs over the text once; its k likeliest per state are kept.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tokensurgeon.arrays import Float32, Ids
from tokensurgeon.calibration.contract import Candidate, Candidates, Cost, Stage
from tokensurgeon.calibration.data import CalibrationData, TextSizes
from tokensurgeon.calibration.matrices import Matrices
from tokensurgeon.calibration.stages.regression import RIDGES, Follows, Regression
from tokensurgeon.errors import TokensurgeonError
from tokensurgeon.models import LanguageModel, OutputHead
from tokensurgeon.progress import Progress, no_progress

KEPT = 64
"""Likeliest tokens of the big model that are kept of each state: they hold nearly all its mass."""
LONGEST_CHAT = 512
"""Ids of a conversation that are read: its template and first turns."""
CHATS_TO_JUDGE = 5
"""One conversation of so many is not fitted to, and judges."""
LEAST_RISE = 1e-3
"""Of the acceptance, that a round must win on the selection text: a token in a thousand."""


@dataclass(frozen=True)
class Predictions:
    """What the big model says of a text, by state.

    Attributes
    ----------
    sequences : tuple of tuples of int
        What both models read.
    tokens : int64 (n, KEPT)
        The likeliest that follow each state, over all sequences in order.
    chances : float32 (n, KEPT)
        Their probabilities.
    """

    sequences: tuple[tuple[int, ...], ...]
    tokens: Ids
    chances: Float32

    @property
    def follows(self) -> Follows:
        """The tokens as what follows, their weights made to sum to one."""
        n, k = self.tokens.shape
        weights = self.chances / self.chances.sum(axis=1, keepdims=True)
        return Follows(np.repeat(np.arange(n), k), self.tokens.ravel(), weights.ravel())


def predict(
    big: LanguageModel,
    sequences: Sequence[Sequence[int]],
    n_rows: int,
    *,
    seconds: float = float("inf"),
    progress: Progress = no_progress,
) -> Predictions:
    """Run the big model over a text and keep its likeliest tokens.

    Parameters
    ----------
    big : LanguageModel
    sequences : sequence of sequences of int
        Ids of its own vocabulary.
    n_rows : int
        Rows of the draft: ids beyond are not kept.
    seconds : float
        When they are spent, the rest of the text is left out.
    progress : callable(done, total, what)
    """
    import torch

    start = time.perf_counter()
    read: list[tuple[int, ...]] = []
    tokens: list[Ids] = []
    chances: list[Float32] = []
    longest = big.max_positions or max(map(len, sequences), default=0)
    for done, sequence in enumerate(sequences):
        if read and time.perf_counter() - start > seconds:
            break
        if len(sequence) > longest:
            continue
        p = torch.from_numpy(big.logits(sequence)).softmax(1)[:, :n_rows]
        likeliest = p.topk(min(KEPT, p.shape[1]), dim=1)
        read.append(tuple(sequence))
        tokens.append(likeliest.indices.numpy())
        chances.append(likeliest.values.numpy())
        progress(done + 1, len(sequences), "asking the big model")
    if not read:
        return Predictions((), np.zeros((0, 1), dtype=np.int64), np.zeros((0, 1), dtype=np.float32))
    return Predictions(tuple(read), np.concatenate(tokens), np.concatenate(chances))


def acceptance(head: OutputHead, states: Float32, predictions: Predictions) -> float:
    """Return the mean over a text of Σ min(p, q), over the tokens that are kept of p.

    Parameters
    ----------
    head : OutputHead
        The draft's.
    states : float32 (n, width)
        The draft's final states on the sequences of `predictions`.
    predictions : Predictions
    """
    import torch

    total = 0.0
    for part in head.blocks(len(states)):
        q = head.log_softmax(states[part]).exp_()
        token = torch.from_numpy(predictions.tokens[part]).to(q.device)
        p = torch.from_numpy(predictions.chances[part]).to(q.device)
        total += float(torch.minimum(q.gather(1, token), p).sum())
    return total / max(1, len(states))


class Draft(Stage):
    """Fit output rows to the big model that the result is to draft for, for as long as it helps.

    The objective is the share of drafted tokens that the big model accepts, and not bits per byte:
    it may cost a little of these, and other text is not asked.

    Parameters
    ----------
    load : callable() -> LanguageModel
        Loads the big model; may raise a TokensurgeonError that says why it cannot run.
    seconds : float
        For the big model's run over the text that is fitted to; it reads the selection text
        besides.
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
        n_rows = min(len(matrices.output), big.n_rows)
        selection, fit = self._sequences(data)
        validation = predict(big, selection, n_rows, progress=self._progress)
        fitted = predict(
            big,
            fit,
            n_rows,
            seconds=self._seconds,
            progress=self._progress,
        )
        if not validation.sequences or not fitted.sequences:
            return "not tried: the text is longer than the big model takes"
        draft = data.patched(matrices)
        # Output rows alone change: the draft's states are those of the start.
        states = data.states(draft, validation.sequences, draft.n_layers)

        def accepted(rows: Matrices) -> float:
            return acceptance(data.head(rows), states, validation)

        ids, follows = data.new_and_shared, fitted.follows
        fit_states = data.states(draft, fitted.sequences, draft.n_layers)
        head = data.head(matrices)
        regression = Regression(head, matrices, fit_states, follows, ids[ids < n_rows])
        best, shares = matrices, [accepted(matrices)]
        for number, ridge in enumerate(RIDGES, 1):
            moved = regression.advance(ridge)
            share = accepted(moved)
            self._progress(number, len(RIDGES), "fitting to the big model")
            if not share - shares[-1] > LEAST_RISE:
                break
            best = moved
            shares.append(share)
        if len(shares) == 1:
            return f"no gain: {_words(shares[0])} already"
        self._accepted = accepted
        settings = {
            "rounds": len(shares) - 1,
            "acceptance_before": round(shares[0], 4),
            "acceptance_after": round(shares[-1], 4),
            "big_model_tokens": sum(map(len, (*validation.sequences, *fitted.sequences))),
        }
        yield Candidate.of(settings, best)
        return None

    def _sequences(self, data: CalibrationData) -> tuple[list[Sequence[int]], list[Sequence[int]]]:
        """Return what judges, and what is fitted to: text and conversations in turn."""
        last = CHATS_TO_JUDGE - 1
        judging = self._chats[last::CHATS_TO_JUDGE]
        fitting = [c for i, c in enumerate(self._chats) if i % CHATS_TO_JUDGE != last]
        text = data.positions(data.texts.selection).sequences, data.target_positions.sequences
        in_turn = itertools.chain(*itertools.zip_longest(fitting, text[1]))
        return [*judging, *text[0]], [one for one in in_turn if one is not None]

    def cost(self, sizes: TextSizes) -> Cost:
        """A pass of either model over both texts, in the time that was given."""
        return Cost(2 * sizes.fit, 2, self._seconds)

    def own_objective(self) -> Callable[[Matrices], float] | None:
        """Return minus the acceptance on the selection text."""
        accepted = self._accepted
        return None if accepted is None else lambda rows: -accepted(rows)

    def describe(self, before: float, after: float) -> str:
        """Say the acceptance, before and after."""
        return f"{_words(-before)}, {-after:.3f} afterwards"


def _words(share: float) -> str:
    return f"the big model accepts at least {share:.3f} of a text's tokens"
