r"""Of which kinds of text a BPE tokenizer was trained, read off its merge list.

Each merge was the most frequent pair of the training text at that time. With samples of the
categories that the text may consist of, this is a linear programme (Hayase et al., 2024, "Data
Mixture Inference: What do BPE Tokenizers Reveal about their Training Data?", arXiv 2407.16607):
find shares :math:`\alpha \ge 0` of sum 1 so that for every step t and every pair p

.. math:: \sum_i \alpha_i c_i^t(p) \le \sum_i \alpha_i c_i^t(m_t) + v_t + v_p

with the least slack, where c are counts per byte of a sample once the earlier merges have been
applied to it. Constraints are added when the solution found so far breaks them, as in the paper.
A variant in two things. Merges whose pair hardly stands in the samples are left out, as their
counts are noise. And the least *relative* slack is sought, over the counts of the merged pairs:
:math:`\sum_t \sum_i \alpha_i c_i^t(m_t)` is held at 1 instead of the sum of the shares, which are
scaled afterwards. Otherwise a category in which the merged pairs never stand, and whose own pairs
are many and rare, would cost less than the right one, whose sample always differs a little from
the training text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tokensurgeon.errors import CorpusError, TokenizerError, UsageError
from tokensurgeon.inspection.pair_log import (
    Floats,
    Ints,
    PairLog,
    count_words,
    log_pairs,
    merge_steps,
)
from tokensurgeon.progress import Progress
from tokensurgeon.vocabulary import Vocabulary

MERGES = 3_000
FEWEST = 50
"""Times that a merged pair must stand in the samples for its step to count."""
MOST_STEPS = 800
"""Steps with constraints, evenly over those that count: neighbours say nearly the same."""
ROUNDS = 40
SETTLED, GROWTH = 5e-4, 0.01
"""Two rounds that move no share by more, and the slack by a smaller part, are the last."""
EACH, AT_FIRST = 4, 40
"""Broken constraints to add per step and round; and at first, at as many steps."""
TOLERANCE = 1e-6


@dataclass(frozen=True)
class Mixture:
    """Shares of categories in the text a tokenizer was trained on.

    Attributes
    ----------
    shares : mapping of category to share of the bytes
    merges : int
        Steps of the merge list that were used: evenly of those whose pair stands often enough in
        the samples.
    slack : float
        What the constraints lack at the solution, over the counts of the merged pairs; 0 where
        the shares explain every merge.
    constraints, rounds : int
        How many constraints were needed, and how often they were added to.
    """

    shares: Mapping[str, float]
    merges: int
    slack: float
    constraints: int
    rounds: int

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return asdict(self)


def infer_mixture(
    vocabulary: Vocabulary,
    samples: Mapping[str, Sequence[str]],
    *,
    merges: int = MERGES,
    progress: Progress = lambda done, total, what: None,
) -> Mixture:
    """Infer the shares of categories in the text that a BPE tokenizer was trained on.

    Parameters
    ----------
    vocabulary : Vocabulary
        Byte-level BPE, or BPE of SentencePiece's kind.
    samples : mapping of category to texts
        Two or more categories; text like that of the training, not the same.
    merges : int
        How many merges to use, from the first. Late merges are rare pairs, whose counts in a
        small sample are noise.
    progress : callable(done, total, what)

    Raises
    ------
    UsageError
        If there are fewer than two categories.
    TokenizerError
        If the tokenizer has no merge list.
    CorpusError
        If a category has no text, or the samples are too small.
    """
    if len(samples) < 2:
        raise UsageError(f"a mixture of {len(samples)} category is that category; give two or more")
    steps, ids = merge_steps(vocabulary, merges)
    words, sizes = [], []
    for number, (name, texts) in enumerate(samples.items()):
        progress(number, len(samples), "counting words")
        words.append(count_words(vocabulary, texts))
        sizes.append(sum(len(text.encode()) for text in texts))
        if not sizes[-1]:
            raise CorpusError(f"the category {name} has no text; give it some, or leave it out")
    log = log_pairs(words, sizes, steps, ids, lambda done, n: progress(done, n, "applying merges"))
    return solve(log, list(samples), progress)


def solve(
    log: PairLog,
    names: Sequence[str],
    progress: Progress = lambda done, total, what: None,
) -> Mixture:
    """Solve the linear programme over a log of pairs; one column of counts per name.

    Raises
    ------
    CorpusError
        If no merged pair stands often enough in the samples.
    TokenizerError
        If the solver gives up.
    """
    n = len(names)
    used, own = _used(log)
    if not used.any():
        raise CorpusError(
            f"no merged pair stands {FEWEST} times in the samples; give more text, of the kinds "
            "that the tokenizer may have been trained on"
        )
    known: set[tuple[int, int]] = set()
    rows: list[Floats] = []
    places: list[tuple[int, int]] = []

    def add(found: Sequence[tuple[int, int, Floats]]) -> None:
        for step, pair, row in found:
            if (step, pair) not in known:
                known.add((step, pair))
                places.append((step, pair))
                rows.append(row)

    shares = np.full(n, 1 / n)
    slacks = np.zeros(len(used)), np.zeros(len(log.start))
    # Each category by itself, at some steps: else one whose pairs are never merged looks free.
    last = np.flatnonzero(used)[-1]
    some = np.zeros_like(used)
    some[np.linspace(0, last, AT_FIRST).astype(int)] = True
    for probe in (*np.eye(n), shares):
        add(_broken(log, used & some, probe, slacks, AT_FIRST))
    slack, rounds, still = 0.0, 0, 0
    while rounds < ROUNDS and still < 2:
        before = len(rows), shares, slack
        add(_broken(log, used, shares, slacks, EACH))
        if len(rows) == before[0]:
            break
        shares, *found, slack = _programme(
            np.array(rows), places, len(used), len(log.start), own[used].sum(axis=0)
        )
        # Only ratios count: shares of sum 1 again, and the slacks that go with them.
        total = shares.sum()
        shares, slacks = shares / total, (found[0] / total, found[1] / total)
        rounds += 1
        settled = np.abs(shares - before[1]).max() < SETTLED and slack < (1 + GROWTH) * before[2]
        still = still + 1 if settled else 0
        progress(rounds, ROUNDS, "solving")
    return Mixture(
        shares={name: float(share) for name, share in zip(names, shares, strict=True)},
        merges=int(used.sum()),
        slack=slack,
        constraints=len(rows),
        rounds=rounds,
    )


def _used(log: PairLog) -> tuple[npt.NDArray[np.bool_], Floats]:
    """Return which steps' pairs are frequent enough, and the merged pairs' counts in samples.

    Counts of a sample are as if it had the samples' mean size.
    """
    counts = log.start.copy()
    own = np.zeros((len(log.chosen), counts.shape[1]))
    used = np.zeros(len(own), dtype=bool)
    for step, pairs in enumerate(log.chosen):
        found = counts[pairs].sum(axis=0)
        used[step] = found.sum() >= FEWEST
        own[step] = found / log.sizes * log.sizes.mean()
        counts[log.changed[step]] += log.change[step]
    frequent = np.flatnonzero(used)
    if len(frequent) > MOST_STEPS:
        used[:] = False
        used[frequent[np.linspace(0, len(frequent) - 1, MOST_STEPS).astype(int)]] = True
    return used, own


def _broken(
    log: PairLog,
    used: npt.NDArray[np.bool_],
    shares: Floats,
    slacks: tuple[Floats, Floats],
    most: int,
) -> list[tuple[int, int, Floats]]:
    """Return for each step the pairs that beat the merged one by most: (step, pair, row)."""
    of_step, of_pair = slacks
    counts = log.start * (log.sizes.mean() / log.sizes)
    values = counts @ shares - of_pair
    found = []
    for step, pairs in enumerate(log.chosen):
        if used[step]:
            own = counts[pairs].sum(axis=0)
            kept = values[pairs]
            values[pairs] = -1.0
            broken = np.flatnonzero(values > own @ shares + of_step[step] + TOLERANCE)
            if len(broken) > most:
                broken = broken[np.argpartition(-values[broken], most)[:most]]
            values[pairs] = kept
            found += [(step, pair, counts[pair] - own) for pair in broken.tolist()]
        places: Ints = log.changed[step]
        counts[places] += log.change[step] * (log.sizes.mean() / log.sizes)
        values[places] = counts[places] @ shares - of_pair[places]
    return found


def _programme(
    rows: Floats, places: Sequence[tuple[int, int]], n_steps: int, n_pairs: int, own: Floats
) -> tuple[Floats, Floats, Floats, float]:
    """Solve for shares and slacks under the constraints known so far, own @ shares being 1."""
    from scipy.optimize import linprog
    from scipy.sparse import csr_array, hstack

    n = rows.shape[1]
    steps, step_at = np.unique([step for step, _ in places], return_inverse=True)
    pairs, pair_at = np.unique([pair for _, pair in places], return_inverse=True)
    line = np.arange(len(rows))
    minus = np.full(len(rows), -1.0)
    matrix = hstack(
        [
            csr_array(rows),
            csr_array((minus, (line, step_at)), shape=(len(rows), len(steps))),
            csr_array((minus, (line, pair_at)), shape=(len(rows), len(pairs))),
        ],
        format="csr",
    )
    width = matrix.shape[1]
    result = linprog(
        c=np.concatenate([np.zeros(n), np.ones(width - n)]),
        A_ub=matrix,
        b_ub=np.zeros(len(rows)),
        A_eq=np.concatenate([own / own.max(), np.zeros(width - n)])[None, :],
        b_eq=[1.0],
        bounds=(0, None),
        method="highs",
    )
    if result.x is None or result.fun is None:
        raise TokenizerError(f"the mixture cannot be solved: {result.message}; use fewer merges")
    of_step, of_pair = np.zeros(n_steps), np.zeros(n_pairs)
    of_step[steps] = result.x[n : n + len(steps)]
    of_pair[pairs] = result.x[n + len(steps) :]
    shares = np.maximum(result.x[:n], 0.0)
    return shares, of_step, of_pair, float(result.fun) / float(own.max())
