r"""Of which kinds of text a BPE tokenizer was trained, read off its merge list.

Each merge was the most frequent pair of the training text at that time. With samples of the
categories that the text may consist of, this is a linear programme (Hayase et al., 2024, "Data
Mixture Inference: What do BPE Tokenizers Reveal about their Training Data?", arXiv 2407.16607):
find shares :math:`\alpha \ge 0` of sum 1 so that for every step t and every pair p

.. math:: \sum_i \alpha_i c_i^t(p) \le \sum_i \alpha_i c_i^t(m_t) + v_t + v_p

with the least slack, where c are counts per byte of a sample once the earlier merges have been
applied to it. Constraints are added when the solution found so far breaks them, as in the paper.
A variant in two things: each constraint is divided by the square root of the merged pair's count,
which is how far a count in a sample strays, or the first few merges would decide alone; and merges
whose pair hardly stands in the samples are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tokensurgeon.errors import CorpusError, TokenizerError, UsageError
from tokensurgeon.inspection.pair_log import (
    Floats,
    Ints,
    PairLog,
    count_words,
    log_pairs,
    merge_steps,
)
from tokensurgeon.vocabulary import Vocabulary

Progress = Callable[[int, int, str], None]

MERGES = 3_000
FEWEST = 50
"""Times that a merged pair must stand in the samples for its step to count."""
ROUNDS = 40
SETTLED = 5e-4
"""Two rounds that move no share by more than this are the last."""
TOLERANCE = 1e-7


@dataclass(frozen=True)
class Mixture:
    """Shares of categories in the text a tokenizer was trained on.

    Attributes
    ----------
    shares : mapping of category to share of the bytes
    merges : int
        Steps of the merge list that were used: those whose pair stands often enough in the
        samples.
    slack : float
        What the constraints lack at the solution, per merge, in square roots of the merged pair's
        count; 0 where the shares explain every merge.
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
    scales = _scales(log)
    used = int((scales > 0).sum())
    if not used:
        raise CorpusError(
            f"no merged pair stands {FEWEST} times in the samples; give more text, of the kinds "
            "that the tokenizer may have been trained on"
        )
    known: set[tuple[int, int]] = set()
    rows: list[Floats] = []
    places: list[tuple[int, int]] = []
    probes = [*np.eye(n), np.full(n, 1 / n)]
    slack_of_step = np.zeros(len(scales))
    slack_of_pair = np.zeros(len(log.start))
    shares, slack, rounds, still = probes[-1], 0.0, 0, 0
    for rounds in range(1, ROUNDS + 1):
        fresh = 0
        for probe in probes:
            for step, pair, row in _broken(log, scales, probe, slack_of_step, slack_of_pair):
                if (step, pair) not in known:
                    known.add((step, pair))
                    places.append((step, pair))
                    rows.append(row)
                    fresh += 1
        if not fresh or still > 1:
            break
        before = shares
        shares, slack_of_step, slack_of_pair, slack = _programme(
            np.array(rows), places, len(scales), len(log.start)
        )
        probes = [shares]
        still = still + 1 if np.abs(shares - before).max() < SETTLED else 0
        progress(rounds, ROUNDS, "solving")
    return Mixture(
        shares={name: float(share) for name, share in zip(names, shares, strict=True)},
        merges=used,
        slack=slack / used,
        constraints=len(rows),
        rounds=rounds,
    )


def _scales(log: PairLog) -> Floats:
    """Return what each step's constraints are divided by; 0 where its pair is too rare."""
    scales = np.zeros(len(log.chosen))
    counts = log.start.copy()
    for step, pairs in enumerate(log.chosen):
        found = counts[pairs].sum(axis=0)
        if found.sum() >= FEWEST:
            scales[step] = np.sqrt((found / log.sizes).mean() / log.sizes.mean())
        counts[log.changed[step]] += log.change[step]
    return scales


def _broken(
    log: PairLog, scales: Floats, shares: Floats, slack_of_step: Floats, slack_of_pair: Floats
) -> list[tuple[int, int, Floats]]:
    """Return for each step the pair that beats the merged one by most: (step, pair, row)."""
    counts = log.start.copy()
    found = []
    weights = shares / log.sizes
    values = counts @ weights
    for step, pairs in enumerate(log.chosen):
        if scales[step]:
            own = counts[pairs].sum(axis=0)
            kept = values[pairs]
            values[pairs] = -1.0
            pair = int(np.argmax(values - slack_of_pair * scales[step]))
            values[pairs] = kept
            row = (counts[pair] - own) / log.sizes / scales[step]
            if row @ shares > slack_of_step[step] + slack_of_pair[pair] + TOLERANCE:
                found.append((step, pair, row))
        places: Ints = log.changed[step]
        counts[places] += log.change[step]
        values[places] = counts[places] @ weights
    return found


def _programme(
    rows: Floats, places: Sequence[tuple[int, int]], n_steps: int, n_pairs: int
) -> tuple[Floats, Floats, Floats, float]:
    """Solve for shares and slacks under the constraints known so far."""
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
        A_eq=np.concatenate([np.ones(n), np.zeros(width - n)])[None, :],
        b_eq=[1.0],
        bounds=(0, None),
        method="highs",
    )
    if result.x is None or result.fun is None:
        raise TokenizerError(f"the mixture cannot be solved: {result.message}; use fewer merges")
    of_step, of_pair = np.zeros(n_steps), np.zeros(n_pairs)
    of_step[steps] = result.x[n : n + len(steps)]
    of_pair[pairs] = result.x[n + len(steps) :]
    return np.asarray(result.x[:n]), of_step, of_pair, float(result.fun)
