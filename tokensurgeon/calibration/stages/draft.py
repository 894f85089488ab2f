"""Fit a draft's output rows to what the big model says, in closed form.

What a draft is for is to be accepted: a token drafted from q passes with probability Σ min(p, q), p
the big model's (Leviathan et al., 2023, arXiv 2211.17192). So its rows are refitted as to a text,
but that each state is followed by the big model's likeliest tokens, by their probability, instead
of the text's one. The big model runs over the text once; its k likeliest per state are kept.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tokensurgeon.calibration.byte_positions import Track, make_track
from tokensurgeon.calibration.contract import Ids, Matrices, Rows, blocks
from tokensurgeon.calibration.data import LOGITS, Workbench
from tokensurgeon.calibration.stages.refit import Follows, Regression
from tokensurgeon.evaluation.scoring import encode_chunks
from tokensurgeon.models.language_model import LanguageModel
from tokensurgeon.progress import Progress, no_progress

KEPT = 64
"""Likeliest tokens of the big model that are kept of each state."""
LEAST_RISE = 1e-3
"""Of the acceptance: what a round must win on the selection text."""


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
    chances: npt.NDArray[np.float32]

    @property
    def follows(self) -> Follows:
        """The tokens as what follows, their weights made to sum to one."""
        n, k = self.tokens.shape
        weights = self.chances / self.chances.sum(axis=1, keepdims=True)
        return Follows(np.repeat(np.arange(n), k), self.tokens.ravel(), weights.ravel())


@dataclass(frozen=True)
class Drafted:
    """What came of a fit.

    Attributes
    ----------
    matrices : Matrices
        The best, or those it began with.
    rounds : int
        That the best took.
    before, after : float
        Acceptance on the selection text, of the tokens that are kept: Σ min(p, q) over them.
    n_tokens : int
        Run through the big model.
    """

    matrices: Matrices
    rounds: int
    before: float
    after: float
    n_tokens: int


def predict(
    big: LanguageModel,
    track: Track,
    n_rows: int,
    *,
    seconds: float = float("inf"),
    progress: Progress = no_progress,
) -> Predictions:
    """Run the big model over a text and keep its likeliest tokens.

    Parameters
    ----------
    track : Track
        Of its own vocabulary.
    n_rows : int
        Rows of the draft: ids beyond are not kept.
    seconds : float
        When they are spent, the rest of the text is left out.
    """
    import torch

    start = time.perf_counter()
    read: list[tuple[int, ...]] = []
    tokens: list[Ids] = []
    chances: list[npt.NDArray[np.float32]] = []
    longest = big.max_positions or max(map(len, track.sequences), default=0)
    for done, sequence in enumerate(track.sequences):
        if read and time.perf_counter() - start > seconds:
            break
        if len(sequence) > longest:
            continue
        p = torch.from_numpy(big.logits(sequence)).softmax(1)[:, :n_rows]
        found = p.topk(min(KEPT, p.shape[1]), dim=1)
        read.append(sequence)
        tokens.append(found.indices.numpy())
        chances.append(found.values.numpy())
        progress(done + 1, len(track.sequences), "asking the big model")
    if not read:
        return Predictions((), np.zeros((0, 1), dtype=np.int64), np.zeros((0, 1), dtype=np.float32))
    return Predictions(tuple(read), np.concatenate(tokens), np.concatenate(chances))


def acceptance(bench: Workbench, matrices: Matrices, said: Predictions) -> float:
    """Return the mean over a text of Σ min(p, q), over the tokens that are kept of p."""
    import torch

    states = _states(bench, matrices, said)
    total = 0.0
    for part in blocks(len(states), max(1, LOGITS // len(matrices.output))):
        q = bench.log_softmax(states[part], matrices.output, matrices.bias).exp_()
        token = torch.from_numpy(said.tokens[part]).to(q.device)
        p = torch.from_numpy(said.chances[part]).to(q.device)
        total += float(torch.minimum(q.gather(1, token), p).sum())
    return total / max(1, len(states))


def _states(bench: Workbench, matrices: Matrices, said: Predictions) -> Rows:
    return bench.states(bench.patched(matrices), said.sequences, bench.model.n_layers)


def fit_draft(
    bench: Workbench,
    matrices: Matrices,
    big: LanguageModel,
    *,
    seconds: float = float("inf"),
    progress: Progress = no_progress,
) -> Drafted:
    """Refit the output rows of new and shared tokens to the big model, for as long as it helps.

    Parameters
    ----------
    bench : Workbench
        Whose target is the big model's vocabulary.
    matrices : Matrices
        The rows to start from; not changed.
    big : LanguageModel
    seconds : float
        For the big model's run over the text that is fitted to; it reads the selection text
        besides.
    """
    target, n_rows = bench.context.target, min(len(matrices.output), big.n_rows)

    chunks = bench.texts.selection
    selection = make_track(encode_chunks(target, chunks), chunks)
    judge = predict(big, selection, n_rows, progress=progress)
    said = predict(big, bench.target_track, n_rows, seconds=seconds, progress=progress)
    n_tokens = sum(map(len, (*judge.sequences, *said.sequences)))
    if not judge.sequences or not said.sequences:
        return Drafted(matrices, 0, float("nan"), float("nan"), n_tokens)
    states, follows = _states(bench, matrices, said), said.follows
    ids = bench.new_and_shared
    best, losses = Regression(bench, matrices, states, follows, ids[ids < n_rows]).best(
        lambda each: -acceptance(bench, each, judge),
        LEAST_RISE,
        what="fitting to the big model",
        progress=progress,
    )
    return Drafted(best, len(losses) - 1, -losses[0], -losses[-1], n_tokens)
