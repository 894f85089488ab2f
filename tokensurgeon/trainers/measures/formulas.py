"""Figures of a vocabulary as formulas over counts."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

_WORD_AND_MORE = re.compile(r"\S\s+\S")


def renyi_entropy(counts: npt.ArrayLike, alpha: float) -> float:
    r"""Return the Rényi entropy of a token distribution in nats.

    :math:`H_\alpha = \frac{1}{1 - \alpha} \ln \sum_v p_v^\alpha`; Shannon's at alpha 1. NaN if all
    counts are zero.
    """
    positive = np.asarray(counts, dtype=np.float64).ravel()
    positive = positive[positive > 0]
    if not len(positive):
        return math.nan
    logs = np.log(positive) - math.log(positive.sum())
    if alpha == 1:
        return float(-(np.exp(logs) * logs).sum())
    scaled = alpha * logs
    top = scaled.max()
    return float((top + math.log(np.exp(scaled - top).sum())) / (1 - alpha))


def renyi_efficiency(counts: npt.ArrayLike, alpha: float, n_vocabulary: int) -> float:
    r"""Return how evenly a vocabulary is used: :math:`H_\alpha / \ln |V|` (Zouhar et al., 2023).

    Parameters
    ----------
    counts : array_like
        Uses of each token in a text; unused tokens may be left out.
    alpha : float
        The higher, the more the frequent tokens count; the paper finds 2.5 for translation.
    n_vocabulary : int
        \|V\|, the number of all tokens of the vocabulary, unused ones included: otherwise unused
        tokens would improve the figure.

    Examples
    --------
    >>> round(renyi_efficiency([5, 5, 5, 5], alpha=2.5, n_vocabulary=4), 3)
    1.0
    >>> round(renyi_efficiency([5, 5], alpha=2.5, n_vocabulary=4), 3)
    0.5
    """
    if n_vocabulary < 2:
        return math.nan
    return renyi_entropy(counts, alpha) / math.log(n_vocabulary)


def gini(values: Sequence[float] | npt.ArrayLike) -> float:
    r"""Return the Gini coefficient: 0 if all values are equal, near 1 if one of many has all.

    :math:`\sum_{ij} |x_i - x_j| / (2 n^2 \bar{x})`. NaN for no values, or if all are zero.

    Examples
    --------
    >>> gini([3, 3, 3]), gini([0, 0, 0, 1])
    (0.0, 0.75)
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64).ravel())
    n, total = len(ordered), ordered.sum()
    if not n or not total > 0:
        return math.nan
    ranks = 2 * np.arange(1, n + 1) - n - 1
    return float((ranks * ordered).sum() / (n * total))


def is_multi_word(data: bytes | None) -> bool:
    r"""Return whether a token contains two words: letters or digits on both sides of white space.

    Examples
    --------
    >>> is_multi_word(b" of the"), is_multi_word(b" the "), is_multi_word(b");\n")
    (True, False, False)
    """
    if data is None:
        return False
    core = data.decode("utf-8", "replace").strip()
    if not _WORD_AND_MORE.search(core):
        return False
    return sum(any(c.isalnum() for c in word) for word in core.split()) > 1
