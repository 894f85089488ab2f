r"""On which kinds of text a BPE tokenizer was trained, inferred from its merge list.

Each merge was the most frequent pair of the training text at that step. With samples of the
categories that the text may consist of, this is a linear programme (Hayase et al., 2024, "Data
Mixture Inference: What do BPE Tokenizers Reveal about their Training Data?", arXiv 2407.16607):
find shares :math:`\alpha \ge 0` of sum 1 so that for every step t and every pair p

.. math:: \sum_i \alpha_i c_i^t(p) \le \sum_i \alpha_i c_i^t(m_t) + v_t + v_p

with the least slack v, where c are counts per byte of a sample after the earlier merges have been
applied to it. Constraints are added when the current solution violates them, as in the paper.

This variant differs in two ways. Merges whose pair is rare in the samples are left out, because
their counts are noise. And the slack is minimised relative to the counts of the merged pairs:
:math:`\sum_t \sum_i \alpha_i c_i^t(m_t)` is fixed at 1 instead of the sum of the shares, which are
scaled afterwards. Otherwise a category that never contains the merged pairs, and whose own pairs
are many and rare, would cost less than the right category, because a sample always differs a little
from the training text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tokensurgeon.arrays import Float64, Mask
from tokensurgeon.errors import CorpusError, TokenizerError, UsageError
from tokensurgeon.inspection.pair_log import PairLog, count_words, log_pairs, merge_steps
from tokensurgeon.progress import Progress, no_progress
from tokensurgeon.vocabulary import Vocabulary

MERGES = 3_000
"""Merges used by default: later ones are of pairs so rare that their counts are noise."""
FEWEST = 50
"""Occurrences of a merged pair in the samples from which on its step is used."""
MOST_STEPS = 800
"""Steps with constraints, evenly among those used: neighbours give nearly the same constraints."""
ROUNDS = 40
"""Most rounds of adding constraints and solving; `SETTLED` usually ends them earlier."""
SETTLED, GROWTH = 5e-4, 0.01
"""The last rounds are two in which no share moves by more, nor the slack grows by a larger part."""
EACH, AT_FIRST = 4, 40
"""Violated constraints to add per step and round; at first, more of them at as many steps."""
TOLERANCE = 1e-6
"""Violations below it are rounding errors of the solver; counts are 1 and more."""


@dataclass(frozen=True)
class Mixture:
    """Shares of categories in the text that a tokenizer was trained on.

    Attributes
    ----------
    shares : mapping of category to share of the bytes
    merges : int
        Number of steps of the merge list that were used.
    slack : float
        Sum of the slacks over the sum of the merged pairs' counts; 0 if the shares explain every
        merge.
    constraints, rounds : int
        Number of constraints, and of the rounds in which they were added.
    """

    shares: Mapping[str, float]
    merges: int
    slack: float
    constraints: int
    rounds: int


def infer_mixture(
    vocabulary: Vocabulary,
    samples: Mapping[str, Sequence[str]],
    *,
    merges: int = MERGES,
    progress: Progress = no_progress,
) -> Mixture:
    """Infer the shares of categories in the text that a BPE tokenizer was trained on.

    Parameters
    ----------
    vocabulary : Vocabulary
        Byte-level BPE, or BPE of SentencePiece's kind.
    samples : mapping of category to texts
        Two or more categories. Text like that of the training; it need not be the same.
    merges : int
        Number of merges to use, from the first.
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


def solve(log: PairLog, names: Sequence[str], progress: Progress = no_progress) -> Mixture:
    """Solve the linear programme over a log of pairs; one column of counts per name.

    Raises
    ------
    CorpusError
        If no merged pair is frequent enough in the samples.
    TokenizerError
        If the solver gives up.
    """
    n = len(names)
    used, merged_counts = _used_steps(log)
    if not used.any():
        raise CorpusError(
            f"no merged pair stands {FEWEST} times in the samples; give more text, of the kinds "
            "that the tokenizer may have been trained on"
        )
    rows: dict[tuple[int, int], Float64] = {}
    shares = np.full(n, 1 / n)
    slacks = np.zeros(len(used)), np.zeros(len(log.start))
    # Each category alone gives constraints: else one whose pairs are never merged costs nothing.
    last = np.flatnonzero(used)[-1]
    some = np.zeros_like(used)
    some[np.linspace(0, last, AT_FIRST).astype(int)] = True
    for probe in (*np.eye(n), shares):
        rows |= _violated(log, used & some, probe, slacks, AT_FIRST)
    slack, rounds, n_settled = 0.0, 0, 0
    while rounds < ROUNDS and n_settled < 2:
        before = len(rows), shares, slack
        rows |= _violated(log, used, shares, slacks, EACH)
        if len(rows) == before[0]:
            break
        shares, of_step, of_pair, slack = _solve_programme(
            rows, len(used), len(log.start), merged_counts[used].sum(axis=0)
        )
        # Only ratios matter: the shares are scaled to a sum of 1, and the slacks with them.
        total = shares.sum()
        shares, slacks = shares / total, (of_step / total, of_pair / total)
        rounds += 1
        settled = np.abs(shares - before[1]).max() < SETTLED and slack < (1 + GROWTH) * before[2]
        n_settled = n_settled + 1 if settled else 0
        progress(rounds, ROUNDS, "solving")
    return Mixture(
        shares={name: float(share) for name, share in zip(names, shares, strict=True)},
        merges=int(used.sum()),
        slack=slack,
        constraints=len(rows),
        rounds=rounds,
    )


def _used_steps(log: PairLog) -> tuple[Mask, Float64]:
    """Return which steps are used, and the counts of the merged pair of each step.

    Returns
    -------
    used : bool (n_steps,)
    merged_counts : float64 (n_steps, n_samples)
        Scaled to samples of the mean size.
    """
    counts = log.start.copy()
    merged_counts = np.zeros((len(log.chosen), counts.shape[1]))
    used = np.zeros(len(log.chosen), dtype=bool)
    for step, pairs in enumerate(log.chosen):
        merged = counts[pairs].sum(axis=0)
        used[step] = merged.sum() >= FEWEST
        merged_counts[step] = merged / log.sizes * log.sizes.mean()
        counts[log.changed[step]] += log.change[step]
    frequent = np.flatnonzero(used)
    if len(frequent) > MOST_STEPS:
        used[:] = False
        used[frequent[np.linspace(0, len(frequent) - 1, MOST_STEPS).astype(int)]] = True
    return used, merged_counts


def _violated(
    log: PairLog, used: Mask, shares: Float64, slacks: tuple[Float64, Float64], most: int
) -> dict[tuple[int, int], Float64]:
    """Return, for each step, the rows of the `most` violated constraints by (step, pair)."""
    of_step, of_pair = slacks
    scale = log.sizes.mean() / log.sizes
    counts = log.start * scale
    values = counts @ shares - of_pair
    constraints: dict[tuple[int, int], Float64] = {}
    for step, pairs in enumerate(log.chosen):
        if used[step]:
            merged = counts[pairs].sum(axis=0)
            merged_values = values[pairs]
            values[pairs] = -1.0  # the merged pairs are not compared with themselves
            violated = np.flatnonzero(values > merged @ shares + of_step[step] + TOLERANCE)
            if len(violated) > most:
                violated = violated[np.argpartition(-values[violated], most)[:most]]
            values[pairs] = merged_values
            constraints |= {(step, pair): counts[pair] - merged for pair in violated.tolist()}
        changed = log.changed[step]
        counts[changed] += log.change[step] * scale
        values[changed] = counts[changed] @ shares - of_pair[changed]
    return constraints


def _solve_programme(
    rows: Mapping[tuple[int, int], Float64], n_steps: int, n_pairs: int, merged_counts: Float64
) -> tuple[Float64, Float64, Float64, float]:
    """Solve for shares and slacks under the present constraints, with merged_counts @ shares = 1.

    Returns
    -------
    shares : float64 (n_samples,)
    of_step, of_pair : float64 (n_steps,), (n_pairs,)
        Slacks.
    slack : float
        Their sum.
    """
    from scipy.optimize import linprog
    from scipy.sparse import csr_array, hstack

    n = len(merged_counts)
    steps, step_at = np.unique([step for step, _ in rows], return_inverse=True)
    pairs, pair_at = np.unique([pair for _, pair in rows], return_inverse=True)
    line = np.arange(len(rows))
    minus = np.full(len(rows), -1.0)
    matrix = hstack(
        [
            csr_array(np.array([*rows.values()])),
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
        A_eq=np.concatenate([merged_counts / merged_counts.max(), np.zeros(width - n)])[None, :],
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
    return shares, of_step, of_pair, float(result.fun) / float(merged_counts.max())
